"""Clients that send nonsense, too much, too little or nothing, or that do not read: each has itself to blame, and the others are served."""

import os
import random
import resource
import socket
import threading

import pytest

from local.memcached import Memcached
from support import Growth, Outrigger, Wire, rss_bytes, sees, serves, until

MIB = 1 << 20
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
BUFFER_MAX = 4 * MIB


@pytest.fixture(scope="module")
def sidecar(watch, directory):
    node = Memcached(directory, memory_mb=256)
    outrigger = Outrigger(directory, {"threads": 2, "pool": {"nodes": [node.address]}, "max_client_buffer": f"{BUFFER_MAX // MIB}MiB"})
    try:
        node.start()
        yield outrigger.start()
    finally:
        outrigger.close()
        node.close()


@pytest.fixture
def port(sidecar):
    """The sidecar's; whatever a test does, clients are served as before when it is over."""
    with Wire(sidecar.port) as other:
        assert other.set("other", b"here") == b"STORED\r\n"
        yield sidecar.port
        assert other.get("other") == b"here"
    for _ in range(4):  # on either worker
        assert serves(sidecar.port)
    assert serves(sidecar.socket)


# ---- keys, lengths, values

@pytest.mark.parametrize("request_line", [b"get %s", b"gets a %s b", b"gat 0 %s", b"delete %s", b"incr %s 1", b"touch %s 0"])
@pytest.mark.parametrize("length", [251, 252, 1000, 2000])
def test_long_key(port, request_line, length):
    with Wire(port) as wire:
        assert wire.ask(request_line % (b"k" * length) + b"\r\n") == b"CLIENT_ERROR bad command line format\r\n"
        assert wire.ask(b"set k 0 0 1\r\n1\r\nget k\r\n", b"END\r\n") == b"STORED\r\nVALUE k 0 1\r\n1\r\nEND\r\n"


@pytest.mark.parametrize("length", [b"-1", b"-2147483648", b"2147483646", b"2147483648", b"4294967297", b"9223372036854775807",
                                    b"18446744073709551615", b"99999999999999999999999", b"x", b"1x", b"0x10", b"1e3"])
def test_length_that_is_none(port, length):
    """What would have been the value is taken for a command; nothing is waited for."""
    with Wire(port) as wire:
        wire.set("k", b"old")
        if length in (b"4294967297",):  # memcached takes the lower half
            assert wire.ask(b"set k 0 0 %s\r\n1\r\n" % length) == b"STORED\r\n"
            return
        assert wire.ask(b"set k 0 0 %s\r\n" % length) == b"CLIENT_ERROR bad command line format\r\n"
        assert wire.ask(b"1234\r\n") == b"ERROR\r\n"
        assert wire.get("k") == b"old"


@pytest.mark.parametrize("size", [MIB + 1, MIB + 2, 2 * MIB, 20 * MIB])
def test_value_over_the_limit(port, size):
    with Wire(port) as wire:
        assert wire.set("big", b"old") == b"STORED\r\n"
        assert wire.set("big", b"x" * size) == TOO_LARGE
        assert wire.get("big") is None  # it would be taken for the new one
        assert wire.set("big", b"new") == b"STORED\r\n" and wire.get("big") == b"new"
        wire.send(b"set big 0 0 %d noreply\r\n%s\r\n" % (size, b"x" * size))
        assert wire.get("big") is None
        assert wire.set("big", b"kept") == b"STORED\r\n"
        assert wire.ask(b"add big 0 0 %d\r\n%s\r\n" % (size, b"x" * size)) == TOO_LARGE


def test_value_at_the_limit(port):
    """As large as max_value_size is what the sidecar takes; the node has the last word, since its items have headers."""
    with Wire(port) as wire:
        assert wire.set("big", b"x" * (MIB - 500)) == b"STORED\r\n" and len(wire.get("big")) == MIB - 500
        assert wire.set("big", b"y" * MIB) == TOO_LARGE
        assert wire.get("big") is None


def test_max_value_size_is_configurable(start, sidecar):
    small = start({"pool": sidecar.config["pool"], "max_value_size": "2KiB"})
    with Wire(small.port) as wire:
        assert wire.set("v", b"x" * 2048) == b"STORED\r\n"
        assert wire.set("v", b"x" * 2049) == TOO_LARGE and wire.get("v") is None


def test_value_without_its_end(port):
    with Wire(port) as wire:
        wire.set("k", b"old")
        # Skipped are as many bytes as a value and its end have; what is left of them, here "f", is taken for a command.
        assert wire.ask(b"set k 0 0 3\r\nabcdef\r\nget k\r\n", b"END\r\n") == (
            b"CLIENT_ERROR bad data chunk\r\nERROR\r\nVALUE k 0 3\r\nold\r\nEND\r\n")


# ---- lines

@pytest.mark.parametrize("junk", [b"x" * MIB, b"set " + b"k" * MIB, b" " * MIB, b"\0" * MIB, b"\r" * MIB, b"get\t" + b"k" * MIB])
def test_a_megabyte_without_newline(port, junk):
    """Not even memcached reads on: the connection is closed."""
    with Wire(port) as wire:
        try:
            wire.send(junk + b"\r\nget other\r\n")
        except OSError:
            pass
        assert wire.rest() == b""


def test_a_get_of_more_than_a_megabyte(port):
    """A multi-get may be long, but not without end."""
    with Wire(port) as wire:
        try:
            wire.send(b"get" + b" key" * (MIB // 2))
        except OSError:
            pass
        assert wire.rest() in (b"CLIENT_ERROR line too long\r\n", b"")


def test_a_get_of_almost_a_megabyte(port):
    keys = [b"many%05d" % i for i in range(90_000)]
    with Wire(port) as wire:
        for i in range(0, len(keys), 1000):
            wire.send(b"set %s 0 0 1 noreply\r\n%d\r\n" % (keys[i], i // 1000 % 10))
        answer = wire.ask(b"get " + b" ".join(keys) + b"\r\n", b"END\r\n")
        assert answer == b"".join(b"VALUE %s 0 1\r\n%d\r\n" % (keys[i], i // 1000 % 10) for i in range(0, len(keys), 1000)) + b"END\r\n"


@pytest.mark.parametrize("seed", range(30))
def test_garbage(port, seed):
    """Random bytes, random lines, and random pieces of good requests."""
    chance = random.Random(seed)
    words = [b"get", b"set", b"gat", b"cas", b"incr", b"delete", b"touch", b"add", b"append", b"stats", b"verbosity", b"noreply", b"0", b"1", b"-1",
             b"99", b"5", b"k", b"k" * 250, b"k" * 251, b"4294967296", b" ", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\0", b"\xff\xfe", b"xyz\r\n"]
    pieces = []
    for _ in range(400):
        kind = chance.random()
        if kind < 0.15:
            pieces.append(chance.randbytes(chance.randint(1, 40)))
        elif kind < 0.2:
            pieces.append(b"get other\r\n")
        else:
            pieces.append(chance.choice(words) + chance.choice([b" ", b" ", b" ", b"", b"\r\n"]))
    with Wire(port) as wire:
        reader = threading.Thread(target=wire.rest)
        reader.start()
        try:
            for piece in pieces:
                wire.send(piece)
            wire.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has hung up
        reader.join(30)
        assert not reader.is_alive()


# ---- clients that stop in the middle

@pytest.mark.parametrize("half", [b"g", b"get", b"get ", b"get key", b"get key\r", b"set k 0 0 10", b"set k 0 0 10\r\n", b"set k 0 0 10\r\n12345",
                                  b"set k 0 0 1048576\r\nx", b"set k 0 0 5000000\r\nx"])
@pytest.mark.parametrize("end", ["close", "shutdown", "reset"])
def test_half_a_request(port, half, end):
    before = sees(port, "k")
    with Wire(port) as wire:
        wire.send(b"get other\r\n" + half)
        assert wire.until(b"END\r\n") == b"VALUE other 0 4\r\nhere\r\nEND\r\n"
        if end == "shutdown":
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.rest() in (b"", TOO_LARGE)
        elif end == "reset":
            wire.reset()
    assert sees(port, "k") in (before, None)


def test_silence_in_the_middle(port):
    """Many clients that announce much, send little and then nothing: the others do not notice."""
    halves = [Wire(port) for _ in range(200)]
    for i, wire in enumerate(halves):
        wire.send([b"get ", b"set k 0 0 1000000\r\nx", b"set k 0 0 10\r\n", b"gets a b c"][i % 4])
    for i in range(50):
        assert serves(port, f"during{i}")
    for i, wire in enumerate(halves):  # and they may still go on
        if i % 4 == 2:
            assert wire.ask(b"0123456789\r\n") == b"STORED\r\n"
        if i % 4 == 1:
            assert wire.ask(b"x" * 999_999 + b"\r\n") == b"STORED\r\n"
        wire.close()


def test_idle_timeout(start, sidecar):
    impatient = start({"pool": sidecar.config["pool"], "idle_timeout": "1s"})
    growth = Growth(impatient)
    with Wire(impatient.port) as idle, Wire(impatient.port) as half:
        half.send(b"set k 0 0 10\r\n123")
        assert idle.rest() == b"" and half.rest() == b""
    growth.reaches(2, "outrigger_errors_total", source="client", error="timeout")
    assert serves(impatient.port)


def test_one_byte_at_a_time(port):
    with Wire(port) as wire:
        for byte in b"set slow 7 0 5\r\nhello\r\nget slow slow\r\n" * 10:
            wire.send(bytes([byte]))
        for _ in range(10):
            assert wire.until(b"END\r\n") == b"STORED\r\n" + b"VALUE slow 7 5\r\nhello\r\n" * 2 + b"END\r\n"


# ---- pipelines

def test_pipeline_of_thousands(port):
    """The replies of 30,000 requests, sent without waiting for any, in the order of the requests."""
    with Wire(port) as wire:
        sender = threading.Thread(target=wire.send, args=(b"".join(
            b"set p%d 0 0 %d\r\n%d\r\nget p%d\r\n" % (i % 100, len(str(i)), i, i % 100) for i in range(15_000)),))
        sender.start()
        for i in range(15_000):
            number = str(i).encode()
            assert wire.until(b"END\r\n") == b"STORED\r\nVALUE p%d 0 %d\r\n%s\r\nEND\r\n" % (i % 100, len(number), number)
        sender.join()


def test_half_closed_after_a_pipeline(port):
    """A client that says at once that it will send no more gets every reply, then the end."""
    value = os.urandom(500).hex().encode()
    with Wire(port) as wire:
        wire.send(b"set h 0 0 1000\r\n%s\r\n" % value + b"get h\r\n" * 5000 + b"delete h\r\nincr n 1\r\nflush_all\r\nget h\r\nget cut")
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.rest()
    assert answer == b"STORED\r\n" + (b"VALUE h 0 1000\r\n%s\r\nEND\r\n" % value) * 5000 + b"DELETED\r\nNOT_FOUND\r\nOK\r\nEND\r\n"
    with Wire(port) as wire:
        wire.set("other", b"here")  # the flush took it


def test_quit_after_a_pipeline(port):
    with Wire(port) as wire:
        wire.send(b"get other\r\n" * 3000 + b"quit\r\nget other\r\n")
        assert wire.rest() == b"VALUE other 0 4\r\nhere\r\nEND\r\n" * 3000


@pytest.mark.parametrize("seen", [0, 1, 100_000])
def test_reset_in_the_middle_of_replies(port, seen):
    with Wire(port) as wire:
        wire.set("large", b"l" * 500_000)
        for _ in range(20):
            client = Wire(port)
            client.send(b"get large\r\n" * 3 + b"set small 0 0 1\r\n1\r\n" + b"get large small\r\n")
            client.read(seen)
            client.reset()
        assert wire.get("large") == b"l" * 500_000


# ---- clients that do not read

def test_reader_that_never_reads(sidecar, port):
    """It asks for 1 GB. No more of that is asked of the nodes than the client may be owed; the others do not notice."""
    with Wire(port) as wire:
        wire.set("large", b"l" * 1_000_000)
    growth = Growth(sidecar)
    before = rss_bytes(sidecar)
    with Wire(port, receive_buffer=4096) as lazy:
        lazy.send(b"get large\r\n" * 1000)
        growth.reaches(2, "outrigger_hits_total")
        for i in range(50):
            assert serves(port, f"during{i}")
        assert growth.of("outrigger_hits_total") < 50 + 100  # of a thousand; the kernel's buffers hold some
        assert rss_bytes(sidecar) - before < 600 * MIB


def test_reader_that_owes_too_much(start, directory):
    """Large replies after many small ones, more of them than was expected: when max_client_buffer is full the client is disconnected."""
    node = Memcached(directory, name="large-items", memory_mb=256, arguments=["-I", "32m"]).start()
    try:
        sidecar = start({"pool": {"nodes": [node.address], "timeout": "20s"}, "max_value_size": "32MiB", "max_client_buffer": "32MiB"})
        growth = Growth(sidecar)
        with Wire(sidecar.port, receive_buffer=4096) as lazy:
            assert lazy.set("large", b"l" * 20_000_000) == b"STORED\r\n"
            lazy.send(b"get none\r\n" * 500)
            assert lazy.read(5 * 500) == b"END\r\n" * 500
            lazy.send(b"get large\r\n" * 20)
            growth.reaches(1, "outrigger_errors_total", source="client", error="overload")
            assert len(lazy.rest()) < 60_000_000
        with Wire(sidecar.port) as wire:  # the node may still be sending what nobody wants any more
            until(lambda: wire.set("after", b"x") == b"STORED\r\n", "serving others again")
        sidecar.close()
    finally:
        node.close()


def test_reader_that_reads_late(sidecar, port):
    """One that asks a little at a time is not read from any further while it owes reading, and gets everything in the end."""
    growth = Growth(sidecar)
    with Wire(port, receive_buffer=4096) as late:
        late.set("medium", b"m" * 20_000)
        request = b"get medium\r\n"
        sent = 0
        late.socket.setblocking(False)
        try:
            while sent < 100_000:
                sent += late.socket.send(request * 10)
                assert serves(port)
        except BlockingIOError:
            pass
        late.socket.settimeout(20)
        rest = threading.Thread(target=late.send, args=(request[sent % len(request):],))
        rest.start()
        for _ in range(sent // len(request) + 1):
            assert late.until(b"END\r\n") == b"VALUE medium 0 20000\r\n" + b"m" * 20_000 + b"\r\nEND\r\n"
        rest.join()
    assert growth.of("outrigger_errors_total", source="client", error="overload") == 0


def test_replies_that_wait_for_one_before_them_are_bounded(start, directory):
    """What a client has asked for behind a request whose node does not answer is kept for it: no more of that than max_client_buffer,
    because no more is asked of the nodes until there is room; and in the end it is all answered."""
    nodes = [Memcached(directory, name=f"pair-{i}", memory_mb=128).start() for i in range(2)]
    try:
        pair = start({"pool": {"nodes": [n.address for n in nodes], "timeout": "60s"}, "max_client_buffer": f"{BUFFER_MAX // MIB}MiB"})
        with Wire(pair.port) as wire:
            keys = [f"large{i}" for i in range(20)]
            for key in keys:
                assert wire.set(key, b"l" * 1_000_000) == b"STORED\r\n"
        on_first = [k for k in keys if sees(nodes[0].port, k)]
        on_second = [k for k in keys if k not in on_first]
        assert on_first and on_second
        nodes[0].process.pause()
        growth = Growth(pair)
        with Wire(pair.port) as lazy:
            lazy.send(b"get %s\r\n" % on_first[0].encode() + b"get %s\r\n" % on_second[0].encode() * 50)
            growth.reaches(2, "outrigger_requests_total", command="get")
            assert sees(pair.port, on_second[0]) is not None
            assert growth.of("outrigger_requests_total", command="get") <= 1 + BUFFER_MAX // 1_000_000 + 1
            nodes[0].process.resume()
            for _ in range(51):
                assert len(lazy.until(b"END\r\n")) > 1_000_000
        assert growth.of("outrigger_errors_total", source="client", error="overload") == 0
    finally:
        nodes[0].process.resume()
        pair.close()
        for node in nodes:
            node.close()


# ---- many clients

def test_idle_connections(sidecar, port):
    """10,000 of them, or as many as this machine lets one process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 1000)
    if count < 5000:
        pytest.skip(f"no more than {hard} open files are allowed here")
    wires = []
    try:
        for i in range(count):
            wires.append(Wire(port))
        until(lambda: sidecar.metrics().total("outrigger_client_connections") >= count, f"{count} connections")
        assert serves(port)
        for wire in wires[::97]:
            assert wire.get("other") == b"here"
    finally:
        for wire in wires:
            wire.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: sidecar.metrics().total("outrigger_client_connections") < 100, "the connections being gone")


def test_max_connections(start, sidecar):
    full = start({"pool": sidecar.config["pool"], "max_connections": 10})
    growth = Growth(full)
    wires = [Wire(full.port) for _ in range(10)]
    for wire in wires:
        assert wire.ask(b"version\r\n").startswith(b"VERSION")
    with Wire(full.port) as more:
        assert more.rest() == b"ERROR Too many open connections\r\n"
    with Wire(full.socket) as more:
        assert more.rest() == b"ERROR Too many open connections\r\n"
    assert growth.of("outrigger_client_connections_refused_total") == 2
    wires.pop().close()
    until(lambda: serves(full.port), "a connection after one was closed")
    for wire in wires:
        wire.close()


def test_connections_that_come_and_go(port):
    for _ in range(500):
        Wire(port).close()
    for _ in range(200):
        Wire(port).send(b"get other\r\n").close()
    for _ in range(200):
        Wire(port).send(b"get other\r\n").reset()
