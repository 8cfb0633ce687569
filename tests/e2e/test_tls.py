"""TLS listeners: clients of several kinds, certificates that are replaced, and whatever else comes to a TLS port."""

import hashlib
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess

import pytest
from pymemcache.client.base import Client

from certificates import Certificate, client_context
from local import ports
from local.memcached import Memcached
from local.yaml_text import dump
from support import DEADLINE, Wire, log_of, serves, until

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def node(directory):
    node = Memcached(directory, memory_mb=256, arguments=["-I", "16m"]).start()
    yield node
    node.close()


@pytest.fixture(scope="module")
def authority(directory):
    return Certificate(directory, "authority")


@pytest.fixture(scope="module")
def issued(directory, authority):
    """Certificates of the authority, by name."""
    return {name: Certificate(directory, name, authority) for name in ("first", "second", "client")}


@pytest.fixture(scope="module")
def context(authority):
    return client_context(authority)


class TlsWire(Wire):
    """A Wire that speaks TLS."""

    def __init__(self, port, context, timeout=DEADLINE, session=None):
        super().__init__(port, timeout)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost", session=session)

    @property
    def shown(self) -> str:
        """The name in the server's certificate."""
        return dict(pair for part in self.socket.getpeercert()["subject"] for pair in part)["commonName"]


class Secure:
    """A sidecar with a plain listener (its port) and a TLS one, whose files are its own."""

    def __init__(self, start, directory, node, certificate, tls=(), **config):
        self.tls_port = ports.pick()
        stem = directory / f"tls-{self.tls_port}"
        self.certificate, self.key = stem.with_suffix(".crt"), stem.with_suffix(".key")
        self.socket = directory / f"{self.tls_port}.sock"
        certificate.put(self.certificate, self.key)
        port = ports.pick()
        listen = [f"127.0.0.1:{port}", {"address": f"127.0.0.1:{self.tls_port}", "tls": True},
                  {"address": f"unix:{self.socket}", "mode": "0600", "tls": True}]
        self.sidecar = start({"pool": {"nodes": [node.address], "timeout": "30s"}, "max_value_size": "16MiB", "listen": listen,
                              "tls": {"certificate": str(self.certificate), "key": str(self.key), **dict(tls)}, **config}, port=port)

    def reloads(self, result):
        return self.sidecar.metrics().total("outrigger_tls_reloads_total", result=result)

    def handshakes(self, result):
        return self.sidecar.metrics().total("outrigger_tls_handshakes_total", result=result)


@pytest.fixture
def secure(start, directory, node, issued):
    return Secure(start, directory, node, issued["first"])


# ---- clients

def test_both_listeners(secure, context):
    with TlsWire(secure.tls_port, context) as wire, Wire(secure.sidecar.port) as plain:
        settings = wire.ask(b"stats settings\r\n", b"END\r\n").decode()
        assert f"STAT tcpport {secure.sidecar.port}\r\n" in settings and "STAT ssl_enabled yes\r\n" in settings
        assert f"STAT inter 127.0.0.1:{secure.sidecar.port},127.0.0.1:{secure.tls_port}\r\nSTAT domain_socket {secure.socket}\r\n" in settings
        assert wire.shown == "first" and wire.socket.version() == "TLSv1.3"
        assert wire.set("k", b"over TLS") == b"STORED\r\n"
        assert plain.get("k") == b"over TLS"
        assert plain.set("k", b"plain") == b"STORED\r\n"
        assert wire.get("k") == b"plain"
    assert secure.handshakes("full") == 1


def test_tls_on_a_unix_socket_with_a_mode_of_its_own(secure, context):
    assert stat.S_IMODE(os.stat(secure.socket).st_mode) == 0o600
    with TlsWire(secure.socket, context) as wire:
        assert wire.set("unix", b"1") == b"STORED\r\n" and wire.get("unix") == b"1"


def test_tls_1_2(secure, context, authority):
    old = client_context(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with TlsWire(secure.tls_port, old) as wire:
        assert wire.socket.version() == "TLSv1.2" and "GCM" in wire.socket.cipher()[0]
        assert wire.set("old", b"1") == b"STORED\r\n" and wire.get("old") == b"1"


def test_min_version(start, directory, node, issued, authority):
    secure = Secure(start, directory, node, issued["first"], tls={"min_version": "1.3"})
    old = client_context(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        TlsWire(secure.tls_port, old)
    until(lambda: secure.handshakes("failed") == 1, "counted")
    with TlsWire(secure.tls_port, client_context(authority)) as wire:
        assert wire.get("none") is None


def test_pymemcache(secure, context):
    client = Client(("localhost", secure.tls_port), tls_context=context, timeout=DEADLINE, default_noreply=False)
    assert client.set("k", b"1") and client.get("k") == b"1"
    assert client.set_many({f"k{i}": str(i).encode() for i in range(200)}) == []
    assert client.get_many([f"k{i}" for i in range(200)]) == {f"k{i}": str(i).encode() for i in range(200)}
    assert client.incr("k", 5) == 6 and client.delete("k") and client.get("k") is None
    client.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_openssl_s_client(secure, authority):
    """Another implementation of a client, which ends its input first: what was asked is still answered."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{secure.tls_port}", "-CAfile", str(authority.path), "-verify_return_error",
                           "-quiet", "-ign_eof"], input=b"set s 0 0 1\r\n1\r\nget s\r\nquit\r\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=DEADLINE, check=False)
    assert done.stdout == b"STORED\r\nVALUE s 0 1\r\n1\r\nEND\r\n", done.stderr


def test_pipelining(secure, context):
    count = 2000
    with TlsWire(secure.tls_port, context) as wire:
        wire.send(b"".join(b"set p%d 0 0 %d\r\n%b\r\n" % (i, len(str(i)), str(i).encode()) for i in range(count)))
        assert wire.read(count * 8) == b"STORED\r\n" * count
        wire.send(b"".join(b"get p%d\r\n" % i for i in range(count)))
        for i in range(count):
            assert wire.until(b"END\r\n") == b"VALUE p%d 0 %d\r\n%d\r\nEND\r\n" % (i, len(str(i)), i)


@pytest.mark.parametrize("size", [16384 - 7, 16384, 100000, MEGABYTE, 5 * MEGABYTE + 3, 16 * MEGABYTE - 1024])
def test_large_values(secure, context, size):
    value = os.urandom(size)
    with TlsWire(secure.tls_port, context) as wire:
        assert wire.set("large", value) == b"STORED\r\n"
        for _ in range(2):
            got = wire.get("large")
            assert hashlib.sha256(got).digest() == hashlib.sha256(value).digest()
        wire.send(b"get large\r\n" * 3)
        for _ in range(3):
            assert len(wire.until(b"\r\n")) > 10 and wire.read(size) == value and wire.read(7) == b"\r\nEND\r\n"


def test_half_close(secure, context):
    """A goodbye is answered by one. After an end without a goodbye the client still gets its answers, and then a goodbye."""
    with TlsWire(secure.tls_port, context) as wire:
        assert wire.set("h", b"1") == b"STORED\r\n"
        wire.socket.unwrap()  # fails unless a goodbye comes, and nothing before it
    with TlsWire(secure.tls_port, context) as wire:
        wire.send(b"set h 0 0 1\r\n1\r\nget h\r\n")
        socket.socket.shutdown(wire.socket, socket.SHUT_WR)
        assert wire.rest() == b"STORED\r\nVALUE h 0 1\r\n1\r\nEND\r\n"


def test_resumption(secure, context):
    with TlsWire(secure.tls_port, context) as wire:
        assert wire.get("none") is None  # with the answer came the ticket
        session = wire.socket.session
    for _ in range(4):  # whichever worker it gets to
        with TlsWire(secure.tls_port, context, session=session) as wire:
            assert wire.socket.session_reused and wire.get("none") is None
    assert secure.handshakes("resumed") == 4


def test_client_certificates(start, directory, node, issued, authority):
    secure = Secure(start, directory, node, issued["first"], tls={"client_ca": str(authority.path)})
    with TlsWire(secure.tls_port, client_context(authority, issued["client"])) as wire:
        assert wire.get("none") is None
    stranger = Certificate(directory, "stranger")
    for own in (None, stranger):
        with pytest.raises(OSError):  # ssl.SSLError is one, too: TLS 1.3 tells when the client first reads
            with TlsWire(secure.tls_port, client_context(authority, own)) as wire:
                assert wire.ask(b"get none\r\n") != b""
                pytest.fail("let in")
    until(lambda: secure.handshakes("certificate") == 2, "counted")
    assert "no TLS with 127.0.0.1:" in log_of(secure.sidecar)


# ---- hostile and idle ones

@pytest.mark.parametrize("text, result", [(b"get a\r\n", "not_tls"), (b"GET / HTTP/1.0\r\n\r\n", "not_tls"), (b"\x80" + os.urandom(64), None),
                                          (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(600), None)], ids=["text", "http", "garbage", "half-tls"])
def test_what_is_no_tls(secure, context, text, result):
    with TlsWire(secure.tls_port, context) as other:
        before = sum(secure.handshakes(r) for r in ("not_tls", "failed"))
        with Wire(secure.tls_port) as wire:
            wire.send(text)
            assert b"VALUE" not in wire.rest()
        until(lambda: sum(secure.handshakes(r) for r in ("not_tls", "failed")) == before + 1, "counted")
        assert result is None or secure.handshakes(result) == 1
        assert other.set("k", b"1") == b"STORED\r\n"
    assert "no TLS with 127.0.0.1:" in log_of(secure.sidecar)


def test_who_says_nothing_is_disconnected(start, directory, node, issued, context):
    secure = Secure(start, directory, node, issued["first"], tls={"handshake_timeout": "2s"})
    with TlsWire(secure.tls_port, context) as other, Wire(secure.tls_port) as silent, Wire(secure.tls_port) as slow:
        slow.send(b"\x16\x03\x01")
        assert silent.rest() == b"" and slow.rest() == b""
        assert secure.handshakes("timeout") == 2
        assert other.get("none") is None  # long past the deadline, which was that of its handshake


def test_limits(start, directory, node, issued, context):
    """A client in its handshake is a connection; idle_timeout is of all listeners."""
    secure = Secure(start, directory, node, issued["first"], max_connections=2, idle_timeout="4s", threads=1)
    with Wire(secure.tls_port), Wire(secure.tls_port):
        until(lambda: secure.sidecar.metrics().total("outrigger_client_connections") == 2, "both are in")
        with pytest.raises(OSError):
            TlsWire(secure.tls_port, context)
        with Wire(secure.sidecar.port) as plain:
            assert plain.rest() == b"ERROR Too many open connections\r\n"
        assert secure.sidecar.metrics().total("outrigger_client_connections_refused_total") == 2
        until(lambda: secure.sidecar.metrics().total("outrigger_client_connections") == 0, "idle ones are closed")
    with TlsWire(secure.tls_port, context) as wire:
        assert wire.get("none") is None
        assert wire.rest() == b""  # in the end


# ---- reloading

@pytest.mark.parametrize("how", ["SIGHUP", "the files change"])
def test_reload(secure, context, issued, how):
    with TlsWire(secure.tls_port, context) as old:
        assert old.shown == "first"
        issued["second"].put(secure.certificate, secure.key)
        if how == "SIGHUP":
            os.kill(secure.sidecar.process.pid, signal.SIGHUP)
        until(lambda: secure.reloads("done") >= 1, "reloaded")
        with TlsWire(secure.tls_port, context) as new:
            assert new.shown == "second"
            assert new.set("k", b"new") == b"STORED\r\n"
        assert old.get("k") == b"new"
    assert f"get the certificate in {secure.certificate}" in log_of(secure.sidecar)
    assert secure.sidecar.metrics().total("outrigger_client_connections_refused_total") == 0


def test_a_bad_pair_keeps_the_old(secure, context, issued, authority, directory):
    expired = Certificate(directory, "expired", authority, valid_days=-1)
    good_certificate, good_key = secure.certificate.read_bytes(), secure.key.read_bytes()
    refused = 0
    for certificate, key, says in ((issued["second"].path.read_bytes(), good_key, "does not belong to the certificate"),
                                   (good_certificate[:200], good_key, "not usable as a PEM certificate"),
                                   (b"", good_key, "not usable as a PEM certificate"),
                                   (expired.path.read_bytes(), expired.key.read_bytes(), "has expired")):
        secure.certificate.write_bytes(certificate)
        secure.key.write_bytes(key)
        os.kill(secure.sidecar.process.pid, signal.SIGHUP)
        until(lambda: says in log_of(secure.sidecar), says)
        until(lambda: secure.reloads("refused") > refused, "counted")
        refused = secure.reloads("refused")
        with TlsWire(secure.tls_port, context) as wire:
            assert wire.shown == "first" and wire.get("none") is None
    secure.certificate.unlink()
    until(lambda: "No such file" in log_of(secure.sidecar), "missed without being told")
    with TlsWire(secure.tls_port, context) as wire:
        assert wire.shown == "first"
    issued["second"].put(secure.certificate, secure.key)
    until(lambda: secure.reloads("done") == 1, "reloaded without being told")
    with TlsWire(secure.tls_port, context) as wire:
        assert wire.shown == "second"


def test_sighup_without_tls(start, node):
    sidecar = start({"pool": {"nodes": [node.address]}})
    os.kill(sidecar.process.pid, signal.SIGHUP)
    assert serves(sidecar.port)


# ---- configuration

def check(binary, file, config, status):
    file.write_text(dump(config))
    done = subprocess.run([binary, "--config", file, "--check"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=30, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr


def test_check_loads_the_files(binary, tmp_path, directory, issued, authority, node):
    first, second = issued["first"], issued["second"]
    expired = Certificate(directory, "expired2", authority, valid_days=-1)
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(os.urandom(1000))
    file = tmp_path / "tls.yaml"

    def config(certificate, key):
        return {"pool": {"nodes": [node.address]}, "listen": [{"address": "127.0.0.1:11299", "tls": True}],
                "tls": {"certificate": str(certificate), "key": str(key)}}
    assert check(binary, file, config(first.path, first.key), 0) == ""
    assert f"{file}: tls.key: {second.key}: does not belong to the certificate" in check(binary, file, config(first.path, second.key), 2)
    assert f"{file}: tls.certificate: {garbage}: is not usable" in check(binary, file, config(garbage, first.key), 2)
    assert f"{file}: warning: tls.certificate: {expired.path}: has expired" in check(binary, file, config(expired.path, expired.key), 0)
    missing = check(binary, file, config(tmp_path / "missing.pem", first.key), 2)
    assert f"{file}:8: tls.certificate: can not read " in missing and "No such file or directory" in missing
    without = config(first.path, first.key)
    del without["tls"]
    assert f"{file}:6: listen[0].tls: needs a tls section" in check(binary, file, without, 2)
