"""Three regions with a NATS of their own each: what one says is heard by the others, and only that."""

import json
import time

import pytest

import binary
import raw_nats
from local.cluster import Cluster
from support import Growth, Wire, in_threads, sees, until
from through import SCHEMA, prepare

REGIONS = ("east", "west", "south")
NAMESPACES = [
    {"prefix": "told:", "on_set": "invalidate"},
    {"prefix": "version:", "read": "through", "source": {"table": "packages", "key_column": "name", "value_column": "version"}},
    {"prefix": "loud:", "read": "through", "on_set": "invalidate",
     "source": {"table": "packages", "key_column": "name", "value_column": "version"}},
]


@pytest.fixture(scope="module")
def cluster(watch, directory):
    config = {"namespaces": NAMESPACES}
    with Cluster(directory, regions=REGIONS, nodes=2, prepare=prepare, config=config) as cluster:
        yield cluster


@pytest.fixture
def heard(cluster):
    """A function: waits until each region has applied so many invalidations of those it was told about since the test began."""
    def is_quiet() -> bool:  # two messages are kept by test_messages_of_a_newer_version
        infos = [consumer(cluster, origin, region) for origin in REGIONS for region in others(origin)]
        return all(info["num_pending"] == 0 and info["num_ack_pending"] in (0, 2) for info in infos)
    until(is_quiet, "what was said before being applied")
    growths = {name: Growth(cluster[name].outrigger) for name in REGIONS}

    def wait(**counts: int) -> None:
        for name, count in counts.items():
            growths[name].reaches(count, "outrigger_bus_applied_total")
            assert growths[name].of("outrigger_bus_applied_total") == count, name
    return wait


def fresh(cluster, counter=iter(range(1_000_000))) -> str:
    name = f"row{next(counter)}"
    cluster.primary.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (name,), SCHEMA)
    return name


def consumer(cluster, origin: str, region: str) -> dict:
    """JetStream's view of how far a region has come with the events of another."""
    return raw_nats.request(cluster[origin].nats.port, f"$JS.API.CONSUMER.INFO.INVAL_{origin}.to_{region}")


def others(region):
    return [name for name in REGIONS if name != region]


# ---- delete

@pytest.mark.parametrize("origin", REGIONS)
def test_delete_in_an_aside_namespace(wires, heard, origin):
    key = f"plain-{origin}"
    for name, wire in wires.items():
        assert wire.set(key, name.encode()) == b"STORED\r\n"
    assert [wires[name].get(key) for name in REGIONS] == [name.encode() for name in REGIONS]  # a set is a fill of one region
    assert wires[origin].delete(key) == b"DELETED\r\n"
    assert wires[origin].get(key) is None
    for name in others(origin):
        until(lambda: wires[name].get(key) is None, f"{key} gone from {name}")
    heard(**{name: 1 for name in others(origin)})


@pytest.mark.parametrize("origin", REGIONS)
def test_delete_in_a_through_namespace(cluster, wires, heard, origin):
    row = fresh(cluster)
    key = "version:" + row
    assert [wires[name].get(key) for name in REGIONS] == [b"old"] * 3
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE name = %s", (row,), SCHEMA)
    assert [wires[name].get(key) for name in REGIONS] == [b"old"] * 3
    assert wires[origin].delete(key) == b"DELETED\r\n"
    assert wires[origin].get(key) == b"new"
    for name in others(origin):
        until(lambda: wires[name].get(key) == b"new", f"the new row in {name}")
    growth = Growth(*(cluster[name].outrigger for name in REGIONS))
    assert [wires[name].get(key) for name in REGIONS] == [b"new"] * 3
    growth.becomes(hits=3, loads=0)
    heard(**{name: 1 for name in others(origin)})


def test_delete_of_what_only_others_have(wires, heard):
    """NOT_FOUND here says nothing about the other regions, so they are told."""
    wires["west"].set("only-west", b"1")
    assert wires["east"].delete("only-west") == b"NOT_FOUND\r\n"
    until(lambda: wires["west"].get("only-west") is None, "gone from west")
    heard(west=1, south=1)


def test_delete_with_noreply(wires, heard):
    for wire in wires.values():
        wire.set("quiet", b"1")
    wires["east"].send(b"delete quiet noreply\r\n")
    for name in REGIONS:
        until(lambda: wires[name].get("quiet") is None, f"gone from {name}")
    heard(west=1, south=1)


def test_all_at_once(wires, heard):
    """Every region deletes the same keys: the events cross, and nothing goes round in circles."""
    for wire in wires.values():
        wire.send(b"".join(b"set cross%d 0 0 1\r\n1\r\n" % i for i in range(50)))
        assert wire.read(8 * 50) == b"STORED\r\n" * 50
    in_threads([lambda w=w: w.send(b"".join(b"delete cross%d\r\n" % i for i in range(50))) for w in wires.values()])
    for wire in wires.values():
        for _ in range(50):
            assert wire.line() in (b"DELETED\r\n", b"NOT_FOUND\r\n")
    heard(east=100, west=100, south=100)
    for wire in wires.values():
        assert wire.ask(b"get " + b" ".join(b"cross%d" % i for i in range(50)) + b"\r\n") == b"END\r\n"


# ---- set and its kin

def test_set_in_an_aside_namespace_is_a_fill(cluster, wires):
    """Regions that fill the same key do not drop each other's entry."""
    growth = Growth(*(cluster[name].outrigger for name in REGIONS))
    for i in range(3):
        for name, wire in wires.items():
            assert wire.set("fill", name.encode()) == b"STORED\r\n"
            wire.ask(b"touch fill 100\r\n")
            wire.ask(b"append fill 0 0 1\r\n!\r\n")
    assert growth.of("outrigger_bus_published_total") == 0
    assert [wires[name].get("fill") for name in REGIONS] == [name.encode() + b"!" for name in REGIONS]


@pytest.mark.parametrize("request_line, own", [
    (b"set %s 0 0 3\r\nnew\r\n", b"new"), (b"replace %s 0 0 3\r\nnew\r\n", b"new"), (b"append %s 0 0 1\r\n0\r\n", b"100"),
    (b"prepend %s 0 0 1\r\n2\r\n", b"210"), (b"incr %s 5\r\n", b"15"), (b"decr %s 1\r\n", b"9 ")], ids=lambda v: v.split()[0].decode())
def test_writes_that_the_others_must_hear_of(wires, heard, request_line, own):
    """on_set: invalidate. The writer's region keeps what was written, the others drop what they have."""
    key = "told:" + request_line.split()[0].decode()
    counts = dict.fromkeys(REGIONS, 0)
    for origin in REGIONS:
        assert wires[origin].set(key, b"10") == b"STORED\r\n"  # told, too
        for name in others(origin):
            counts[name] += 1
        heard(**counts)
    assert wires["south"].get(key) == b"10"
    assert wires["south"].ask(request_line % key.encode()) in (b"STORED\r\n", own.strip() + b"\r\n")
    heard(east=3, west=3, south=2)
    assert wires["south"].get(key) == own
    assert wires["east"].get(key) is None and wires["west"].get(key) is None


def test_writes_that_failed_are_not_told(cluster, wires):
    wires["east"].set("told:there", b"x")
    growth = Growth(cluster["east"].outrigger)
    for line in (b"add told:there 0 0 1\r\n1\r\n", b"replace told:none 0 0 1\r\n1\r\n", b"append told:none 0 0 1\r\n1\r\n", b"incr told:none 1\r\n",
                 b"incr told:there 1\r\n", b"cas told:there 0 0 1 1\r\n1\r\n", b"cas told:none 0 0 1 1\r\n1\r\n", b"touch told:there 100\r\n"):
        wires["east"].ask(line)
    wires["east"].get("told:there")
    assert growth.of("outrigger_bus_published_total") == 0


def test_set_in_a_through_namespace(cluster, wires, heard):
    """It invalidates: this region only, or with on_set: invalidate the others, too."""
    row = fresh(cluster)
    for prefix in ("version:", "loud:"):
        assert [wires[name].get(prefix + row) for name in REGIONS] == [b"old"] * 3
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE name = %s", (row,), SCHEMA)
    assert wires["east"].set("version:" + row, b"x") == b"STORED\r\n"
    assert wires["east"].set("loud:" + row, b"x") == b"STORED\r\n"
    heard(west=1, south=1)
    assert [wires[name].get("version:" + row) for name in REGIONS] == [b"new", b"old", b"old"]
    assert [wires[name].get("loud:" + row) for name in REGIONS] == [b"new"] * 3


# ---- keys

@pytest.mark.parametrize("key", [b"\xff\xfe\x80", b"k" * 250, b"\xe2\x86\x92" * 83, b"a\tb\x01\x7f", b'quo"te\\\'', b"\xf0\x9f\x90\x8d", b"\xc3", b"\x80" * 250,
                                 b"\xed\xa0\x80", b"a\rb"], ids=lambda key: repr(key[:12]))
def test_keys_of_all_kinds(wires, key):
    for wire in wires.values():
        assert wire.ask(b"set %s 0 0 1\r\n1\r\n" % key) == b"STORED\r\n"
    assert wires["east"].ask(b"delete %s\r\n" % key) == b"DELETED\r\n"
    for name in others("east"):
        until(lambda: wires[name].ask(b"get %s\r\n" % key, b"END\r\n") == b"END\r\n", f"gone from {name}")


@pytest.mark.parametrize("key", [b"a b\r\n\0\x01\xff", b" \n", b"\0", "\u00fc \u00fc".encode()])
def test_keys_of_the_binary_protocol(cluster, wires, key):
    """They may hold any bytes, and are heard of in other regions all the same."""
    clients = {name: binary.Client(Wire(cluster[name].outrigger.port)) for name in ("east", "west")}
    for client in clients.values():
        assert client.ask(binary.store("set", key, b"v")).status == binary.OK
    assert clients["east"].ask(binary.packet("delete", key)).status == binary.OK
    until(lambda: clients["west"].ask(binary.get(key)).status == binary.NOT_FOUND, "the key gone from west")
    for client in clients.values():
        client.wire.close()


# ---- what no sidecar would send

def event(key: str, version: int, **more) -> bytes:
    now = int(time.time() * 1000)
    return json.dumps({"format": 1, "region": "east", **more, "events": [{"key": key, "version": str(version), "timestamp": now}]}).encode()


HOSTILE = [
    b"", b"\0", b"null", b"[]", b"{}", b"not JSON", b"{" * 10_000, b'{"format":1}', b'{"format":1,"region":"east","events":[]}',
    b'{"format":1,"region":"east","events":[{"key":"k"}]}', b'{"format":1,"region":"east","events":[{"key":"","version":"1","timestamp":1}]}',
    b'{"format":1,"region":"east","events":[{"key64":"%%","version":"1","timestamp":1}]}',
    b'{"format":1,"region":"east","events":[{"key":"k","version":"18446744073709551615","timestamp":1}]}',
    b'{"format":1,"region":"east","events":[{"key":"k","version":-1,"timestamp":"now"}]}',
    event("k" * 251, 1), event("k", 1, region="mars"), event("k", 1, format="1"), event("k", 1)[:-3], b'"' + b"x" * 400_000 + b'"',
]


def test_malformed_messages(cluster, wires):
    """They are not in the way of those behind them, and do not come again."""
    growth = Growth(cluster["west"].outrigger)
    raw_nats.publish(cluster["east"].nats.port, *[("outrigger.inval.east.key", text) for text in HOSTILE])
    wires["west"].set("behind", b"1")
    assert wires["east"].delete("behind") in (b"DELETED\r\n", b"NOT_FOUND\r\n")
    until(lambda: wires["west"].get("behind") is None, "the event behind them being applied")
    growth.reaches(len(HOSTILE), "outrigger_bus_malformed_total", peer="east")
    until(lambda: consumer(cluster, "east", "west")["num_ack_pending"] == 0, "all being settled")
    assert consumer(cluster, "east", "west")["num_redelivered"] == 0
    assert growth.of("outrigger_bus_malformed_total", peer="east") == len(HOSTILE)


def test_a_key_that_no_node_can_hold(cluster, wires):
    """With spaces, and too long for base64: nothing is cached under it, so there is nothing to do, and it does not come again."""
    before = consumer(cluster, "east", "west")["num_redelivered"]
    raw_nats.publish(cluster["east"].nats.port, *[("outrigger.inval.east.key", event(prefix + " " * 200, 1)) for prefix in ("", "version:")])
    wires["west"].set("behind", b"1")
    assert wires["east"].delete("behind") in (b"DELETED\r\n", b"NOT_FOUND\r\n")
    until(lambda: wires["west"].get("behind") is None, "the event behind them being applied")
    until(lambda: consumer(cluster, "east", "west")["num_ack_pending"] == 0, "both being settled")
    assert consumer(cluster, "east", "west")["num_redelivered"] == before


def test_messages_of_a_newer_version(cluster, wires):
    """What a newer sidecar may have sent is kept for a newer sidecar; the others go on."""
    raw_nats.publish(cluster["south"].nats.port, ("outrigger.inval.south.key", event("k", 1, region="south", format=2)),
                     ("outrigger.inval.south.later", b"{}"))
    wires["west"].set("behind", b"1")
    wires["south"].delete("behind")
    until(lambda: wires["west"].get("behind") is None, "the event behind them being applied")
    until(lambda: consumer(cluster, "south", "west")["num_ack_pending"] == 2, "two messages being kept")


def test_an_event_from_the_future(cluster, wires, heard):
    """A version an hour ahead of all clocks makes its key uncacheable for a while, and no other; the region's clocks do not follow it:
    what is loaded now still gives way to what another region says a moment later."""
    row, other = fresh(cluster), fresh(cluster)
    ahead = (int(time.time() * 1000) + 3_600_000) << 21
    raw_nats.publish(cluster["east"].nats.port, ("outrigger.inval.east.key", event("version:" + row, ahead)))
    heard(west=1)
    growth = Growth(cluster["west"].outrigger)
    for _ in range(3):
        assert wires["west"].get("version:" + row) == b"old"
        assert wires["west"].get("version:" + other) == b"old"
    growth.becomes(hits=2, loads=4, fills=1)
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE name IN (%s, %s)", (row, other), SCHEMA)
    assert wires["south"].delete("version:" + other) == b"DELETED\r\n"
    heard(west=2)
    assert wires["west"].get("version:" + other) == b"new" and wires["west"].get("version:" + row) == b"new"


# ---- many

def test_ten_thousand_deletes(cluster, wires, heard):
    """5,000 in each of two regions, pipelined on several connections; every one arrives everywhere."""
    count = 5000
    third = wires["south"]
    for start in range(0, 2 * count, 1000):
        third.send(b"".join(b"set many%d 0 0 1 noreply\r\n1\r\n" % i for i in range(start, start + 1000)))
    assert third.get(f"many{2 * count - 1}") == b"1"

    def delete(region: str, first: int, last: int) -> None:
        with Wire(cluster[region].outrigger.port) as wire:
            wire.send(b"".join(b"delete many%d\r\n" % i for i in range(first, last)))
            assert wire.read(11 * (last - first)) == b"NOT_FOUND\r\n" * (last - first)
    in_threads([lambda r=r, n=n: delete(r, n * 1000, (n + 1) * 1000) for n, r in enumerate(["east"] * 5 + ["west"] * 5)])
    heard(east=count, west=count, south=2 * count)
    for start in range(0, 2 * count, 1000):
        assert third.ask(b"get " + b" ".join(b"many%d" % i for i in range(start, start + 1000)) + b"\r\n") == b"END\r\n"
    for name in REGIONS:
        assert sees(cluster[name].outrigger.port, "many0") is None
