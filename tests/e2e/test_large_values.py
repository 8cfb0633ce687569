"""Values of up to 128 MiB, and the small requests of others beside them."""

import hashlib
import os

import pytest

from local.memcached import Memcached
from support import Wire, rss_bytes, serves, until

MEGABYTE = 1 << 20
LARGEST = 128 * MEGABYTE
PATIENCE = 90.0  # a sidecar with sanitizers, on a machine that may be busy
CONFIG = {"threads": 1, "max_value_size": "128MiB", "max_client_buffer": "256MiB"}


@pytest.fixture(scope="module")
def node(directory):
    node = Memcached(directory, memory_mb=1024, arguments=["-I", "128m"]).start()
    yield node
    node.close()


@pytest.fixture(scope="module")
def block():
    """16 MiB that nothing compresses or aligns."""
    return os.urandom(16 * MEGABYTE)


@pytest.fixture
def sidecar(start, node):
    return start({"pool": {"nodes": [node.address], "timeout": "60s"}, **CONFIG})


def value_of(block, size):
    return (block * (size // len(block) + 1))[:size]


def digest(data):
    return hashlib.blake2b(data).digest()


@pytest.mark.parametrize("size", [MEGABYTE - 1, MEGABYTE, MEGABYTE + 1, 5 * MEGABYTE + 7, 127 * MEGABYTE])
def test_round_trip(sidecar, block, size):
    """memcached's own limit counts its header and the key, so its largest value is a little under 128 MiB."""
    value = value_of(block, size)
    with Wire(sidecar.port, PATIENCE) as wire:
        assert wire.set("large", value) == b"STORED\r\n"
        got = wire.get("large")
        assert len(got) == size and digest(got) == digest(value)
        assert wire.set("small", b"1") == b"STORED\r\n" and wire.get("small") == b"1"


@pytest.mark.parametrize("size", [LARGEST, LARGEST + 1, 200 * MEGABYTE], ids=["memcached's", "ours", "far too large"])
def test_in_step_after_a_value_that_is_too_large(sidecar, block, size):
    """Refused by memcached, or by us: what comes behind the value is understood, and the old value is gone."""
    with Wire(sidecar.port, PATIENCE) as wire:
        assert wire.set("k", b"old") == b"STORED\r\n"
        wire.send(b"set k 0 0 %d\r\n" % size)
        for at in range(0, size, len(block)):
            wire.send(block[:size - at])
        wire.send(b"\r\nget k\r\nversion\r\n")
        assert wire.line() == b"SERVER_ERROR object too large for cache\r\n"
        assert wire.line() == b"END\r\n"
        assert wire.line().startswith(b"VERSION ")


def test_others_are_served_while_a_value_is_half_sent(sidecar, block):
    size = 100 * MEGABYTE
    value = value_of(block, size)
    with Wire(sidecar.port, PATIENCE) as large:
        large.send(b"set large 0 0 %d\r\n" % size)
        for at in range(0, size, 10 * MEGABYTE):
            large.send(value[at:at + 10 * MEGABYTE])
            assert serves(sidecar.port)
        assert large.ask(b"\r\n") == b"STORED\r\n"
        assert digest(large.get("large")) == digest(value)


def test_others_are_served_while_a_reply_is_half_read(sidecar, block):
    size = 100 * MEGABYTE
    value = value_of(block, size)
    with Wire(sidecar.port, PATIENCE, receive_buffer=65536) as large:
        assert large.set("large", value) == b"STORED\r\n"
        assert large.ask(b"get large\r\n") == b"VALUE large 0 %d\r\n" % size
        got = hashlib.blake2b()
        for _ in range(10):
            got.update(large.read(10 * MEGABYTE))
            assert serves(sidecar.port)
        assert got.digest() == digest(value) and large.read(7) == b"\r\nEND\r\n"


def test_memory_comes_back(sidecar, block):
    """A value under way costs about its size, not a multiple, and nothing once it is answered."""
    value = value_of(block, 100 * MEGABYTE)
    with Wire(sidecar.port, PATIENCE) as wire:
        for _ in range(3):
            assert wire.set("large", value) == b"STORED\r\n"
            assert len(wire.get("large")) == len(value)
    until(lambda: sidecar.metrics().total("outrigger_client_connections") == 0, "the client is gone")
    # The sanitizer keeps what was freed for a while: its quarantine is 256 MiB.
    assert rss_bytes(sidecar) < 700 * MEGABYTE
