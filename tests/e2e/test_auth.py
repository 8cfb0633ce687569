"""credentials_file: nobody gets at the cache without authenticating, on any listener, in any protocol; the file may change meanwhile."""

import itertools
import os
import random
import signal
import socket
import struct
import subprocess
import threading

import pytest

from local.memcached import Memcached
from local.yaml_text import dump
from support import Growth, Outrigger, Wire, log_of, until

USERS = "ann:secret\nbob:a:b\n"
UNAUTHENTICATED = b"CLIENT_ERROR unauthenticated\r\n"
FAILURE = b"CLIENT_ERROR authentication failure\r\n"
_numbers = itertools.count(1)


def write(path, text, mode=0o600):
    """A new file in place of the old one, as configuration management does it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    os.replace(new, path)


def login(user, password, tail=b"\r\n"):
    value = f"{user} {password}".encode()
    return b"set any 0 0 %d\r\n%s%s" % (len(value), value, tail)


@pytest.fixture(scope="module")
def node(watch, directory):
    node = Memcached(directory).start()
    yield node
    node.close()


@pytest.fixture(scope="module")
def users(directory):
    path = directory / "users"
    write(path, USERS)
    return path


@pytest.fixture(scope="module")
def sidecar(node, directory, users):
    outrigger = Outrigger(directory, {"threads": 2, "pool": {"nodes": [node.address]}, "credentials_file": str(users)})
    try:
        yield outrigger.start()
    finally:
        outrigger.close()


@pytest.fixture(scope="module")
def reference(watch, directory, users):
    """memcached itself, with the same file."""
    server = Memcached(directory, name="reference", arguments=["-Y", users])
    server.process.start()
    server.process.wait_for_port(server.port)
    yield server
    server.close()


@pytest.fixture(params=["tcp", "unix"])
def address(request, sidecar):
    return sidecar.port if request.param == "tcp" else sidecar.socket


# ---- text

def test_nothing_works_before(address):
    for line in (b"get k", b"gets k", b"set k 0 0", b"delete k", b"incr k 1", b"touch k 0", b"gat 0 k", b"flush_all", b"version", b"stats", b"verbosity 1",
                 b"quit", b"mn", b"mg k v", b"ms k 1", b"me k", b"", b"x", b"shutdown"):
        with Wire(address) as wire:
            assert wire.ask(line + b"\r\n") == UNAUTHENTICATED, line
            assert wire.ask(login("ann", "secret")) == b"STORED\r\n"
            assert wire.set("k", b"1") == b"STORED\r\n" and wire.get("k") == b"1"


def test_right_and_wrong(address):
    with Wire(address) as wire:
        for user, password in (("ann", "wrong"), ("ann", "secret2"), ("nobody", "secret"), ("bob", "a")):
            assert wire.ask(login(user, password)) == FAILURE
            assert wire.ask(b"get k\r\n") == UNAUTHENTICATED
        assert wire.ask(login("bob", "a:b")) == b"STORED\r\n"
        # From here on a set is a set.
        assert wire.ask(login("ann", "wrong")) == b"STORED\r\n" and wire.get("any") == b"ann wrong"


def test_a_pipeline_behind_the_credentials(address):
    with Wire(address) as wire:
        wire.send(b"get k\r\n" + login("ann", "wrong") + b"get k\r\n" + login("ann", "secret") + b"set p 0 0 1\r\n1\r\nget p\r\n")
        assert wire.until(b"END\r\n") == UNAUTHENTICATED + FAILURE + UNAUTHENTICATED + b"STORED\r\nSTORED\r\nVALUE p 0 1\r\n1\r\nEND\r\n"


def test_one_byte_at_a_time(address):
    with Wire(address) as wire:
        for byte in b"get k\r\n" + login("ann", "secret") + b"get nothing\r\n":
            wire.send(bytes([byte]))
        assert wire.until(b"END\r\n") == UNAUTHENTICATED + b"STORED\r\nEND\r\n"


# One answer to each piece; memcached answers only the last of several that it gets at once.
STREAMS = [[b"get k\r\n"], [b"set a 0 0 5\r\nann x\r\n"], [b"set a 0 0 10\r\nann secret\r\n"], [b"set a b c 10\r\nann secret\r\n"],
           [b"set a 0 0 10 noreply\r\nann secret\r\n"], [b"set a 0 0 10\nann secret\r\n"], [b"set a 0 0 10\r\nann secret\n\n"],
           [b"set a 0 0 9\r\nann secret\r"], [b"set a 0 0 3\r\nann\r\n"], [b"set a 0 0 0\r\n\r\n"], [b"set a 0 0 4\r\nann \r\n"],
           [b"set a 0 0 15\r\nann secret more\r\n"], [b"set a 0 0 12\r\n ann  secret\r\n"], [b"set a 0 0\r\n"], [b"set\r\n"], [b"set a 0 0 x\r\n"],
           [b"set a 0 0 10 1 2 3 4\r\nann secret\r\n"], [b"SET a 0 0 10\r\n", b"ann secret\r\n"], [b"sets a 0 0 10\r\n"], [b"version\r\n", b"quit\r\n"],
           [b"\r\n", b"\r\n"], [b"set a 0 0 500\r\n" + b"x" * 500 + b"\r\n"], [b"set a 0 0 7\r\nbob a:b\r\n", b"set k 0 0 1\r\n1\r\n"],
           [b"set a 0 0 5\r\nbob a\r\n", b"set a 0 0 10\r\nann secret\r\n", b"set a 0 0 5\r\nann x\r\n"]]


@pytest.mark.parametrize("pieces", STREAMS, ids=lambda s: repr(b"".join(s))[:40])
def test_as_memcached(sidecar, reference, pieces):
    """What memcached -Y answers, to the letter; a get at the end shows whether the client is in."""
    answers = []
    for port in (reference.port, sidecar.port):
        with Wire(port) as wire:
            answers.append([wire.ask(piece) for piece in pieces + [b"get the-last-one\r\n"]])
    assert answers[1] == answers[0]


def test_values_are_bounded(sidecar):
    """More than 1 KiB is no password: skipped, refused, and never held."""
    growth = Growth(sidecar)
    with Wire(sidecar.port) as wire:
        size = 50_000_000
        wire.send(b"set a 0 0 %d\r\n" % size)
        assert wire.line() == FAILURE
        for _ in range(50):
            wire.send(b"x" * (size // 50))
        wire.send(b"\r\n")
        assert wire.ask(b"set a 0 0 1025\r\n%s\r\n" % (b"x" * 1025)) == FAILURE
        assert wire.ask(b"set a 0 0 1024\r\n%s\r\n" % (b"x" * 1024)) == b"CLIENT_ERROR bad authentication token format\r\n"
        assert wire.ask(login("ann", "secret")) == b"STORED\r\n"
    growth.reaches(3, "outrigger_authentications_total", result="malformed")


def test_many_failures(sidecar):
    growth = Growth(sidecar)
    with Wire(sidecar.port) as wire:
        wire.send(login("ann", "wrong") * 20)
        assert wire.rest() == FAILURE * 8
    growth.reaches(8, "outrigger_authentications_total", result="denied")
    assert growth.of("outrigger_authentications_total", result="denied") == 8
    log = log_of(sidecar)
    assert "authentication failed" in log and "tcp:127.0.0.1:" in log
    assert "secret" not in log and "wrong" not in log


def test_garbage(sidecar):
    chance = random.Random(7)
    pieces = [b"set ", b"a ", b"0 ", b"10", b"\r\n", b"\n", b"ann secre", b"\0", b"\x80", b"\x81", b" ", b"get k\r\n", b"set a 0 0 3\r\n"]
    for _ in range(60):
        with Wire(sidecar.port) as wire:
            reader = threading.Thread(target=wire.rest)
            reader.start()
            try:
                wire.send(b"".join(chance.choice(pieces) for _ in range(200)))
                wire.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has hung up
            reader.join(30)
            assert not reader.is_alive()
    with Wire(sidecar.port) as wire:
        assert wire.ask(login("ann", "secret")) == b"STORED\r\n"


def test_stats_tell(sidecar):
    def stats(*words):
        with Wire(sidecar.port) as wire:
            assert wire.ask(login("ann", "secret")) == b"STORED\r\n"
            return dict(line.split()[1:3] for line in wire.ask(b" ".join((b"stats",) + words) + b"\r\n", b"END\r\n").decode().splitlines()[:-1])
    before = stats()
    with Wire(sidecar.port) as wire:
        assert wire.ask(login("ann", "wrong")) == FAILURE
    after = stats()
    assert int(after["auth_cmds"]) - int(before["auth_cmds"]) == 2 and int(after["auth_errors"]) - int(before["auth_errors"]) == 1
    assert stats(b"settings")["auth_enabled_sasl"] == "yes"


# ---- the file

@pytest.fixture
def own(start, node, directory):
    """A sidecar with a file of its own: (sidecar, path)."""
    path = directory / f"users-{next(_numbers)}"
    write(path, USERS)
    return start({"pool": {"nodes": [node.address]}, "credentials_file": str(path)}), path


def may(sidecar, user, password):
    with Wire(sidecar.port) as wire:
        return wire.ask(login(user, password)) == b"STORED\r\n"


@pytest.mark.parametrize("told", [True, False], ids=["SIGHUP", "by itself"])
def test_a_changed_file(own, told):
    """Taken by SIGHUP, or when it is noticed; those who are in stay in."""
    sidecar, path = own
    with Wire(sidecar.port) as old:
        assert old.ask(login("ann", "secret")) == b"STORED\r\n"
        write(path, "ann:new\ncarl:x\n")
        if told:
            os.kill(sidecar.process.pid, signal.SIGHUP)
        until(lambda: may(sidecar, "carl", "x"), "the new file")
        assert may(sidecar, "ann", "new") and not may(sidecar, "ann", "secret") and not may(sidecar, "bob", "a:b")
        assert old.set("still", b"in") == b"STORED\r\n" and old.get("still") == b"in"


def test_a_bad_file(own):
    """The old one stays in force, and the log says where the new one is wrong; once."""
    sidecar, path = own
    write(path, "carl:x\nann\n")
    os.kill(sidecar.process.pid, signal.SIGHUP)
    until(lambda: f"{path}:2: has no" in log_of(sidecar), "the complaint")
    assert may(sidecar, "ann", "secret") and not may(sidecar, "carl", "x")
    path.unlink()
    until(lambda: f"can not read {path}" in log_of(sidecar), "the other complaint")
    assert may(sidecar, "ann", "secret")
    write(path, "carl:x\n")
    until(lambda: may(sidecar, "carl", "x"), "the good file")
    assert 1 <= log_of(sidecar).count("has no") <= 2  # once for SIGHUP, and perhaps once for the look just before it
    assert log_of(sidecar).count("can not read") == 1


def test_changes_under_load(own):
    """Authenticating while the file changes all the time: whoever is in every version always gets in."""
    sidecar, path = own
    over = threading.Event()

    def change():
        for i in range(40):
            write(path, f"ann:secret\nextra:{i}\n")
            os.kill(sidecar.process.pid, signal.SIGHUP)
        over.set()
    changer = threading.Thread(target=change)
    changer.start()
    tries = 0
    while not over.is_set() or tries < 50:
        assert may(sidecar, "ann", "secret")
        tries += 1
    changer.join()


def test_readable_by_others(start, node, directory):
    path = directory / "exposed"
    write(path, USERS, 0o644)
    sidecar = start({"pool": {"nodes": [node.address]}, "credentials_file": str(path)})
    assert "can be read by everybody" in log_of(sidecar)


def test_a_bad_file_does_not_start(binary, tmp_path, node):
    users = tmp_path / "users"
    config = tmp_path / "outrigger.yaml"
    config.write_text(dump({"pool": {"nodes": [node.address]}, "credentials_file": str(users)}))
    for text, complaint in (("ann:secret\n# note\n", f"{users}:2: has no"), ("", f"{users}: is empty"), (None, "can not read")):
        users.unlink(missing_ok=True)
        if text is not None:
            write(users, text)
        for check in ([], ["--check"]):
            done = subprocess.run([binary, "--config", config, *check], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
            assert done.returncode == 2 and complaint in done.stderr and f"{config}:" in done.stderr, done.stderr


def test_sighup_without_credentials(start, node):
    sidecar = start({"pool": {"nodes": [node.address]}})
    for _ in range(5):
        os.kill(sidecar.process.pid, signal.SIGHUP)
    with Wire(sidecar.port) as wire:
        assert wire.set("k", b"1") == b"STORED\r\n"


# ---- binary

HEADER = struct.Struct(">BBHBBHIIQ")
SASL_LIST, SASL_AUTH, SASL_STEP, VERSION, NOOP, GET, GETQ, SET = 0x20, 0x21, 0x22, 0x0b, 0x0a, 0x00, 0x09, 0x01


def packet(opcode, key=b"", value=b"", extras=b"", opaque=7):
    return HEADER.pack(0x80, opcode, len(key), len(extras), 0, 0, len(extras) + len(key) + len(value), opaque, 0) + extras + key + value


def answer(wire):
    """Status and value of one reply; None at the end of the connection."""
    head = wire.read(24)
    if len(head) < 24:
        return None
    magic, _, key_len, extras_len, _, status, body_len, opaque, _ = HEADER.unpack(head)
    assert magic == 0x81 and opaque == 7
    return status, wire.read(body_len)[key_len + extras_len:]


def speaks_binary(address):
    with Wire(address) as wire:
        return wire.send(packet(VERSION) + b"\r\n").read(1) == b"\x81"


@pytest.fixture
def binary_address(address):
    if not speaks_binary(address):
        pytest.skip("this sidecar does not speak the binary protocol")
    return address


def test_binary_authentication(binary_address):
    with Wire(binary_address) as wire:
        assert answer(wire.send(packet(SASL_LIST))) == (0, b"PLAIN")
        assert answer(wire.send(packet(VERSION)))[0] == 0
        for mechanism, value in ((b"PLAIN", b"\0ann\0wrong"), (b"CRAM-MD5", b""), (b"PLAIN", b"ann secret"), (b"PLAIN", b"bob\0ann\0secret"), (b"PLAIN", b"")):
            assert answer(wire.send(packet(SASL_AUTH, mechanism, value))) == (0x20, b"Auth failure.")
        assert answer(wire.send(packet(SASL_AUTH, b"PLAIN", b"\0ann\0secret"))) == (0, b"Authenticated")
        assert answer(wire.send(packet(SET, b"bin", b"1", b"\0" * 8)))[0] == 0
        assert answer(wire.send(packet(GET, b"bin"))) == (0, b"1")
        # One who tries again and fails is out, as with memcached.
        assert answer(wire.send(packet(SASL_AUTH, b"PLAIN", b"\0ann\0wrong")))[0] == 0x20
        assert answer(wire.send(packet(GET, b"bin")))[0] == 0x20


@pytest.mark.parametrize("opcode", [NOOP, GET, GETQ, SET, 0x10, 0x07, 0x08, 0x1c, 0x99, 0x04])  # the last two: no such command, and no key
def test_binary_before(binary_address, opcode):
    key = b"k" if opcode in (GET, GETQ, SET, 0x1c) else b""
    extras = {SET: b"\0" * 8, 0x1c: b"\0" * 4}.get(opcode, b"")
    with Wire(binary_address) as wire:
        assert answer(wire.send(packet(opcode, key, b"", extras)))[0] == 0x20
        assert answer(wire) is None


def test_binary_values_are_bounded(binary_address):
    with Wire(binary_address) as wire:
        assert answer(wire.send(packet(SASL_AUTH, b"PLAIN", b"x" * 5_000_000)))[0] == 0x20
        assert answer(wire.send(packet(SASL_AUTH, b"PLAIN", b"\0ann\0secret"))) == (0, b"Authenticated")


def test_binary_many_failures(binary_address):
    with Wire(binary_address) as wire:
        wire.send(packet(SASL_AUTH, b"PLAIN", b"\0ann\0wrong") * 20)
        for _ in range(8):
            assert answer(wire) == (0x20, b"Auth failure.")
        assert answer(wire) is None


def test_pylibmc(sidecar):
    if not speaks_binary(sidecar.port):
        pytest.skip("this sidecar does not speak the binary protocol")
    pylibmc = pytest.importorskip("pylibmc")
    client = pylibmc.Client([sidecar.address], binary=True, username="ann", password="secret")
    assert client.set("lib", "value") and client.get("lib") == "value"
    wrong = pylibmc.Client([sidecar.address], binary=True, username="ann", password="wrong")
    with pytest.raises(pylibmc.Error):
        wrong.set("lib", "other")
    assert client.get("lib") == "value"


def test_binary_without_credentials(start, node):
    sidecar = start({"pool": {"nodes": [node.address]}})
    if not speaks_binary(sidecar.port):
        pytest.skip("this sidecar does not speak the binary protocol")
    with Wire(sidecar.port) as wire:
        assert answer(wire.send(packet(SASL_LIST)))[0] == 0x81
        assert answer(wire.send(packet(SASL_AUTH, b"PLAIN", b"\0ann\0secret")))[0] == 0x81
        assert answer(wire.send(packet(NOOP)))[0] == 0
