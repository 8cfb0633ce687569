"""The binary protocol: every opcode against the sidecar and, to see that the tests ask for what memcached does, against memcached itself."""

import re
import subprocess

import pylibmc
import pytest

import binary as bin
from binary import Client, concat, count, get, packet, store, touch
from support import Wire
from through import through_region

MEGABYTE = 1 << 20
ODD = b"a b\r\n\0\x01\xff"  #: a key that no text protocol has


@pytest.fixture(params=["outrigger", "memcached"])
def server(request, plain):
    """One of the two, empty."""
    for node in (plain.node, plain.reference):
        assert node.command(b"flush_all\r\n") == b"OK\r\n"
    return plain.outrigger if request.param == "outrigger" else plain.reference


@pytest.fixture
def client(server):
    with Wire(server.port) as wire:
        yield Client(wire)


def statuses(replies):
    return [r and r.status for r in replies]


def test_get_and_set(client):
    stored = client.ask(store("set", b"k", b"hello", flags=0xDEADBEEF, opaque=7))
    assert (stored.opcode, stored.status, stored.opaque, stored.extras, stored.key, stored.value) == (1, bin.OK, 7, b"", b"", b"")
    found = client.ask(get(b"k", opaque=8))
    assert found == (0, bin.OK, b"\xde\xad\xbe\xef", b"", b"hello", stored.cas, 8) and stored.cas > 0
    found = client.ask(get(b"k", "getk"))
    assert found == (12, bin.OK, b"\xde\xad\xbe\xef", b"k", b"hello", stored.cas, 0)
    assert client.ask(get(b"none", opaque=9)) == (0, bin.NOT_FOUND, b"", b"", b"Not found", 0, 9)
    assert client.ask(get(b"none", "getk")) == (12, bin.NOT_FOUND, b"", b"none", b"", 0, 0)


def test_quiet_gets(client):
    client.ask(store("set", b"k", b"v"))
    replies = client.all(get(b"x", "getq", opaque=1), get(b"k", "getq", opaque=2), get(b"x", "getkq", opaque=3), get(b"k", "getkq", opaque=4),
                         touch("gatq", b"x", 0, opaque=5), touch("gatq", b"k", 100, opaque=6), touch("gatkq", b"x", 0, opaque=7),
                         touch("gatkq", b"k", 100, opaque=8))
    assert [(r.opaque, r.key, r.value) for r in replies] == [(2, b"", b"v"), (4, b"k", b"v"), (6, b"", b"v"), (8, b"k", b"v")]


def test_values(client):
    for value in (b"", b"\r\n", bytes(range(256)), b"x" * 4095, b"y" * 4096, b"z" * 70000, b"w" * (MEGABYTE - 400)):
        assert client.ask(store("set", b"k", value)).status == bin.OK
        assert client.ask(get(b"k")).value == value
    assert client.ask(store("set", b"empty", b"")).status == bin.OK and client.ask(get(b"empty")).value == b""


def test_an_empty_value_waits_for_nothing(client):
    """Nothing follows the packet: it is answered all the same."""
    for opcode in ("set", "add", "replace"):
        reply = client.ask(store(opcode, b"k", b""))
        assert reply.status == (bin.EXISTS if opcode == "add" else bin.OK)
    assert client.ask(concat("append", b"k", b"")).status == bin.OK


def test_keys_of_any_bytes(client):
    for key in (ODD, b" ", b"\n", b"\0", b"\x80", bytes(range(186)), b"k" * 250):
        assert client.ask(store("set", key, b"v" + key)).status == bin.OK
        assert client.ask(get(key, "getk"))[3:5] == (key, b"v" + key)
        assert client.ask(count("incr", b"n" + key[:180], 1, 5, 0)).number == 5
        assert client.ask(touch("gatk", key, 100)).key == key
        assert client.ask(packet("delete", key)).status == bin.OK
        assert client.ask(get(key)).status == bin.NOT_FOUND


def test_keys_are_those_of_text(server):
    with Wire(server.port) as wire, Wire(server.port) as text:
        client = Client(wire)
        assert client.ask(store("set", b"both", b"1", flags=3)).status == bin.OK
        assert text.get("both") == b"1" and text.set("both", b"2", 4) == b"STORED\r\n"
        reply = client.ask(get(b"both"))
        assert (reply.value, reply.flags, reply.cas) == text.gets("both")


def test_the_longest_odd_key(plain):
    """The nodes are spoken to in base64, where 250 bytes hold 186."""
    with Wire(plain.outrigger.port) as wire:
        client = Client(wire)
        assert client.ask(store("set", b" " * 186, b"v")).status == bin.OK
        reply = client.ask(store("setq", b" " * 187, b"v"))
        assert reply[1:5] == (bin.INVALID, b"", b"", b"a key with spaces or line ends may have 186 bytes at most")
        assert client.ask(get(b" " * 187, "getkq")).status == bin.INVALID
        assert client.ask(get(b" " * 186)).value == b"v"


def test_add_and_replace(client):
    assert client.ask(store("replace", b"k", b"v"))[1:5] == (bin.NOT_FOUND, b"", b"", b"Not found")
    assert client.ask(store("add", b"k", b"1")).cas > 0
    assert client.ask(store("add", b"k", b"2"))[1:6] == (bin.EXISTS, b"", b"", b"Data exists for key.", 0)
    assert client.ask(store("replace", b"k", b"3")).status == bin.OK and client.ask(get(b"k")).value == b"3"


def test_append_and_prepend(client):
    assert client.ask(concat("append", b"k", b"x"))[1:5] == (bin.NOT_STORED, b"", b"", b"Not stored.")
    assert client.ask(concat("prepend", b"k", b"x", cas=5)).status == bin.NOT_STORED
    cas = client.ask(store("set", b"k", b"2", flags=9)).cas
    assert client.ask(concat("append", b"k", b"3", cas=cas + 1)).status == bin.EXISTS
    cas = client.ask(concat("append", b"k", b"3", cas=cas)).cas
    cas = client.ask(concat("prepend", b"k", b"1", cas=cas)).cas
    assert client.ask(get(b"k"))[1:6] == (bin.OK, b"\0\0\0\x09", b"", b"123", cas)


@pytest.mark.parametrize("opcode", ["set", "add", "replace"])
def test_storing_with_cas(client, opcode):
    """With a CAS all three are one."""
    assert client.ask(store(opcode, b"k", b"v", cas=5)).status == bin.NOT_FOUND
    cas = client.ask(store("set", b"k", b"1")).cas
    assert client.ask(store(opcode, b"k", b"2", cas=cas + 1))[1:6] == (bin.EXISTS, b"", b"", b"Data exists for key.", 0)
    new = client.ask(store(opcode, b"k", b"3", cas=cas)).cas
    assert new not in (0, cas) and client.ask(get(b"k"))[4:6] == (b"3", new)


def test_delete(client):
    assert client.ask(packet("delete", b"k"))[1:5] == (bin.NOT_FOUND, b"", b"", b"Not found")
    cas = client.ask(store("set", b"k", b"1")).cas
    assert client.ask(packet("delete", b"k", cas=cas + 1)).status == bin.EXISTS
    assert client.ask(packet("delete", b"k", cas=cas, opaque=3)) == (4, bin.OK, b"", b"", b"", 0, 3)
    assert client.ask(packet("delete", b"k", cas=cas)).status == bin.NOT_FOUND


def test_arithmetic(client):
    assert client.ask(count("incr", b"n"))[1:5] == (bin.NOT_FOUND, b"", b"", b"Not found")
    made = client.ask(count("incr", b"n", 5, 9, 0))
    assert made.number == 9 and client.ask(get(b"n"))[1:6] == (bin.OK, b"\0\0\0\0", b"", b"9", made.cas)
    grown = client.ask(count("incr", b"n", 1, 9, 0))  # a digit longer: another entry, whose CAS must be told
    assert grown.number == 10 and client.ask(get(b"n"))[4:6] == (b"10", grown.cas)
    shrunk = client.ask(count("decr", b"n", 1))
    assert shrunk.number == 9 and client.ask(get(b"n"))[4:6] == (b"9 ", shrunk.cas)
    assert client.ask(count("decr", b"n", 100)).number == 0
    assert client.ask(count("incr", b"n", 2**64 - 1)).number == 2**64 - 1 and client.ask(count("incr", b"n", 2)).number == 1
    assert client.ask(count("decr", b"new", 5, 2**64 - 1, 100)).number == 2**64 - 1
    assert client.ask(count("incr", b"n", 1, cas=12345)).status == bin.EXISTS
    cas = client.ask(get(b"n")).cas
    assert client.ask(count("incr", b"n", 1, cas=cas)).number == 2
    client.ask(store("set", b"word", b"x"), )
    assert client.ask(count("incr", b"word"))[1:5] == (bin.NON_NUMERIC, b"", b"", b"Non-numeric server-side value for incr or decr")
    client.ask(store("set", b"word", b""))
    assert client.ask(count("decrq", b"word", cas=1)).status == bin.NON_NUMERIC
    client.ask(store("set", b"spaced", b"12 "))
    assert client.ask(count("incr", b"spaced", 988)).number == 1000


def test_quiet_stores(client):
    """Success is silent; errors are not."""
    replies = client.all(store("setq", b"k", b"1"), store("addq", b"k", b"2", opaque=1), store("addq", b"new", b"5"), store("replaceq", b"k", b"3"),
                         store("replaceq", b"none", b"3", opaque=2), concat("appendq", b"k", b"4"), concat("appendq", b"none", b"4", opaque=3),
                         concat("prependq", b"k", b"2"), concat("prependq", b"none", b"4", opaque=4), count("incrq", b"new", 1),
                         count("incrq", b"none", 1, opaque=5), count("decrq", b"new", 2), count("decrq", b"none", 1, opaque=6),
                         packet("deleteq", b"none", opaque=7), store("setq", b"gone", b""), packet("deleteq", b"gone"),
                         store("setq", b"k", b"v", cas=1, opaque=8), packet("deleteq", b"k", cas=1, opaque=9))
    assert [(r.opaque, r.status) for r in replies] == [(1, bin.EXISTS), (2, bin.NOT_FOUND), (3, bin.NOT_STORED), (4, bin.NOT_STORED),
                                                       (5, bin.NOT_FOUND), (6, bin.NOT_FOUND), (7, bin.NOT_FOUND), (8, bin.EXISTS), (9, bin.EXISTS)]
    assert [client.ask(get(k)).value for k in (b"k", b"new", b"gone")] == [b"234", b"4", b"Not found"]


def test_touch(client):
    assert client.ask(touch("touch", b"k", 100))[1:5] == (bin.NOT_FOUND, b"", b"", b"Not found")
    assert client.ask(touch("gat", b"k", 100))[1:5] == (bin.NOT_FOUND, b"", b"", b"Not found")
    assert client.ask(touch("gatk", b"k", 100))[1:5] == (bin.NOT_FOUND, b"", b"k", b"")
    cas = client.ask(store("set", b"k", b"v", flags=5)).cas
    assert client.ask(touch("touch", b"k", 100, opaque=4)) == (0x1C, bin.OK, b"\0\0\0\5", b"", b"", cas, 4)
    assert client.ask(touch("gat", b"k", 200)) == (0x1D, bin.OK, b"\0\0\0\5", b"", b"v", cas, 0)
    assert client.ask(touch("gatk", b"k", 300)) == (0x23, bin.OK, b"\0\0\0\5", b"k", b"v", cas, 0)


@pytest.mark.parametrize("exptime, lives", [(0, True), (100, True), (2592001, False), (1000000000, False), (0x7FFFFFFF, True), (0x80000000, True),
                                            (0xFFFFFFFF, True)])
def test_exptime(client, exptime, lives):
    """There are no negative ones."""
    want = bin.OK if lives else bin.NOT_FOUND
    client.ask(store("set", b"k", b"v", exptime=exptime))
    assert client.ask(get(b"k")).status == want
    client.ask(store("set", b"k", b"v"))
    assert client.ask(touch("touch", b"k", exptime)).status == bin.OK
    assert client.ask(get(b"k")).status == want
    if exptime != bin.NO_CREATION:
        assert client.ask(count("incr", b"n", 1, 1, exptime)).number == 1
        assert client.ask(get(b"n")).status == want


def test_flush(client):
    for opcode in ("flush", "flushq"):
        client.ask(store("set", b"k", b"v"))
        assert statuses(client.all(packet(opcode), get(b"k"))) == ([0, 1] if opcode == "flush" else [1])
    client.ask(store("set", b"k", b"v"))
    assert client.ask(packet("flush", extras=b"\0\0\0\0")).status == bin.OK and client.ask(get(b"k")).status == bin.NOT_FOUND
    client.ask(store("set", b"k", b"v"))
    assert client.ask(packet("flush", extras=b"\0\0\xff\0")).status == bin.OK and client.ask(get(b"k")).status == bin.OK
    client.ask(packet("flush"))


def test_version_noop_and_stats(client):
    assert client.ask(packet("version")).value.startswith(b"1.6.38")
    assert client.ask(packet("noop", opaque=77)) == (10, bin.OK, b"", b"", b"", 0, 77)
    replies = client.all(packet("stat", opaque=5))
    assert {r.opaque for r in replies} == {5} and {r.opcode for r in replies} == {16} and set(statuses(replies)) == {0}
    assert {b"pid", b"uptime", b"curr_connections"} <= {r.key for r in replies[:-1]} and all(r.value and not r.extras for r in replies[:-1])
    assert replies[-1][3:5] == (b"", b"")
    assert {b"maxconns", b"num_threads"} <= {r.key for r in client.all(packet("stat", b"settings"))}
    assert [r[1:5] for r in client.all(packet("stat", b"reset"))] == [(0, b"", b"", b"")]
    assert [r[1:5] for r in client.all(packet("stat", b"nonsense"))] == [(bin.NOT_FOUND, b"", b"", b"Not found")]


def test_verbosity(plain):
    """memcached 1.6.38 has forgotten the opcode, and then loses step; here it is accepted, and changes nothing."""
    with Wire(plain.outrigger.port) as wire:
        assert [r[:5] for r in Client(wire).all(packet("verbosity", extras=b"\0\0\0\1"))] == [(0x1B, 0, b"", b"", b"")]


def test_quit(client):
    assert client.send(get(b"none"), packet("quit"), get(b"none")).reply().status == bin.NOT_FOUND
    assert client.reply()[:2] == (7, 0) and client.reply() is None


def test_quietly_quit(client):
    client.send(packet("quitq"))
    assert client.reply() is None


def test_no_sasl(client):
    want = (bin.UNKNOWN, b"", b"", b"Unknown command")
    replies = client.all(packet("sasl_list"), packet("sasl_auth", b"PLAIN", b"\0user\0pass"), packet("sasl_step", b"PLAIN", b"x"),
                         packet("sasl_auth", b"PLAIN"))
    assert [r[1:5] for r in replies] == [want] * 4


def test_too_large(client):
    """Swallowed, and told; a set has taken the old value away, the others have not."""
    big = b"x" * (MEGABYTE + 1)
    for opcode, left in (("add", bin.OK), ("replace", bin.OK), ("append", bin.OK), ("set", bin.NOT_FOUND), ("setq", bin.NOT_FOUND)):
        client.ask(store("set", b"k", b"old"))
        refused = client.ask(concat(opcode, b"k", big) if opcode == "append" else store(opcode, b"k", big))
        assert refused[1:5] == (bin.TOO_LARGE, b"", b"", b"Too large.")
        assert client.ask(get(b"k")).status == left


def test_too_large_with_a_cas(plain):
    """The old value is dropped whatever its CAS is."""
    for port in (plain.reference.port, plain.outrigger.port):
        with Wire(port) as wire:
            client = Client(wire)
            for other in (0, 1):
                cas = client.ask(store("set", b"k", b"old")).cas
                assert client.ask(store("setq", b"k", b"x" * (MEGABYTE + 1), cas=cas + other)).status == bin.TOO_LARGE
                assert client.ask(get(b"k")).status == bin.NOT_FOUND


def test_a_node_that_is_away(start):
    """Quiet or not, everything is told, in order; what needs no node is answered as ever."""
    sidecar = start({"pool": {"nodes": ["127.0.0.1:1"]}}, until="listening")
    with Wire(sidecar.port) as wire:
        replies = Client(wire).all(get(b"k", "getkq", opaque=1), store("setq", b"k", b"v", opaque=2), store("set", b"k", b"", opaque=3),
                                   packet("deleteq", b"k", opaque=4), count("incrq", b"k", 1, 1, 0, opaque=5), touch("touch", b"k", 1, opaque=6),
                                   packet("flushq", opaque=7))
    assert [r.opaque for r in replies] == [1, 2, 3, 4, 5, 6, 7]
    for reply in replies:
        assert reply.status == bin.TEMPORARY and reply.value.startswith(b"node 127.0.0.1:1: "), reply


@pytest.mark.parametrize("sent", [packet("get"), packet("get", b"k", b"v"), packet("noop", b"k"), packet("set", b"k", b"v"), packet("flush", extras=b"\0"),
                                  packet("get", b"k" * 251), packet("delete", b"k", b"v"), packet("incr", b"k"), packet("touch", b"k"),
                                  packet("quitq", b"", b"v"), packet("sasl_list", b"k"), store("set", b"", b"v")])
def test_bad_packets(client, sent):
    """What came before is answered, so is the bad packet, and that is the end."""
    assert client.ask(packet("version")).status == bin.OK
    refused = client.send(sent).reply()
    assert refused[1:] == (bin.INVALID, b"", b"", b"Invalid arguments", 0, 0)
    assert client.reply() is None


@pytest.mark.parametrize("sent", [packet("get", b"key", body_len=2), store("set", b"k", b"", body_len=8), packet(0x99, b"key", body_len=0)])
def test_contradicting_lengths(client, sent):
    assert client.send(sent).reply()[1:5] == (bin.UNKNOWN, b"", b"", b"Unknown command")
    assert client.reply() is None


def test_unknown_opcodes(client):
    for opcode in (0x1F, 0x25, 0x30, 0x3C, 0x99, 0xFF):
        assert [r[:5] for r in client.all(packet(opcode, value=b"whatever"), get(b"none"))] == [
            (opcode, bin.UNKNOWN, b"", b"", b"Unknown command"), (0, bin.NOT_FOUND, b"", b"", b"Not found")]
    # The body is skipped behind the key.
    assert statuses(client.all(packet(0x99, b"key", b"value"), b"abc", packet("noop"))) == [bin.UNKNOWN, bin.OK]


def test_what_is_behind_the_key(client):
    """touch, gat and stat do not look at it: it is the next packet."""
    client.ask(store("set", b"k", b"v"))
    inner = get(b"k", opaque=4)
    for outer in (packet("touch", b"k", inner, b"\0\0\0\0"), packet("gatk", b"k", inner, b"\0\0\0\0"), packet("stat", b"reset", inner)):
        replies = client.all(outer)
        assert len(replies) == 2 and replies[1].opaque == 4 and replies[1].value == b"v"


@pytest.mark.parametrize("then", [b"\x81" + get(b"k")[1:], b"get k\r\n" + b" " * 24])
def test_wrong_magic(client, then):
    assert client.ask(packet("version")).status == bin.OK
    client.send(then)
    assert client.reply() is None


def test_text_stays_text(server):
    with Wire(server.port) as wire:
        assert wire.set("k", b"v") == b"STORED\r\n"
        wire.send(b"\x80\r\n")
        assert wire.line() == b"ERROR\r\n"
        assert wire.get("k") == b"v"


def test_pipelines_in_odd_pieces(client):
    """Thousands of packets, cut anywhere: the replies come in order, each with its opaque."""
    data = b"".join(store("setq", b"key%d" % i, b"v%d" % i, flags=i) for i in range(3000))
    data += b"".join(get(b"key%d" % (i * 2), "getkq", opaque=i) for i in range(3000)) + packet("noop", opaque=9999)
    for at in range(0, len(data), 1237):
        client.wire.send(data[at:at + 1237])
    for i in range(1500):
        assert client.reply() == (13, 0, (2 * i).to_bytes(4, "big"), b"key%d" % (2 * i), b"v%d" % (2 * i), pytest.approx(0, abs=2**64), i)
    assert client.reply().opaque == 9999


def test_byte_by_byte(client):
    data = store("set", ODD, b"\r\nvalue", flags=1) + get(ODD, "getk") + count("incr", b"n", 1, 3, 0) + packet("noop")
    for i in range(len(data)):
        client.wire.send(data[i:i + 1])
    assert [client.reply().status for _ in range(4)] == [0, 0, 0, 0]


# ---- foreign clients

@pytest.fixture(params=[{}, {"no_block": True, "tcp_nodelay": True}, {"cas": True}], ids=["", "no_block", "cas"])
def libmemcached(request, server):
    client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=True, behaviors=request.param)
    yield client
    client.disconnect_all()


def test_pylibmc(libmemcached):
    client = libmemcached
    assert client.set("k", "text") and client.get("k") == "text"
    assert client.set("object", {"a": [1, 2.5, None]}) and client.get("object") == {"a": [1, 2.5, None]}
    assert client.add("k", "x") is False and client.add("new", "x") is True
    assert client.replace("k", "y") is True and client.append("k", "z") and client.prepend("k", "x") and client.get("k") == "xyz"
    assert client.set("n", 41) and client.incr("n") == 42 and client.decr("n", 2) == 40
    assert client.touch("k", 100) and client.delete("k") and client.get("k") is None and not client.delete("k")
    with pytest.raises(pylibmc.NotFound):
        client.incr("none")


def test_pylibmc_multi(libmemcached):
    values = {f"key{i}": i for i in range(1500)}
    assert libmemcached.set_multi(values) == []
    assert libmemcached.get_multi(list(values) + ["none"]) == values
    assert libmemcached.get_multi(["1", "2"], key_prefix="key") == {"1": 1, "2": 2}
    assert libmemcached.delete_multi(list(values)) and libmemcached.get_multi(list(values)) == {}


def test_pylibmc_cas_and_size(server):
    client = pylibmc.Client([f"127.0.0.1:{server.port}"], binary=True, behaviors={"cas": True})
    client.set("k", "1")
    value, unique = client.gets("k")
    assert value == "1" and client.cas("k", "2", unique) is True
    assert client.cas("k", "3", unique) is False and client.get("k") == "2"
    text = "all work and no play " * 40_000
    assert client.set("big", text) and client.get("big") == text
    assert client.get_stats()[0][1]["pid"]
    assert client.flush_all() and client.get("k") is None
    client.disconnect_all()


def capable(server):
    done = subprocess.run(["memccapable", "-h", "127.0.0.1", "-p", str(server.port), "-b", "-t", "10"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=120)
    return dict(re.findall(r"^(binary [\w ]+?)\s+\[(\w+)\]", done.stdout.decode(), re.M)), done.stdout.decode()


def test_memccapable(plain):
    """libmemcached's own conformance test of servers, every binary part of it."""
    expected, text = capable(plain.reference)
    assert len(expected) > 20 and set(expected.values()) == {"pass"}, text
    got, text = capable(plain.outrigger)
    assert got == expected, text


# ---- through

@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, outriggers=1) as through:
        yield through


@pytest.fixture
def reader(west):
    with Wire(west.port) as wire:
        yield Client(wire)


def test_through_reads(west, reader):
    name = west.fresh().encode()
    key = b"version:" + name
    loaded = reader.ask(get(key, "getk", opaque=1))
    assert loaded[1:5] == (bin.OK, b"\0\0\0\0", key, b"old") and loaded.cas > 0
    assert reader.ask(get(key)).value == b"old"
    assert reader.ask(get(b"version:none", "getk"))[1:5] == (bin.NOT_FOUND, b"", b"version:none", b"")
    assert reader.all(get(b"version:none", "getq"), get(b"version:none", "getkq")) == []
    assert reader.ask(touch("gat", key, 1000)).value == b"old"
    assert reader.ask(touch("touch", key, 1000)).status == bin.OK
    assert reader.ask(touch("touch", b"version:" + west.fresh().encode(), 1000)).status == bin.NOT_FOUND
    names = [west.fresh().encode() for _ in range(50)]
    assert [r.value for r in reader.all(*(get(b"version:" + n, "getq") for n in names))] == [b"old"] * 50


def test_through_changes(west, reader):
    name = west.fresh()
    key = b"version:" + name.encode()
    for change in (packet("delete", key), store("set", key, b"not kept"), store("set", key, b"")):
        assert reader.ask(get(key)).value == b"old"
        west.update(name)
        assert reader.ask(change)[1:5] == (bin.OK, b"", b"", b"")
        assert reader.ask(get(key)).value == b"new"
        west.update(name, "old")
        assert reader.all(packet("deleteq", key)) == []
    found = reader.ask(get(key))
    assert reader.ask(store("set", key, b"x", cas=found.cas + 1)).status == bin.EXISTS
    assert reader.ask(packet("delete", key, cas=found.cas + 1)).status == bin.EXISTS
    assert reader.ask(packet("delete", key, cas=found.cas)).status == bin.OK


def test_through_refusals(west, reader):
    """Even quiet ones are told."""
    key = b"version:" + west.fresh().encode()
    for sent in (store("add", key, b"x"), store("replaceq", key, b"x"), concat("append", key, b"x"), concat("prependq", key, b""),
                 count("incr", key, 1, 1, 0), count("decrq", key)):
        reply = reader.ask(sent)
        assert reply.status == bin.TEMPORARY
        assert reply.value == b"namespace version is read-through: write the database, then delete the key"
    assert reader.ask(get(key)).value == b"old"


def test_through_keys_of_any_bytes(west, reader):
    odd = b"with space\r\n\0and more \xff"
    west.query("INSERT INTO texts VALUES (%s, 'odd', 7, NULL)", (odd,))
    for _ in range(2):
        assert reader.ask(get(b"text:" + odd, "getk"))[1:5] == (bin.OK, b"\0\0\0\7", b"text:" + odd, b"odd")
    assert reader.ask(get(b"text:" + odd + b"\0")).status == bin.NOT_FOUND
    west.query("UPDATE texts SET v = 'new' WHERE k = %s", (odd,))
    assert reader.ask(packet("delete", b"text:" + odd)).status == bin.OK
    assert reader.ask(get(b"text:" + odd)).value == b"new"
    for key in (b"version:\xff\xfe", b"version:p1\0", b"version:p1 ", b"version: p1", b"number:1\n"):
        assert reader.ask(get(key)).status == bin.NOT_FOUND, key
