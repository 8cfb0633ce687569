"""Foreign clients against the sidecar and, to see that the tests ask for what memcached does, against memcached itself."""

import re
import shutil
import subprocess

import pylibmc
import pytest
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError, MemcacheServerError

from support import Wire

MEGABYTE = 1 << 20


@pytest.fixture(params=["outrigger", "memcached"])
def server(request, plain):
    """One of the two, empty."""
    for node in (plain.node, plain.reference):
        assert node.command(b"flush_all\r\n") == b"OK\r\n"
    return plain.outrigger if request.param == "outrigger" else plain.reference


# ---- pymemcache

@pytest.fixture
def client(server):
    client = Client(("127.0.0.1", server.port), timeout=10, default_noreply=False)
    yield client
    client.close()


def test_pymemcache_storing(client):
    assert client.set("k", b"1") and client.get("k") == b"1"
    assert not client.add("k", b"2") and client.add("k2", b"2")
    assert client.replace("k", b"3") and not client.replace("none", b"3")
    assert client.append("k", b">") and client.prepend("k", b"<") and client.get("k") == b"<3>"
    assert not client.append("none", b">") and not client.prepend("none", b"<")
    assert client.set("flags", b"x", flags=4294967295)
    assert client.set("empty", b"") and client.get("empty") == b""
    assert client.set("binary", bytes(range(256)) * 4 + b"\r\nEND\r\n") and client.get("binary") == bytes(range(256)) * 4 + b"\r\nEND\r\n"
    assert client.set(b"k" * 250, b"long") and client.get(b"k" * 250) == b"long"


def test_pymemcache_cas(client):
    assert client.gets("k") == (None, None)
    assert client.cas("k", b"1", "1") is None
    client.set("k", b"1")
    value, unique = client.gets("k")
    assert value == b"1" and client.cas("k", b"2", unique) is True
    assert client.cas("k", b"3", unique) is False and client.get("k") == b"2"
    assert set(client.gets_many(["k", "none"])) == {"k"}


def test_pymemcache_delete_and_touch(client):
    client.set("k", b"1")
    assert client.touch("k", 100) and not client.touch("none", 100)
    assert client.delete("k") and not client.delete("k") and client.get("k") is None
    client.set("k", b"1", expire=-1)
    assert client.get("k") is None


def test_pymemcache_arithmetic(client):
    client.set("n", b"18446744073709551614")
    assert client.incr("n", 1) == 18446744073709551615 and client.incr("n", 2) == 1
    assert client.decr("n", 5) == 0 and client.incr("none", 1) is None and client.decr("none", 1) is None
    client.set("n", b"100")
    assert client.decr("n", 1) == 99 and client.get("n").strip() == b"99"
    client.set("word", b"x")
    with pytest.raises(MemcacheClientError):
        client.incr("word", 1)


def test_pymemcache_many(client):
    values = {f"key{i}": b"value %d" % i for i in range(2000)}
    assert client.set_many(values) == []
    assert client.get_many(list(values) + ["none"]) == values
    assert client.delete_many(list(values)[:1000]) and client.get_many(list(values)) == dict(list(values.items())[1000:])


def test_pymemcache_noreply(client):
    for i in range(100):
        client.set("k", b"%d" % i, noreply=True)
    client.incr("k", 1, noreply=True)
    client.delete("gone", noreply=True)
    client.touch("k", 100, noreply=True)
    client.append("k", b"!", noreply=True)
    assert client.get("k") == b"100!"


def test_pymemcache_values_up_to_a_megabyte(client):
    for size in (2047, 2048, 65535, 65536, 500_000, MEGABYTE - 300):
        value = bytes([size % 251]) * size
        assert client.set("big", value) and client.get("big") == value
    with pytest.raises(MemcacheServerError):
        client.set("big", b"x" * (MEGABYTE + 1))
    assert client.get("big") is None  # the old value would be taken for the new one


def test_pymemcache_errors(client):
    for key in ("with space", "k" * 251, "new\nline"):
        with pytest.raises(MemcacheIllegalInputError):
            client.get(key)
    with pytest.raises(MemcacheClientError):
        client._misc_cmd([b"incr n x\r\n"], "incr", False)
    assert client.set("k", b"1") and client.get("k") == b"1"


def test_pymemcache_the_rest(client):
    assert re.match(rb"1\.6\.38", client.version())
    assert {b"pid", b"uptime", b"curr_connections"} <= set(client.stats())
    client.set("k", b"1")
    assert client.flush_all() and client.get("k") is None
    client.quit()
    assert client.set("k", b"1")


def test_pymemcache_hash_client(server):
    client = HashClient([("127.0.0.1", server.port)], timeout=10, use_pooling=True, default_noreply=False)
    values = {f"key{i}": b"%d" % i for i in range(200)}
    assert client.set_many(values) == [] and client.get_many(list(values)) == values
    assert client.incr("key7", 1) == 8 and client.delete("key8") and client.get("key8") is None
    client.close()


def test_pymemcache_unix_socket(plain):
    client = Client(str(plain.outrigger.socket), timeout=10)
    assert client.set("k", b"unix", noreply=False) and client.get("k") == b"unix"
    client.close()


# ---- pylibmc

@pytest.fixture(params=[{}, {"no_block": True, "tcp_nodelay": True}, {"cas": True}], ids=["", "no_block", "cas"])
def libmemcached(request, server):
    client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=False, behaviors=request.param)
    yield client
    client.disconnect_all()


def test_pylibmc(libmemcached):
    client = libmemcached
    assert client.set("k", "text") and client.get("k") == "text"
    assert client.set("object", {"a": [1, 2.5, None]}) and client.get("object") == {"a": [1, 2.5, None]}
    assert client.add("k", "x") is False and client.add("new", "x") is True
    assert client.replace("k", "y") is True and client.append("k", "z") and client.prepend("k", "x") and client.get("k") == "xyz"
    assert client.set("n", 41) and client.incr("n") == 42 and client.decr("n", 2) == 40 and client.get("n") == 40
    assert client.touch("k", 100) and client.delete("k") and client.get("k") is None and not client.delete("k")
    with pytest.raises(pylibmc.NotFound):
        client.incr("none")


def test_pylibmc_multi(libmemcached):
    values = {f"key{i}": i for i in range(1500)}
    assert libmemcached.set_multi(values) == []
    assert libmemcached.get_multi(list(values) + ["none"]) == values
    assert libmemcached.get_multi(["1", "2"], key_prefix="key") == {"1": 1, "2": 2}
    assert libmemcached.delete_multi(list(values)) and libmemcached.get_multi(list(values)) == {}


def test_pylibmc_cas(server):
    client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=False, behaviors={"cas": True})
    client.set("k", "1")
    value, unique = client.gets("k")
    assert value == "1" and client.cas("k", "2", unique) is True
    assert client.cas("k", "3", unique) is False and client.get("k") == "2"
    client.disconnect_all()


def test_pylibmc_compressed_and_large(libmemcached):
    text = "all work and no play " * 200_000
    assert libmemcached.set("big", text, min_compress_len=1000) and libmemcached.get("big") == text
    with pytest.raises(pylibmc.TooBig):
        libmemcached.set("too-big", b"x" * (MEGABYTE + 1))
    assert libmemcached.get("big") == text


# ---- libmemcached's tools; test_memccapable.py has the others

def run(name, server, *arguments, cwd=None, status=0):
    assert shutil.which(name), f"{name} is not installed (libmemcached-tools)"
    done = subprocess.run([name, f"--servers=127.0.0.1:{server.port}", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == status, done.stdout.decode(errors="replace")
    return done.stdout


def test_memcaslap(server):
    """Many connections, writes and multi-gets, every value verified."""
    text = run("memcaslap", server, "--threads=2", "--concurrency=64", "--execute_number=30000", "--verify=1.0", "--division=10", "--exp_verify=0.05",
               "--win_size=1k").decode()
    counts = {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", text, re.M)}
    assert counts["cmd_get"] > 10_000 and counts["cmd_set"] > 1000 and counts["get_misses"] == 0, text
    assert counts["verify_misses"] == 0 and counts["verify_failed"] == 0, text


def test_several_clients_do_not_mix(plain):
    """A value for one connection never reaches another, nor another request of the same one."""
    wires = [Wire(plain.outrigger.port) for _ in range(50)]
    for i, wire in enumerate(wires):
        wire.send(b"".join(b"set mix%d:%d 0 0 8\r\n%08d\r\n" % (i, j, i * 1000 + j) for j in range(200)))
    for wire in wires:
        assert wire.read(8 * 200) == b"STORED\r\n" * 200
    for i, wire in enumerate(wires):
        other = (i + 1) % len(wires)
        wire.send(b"".join(b"get mix%d:%d mix%d:%d\r\n" % (i, j, other, j) for j in range(200)))
    for i, wire in enumerate(wires):
        other = (i + 1) % len(wires)
        for j in range(200):
            got = wire.until(b"END\r\n")
            assert got == b"VALUE mix%d:%d 0 8\r\n%08d\r\nVALUE mix%d:%d 0 8\r\n%08d\r\nEND\r\n" % (
                i, j, i * 1000 + j, other, j, other * 1000 + j)
        wire.close()
