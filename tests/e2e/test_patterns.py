"""Invalidations by pattern: at once, in every region, for every command; and what holds when something is away."""

import json
import http.client
from urllib.parse import quote

import pytest

import binary
import raw_nats
from local.cluster import Cluster
from support import Growth, Wire, log_of, sees, until
from through import NAMESPACES, SCHEMA, Asking, Through, prepare


@pytest.fixture(scope="module")
def cluster(watch, directory):
    """Two sidecars in east, one in west."""
    config = {"namespaces": NAMESPACES, "bus": {"ack_wait": "2s"}, "database": {"timeout": "20s"}, "flush_all": "rule"}
    with Cluster(directory, regions=("east", "west"), nodes=2, prepare=prepare, config=config) as cluster:
        east = cluster["east"]
        east.add_outrigger({name: section for name, section in east.outrigger.config.items() if name not in ("listen", "admin")})
        east.outriggers[1].start()
        yield cluster


@pytest.fixture
def wires(cluster):
    """Connections: east's first sidecar, its second one, and west's."""
    wires = [Wire(o.port) for o in (*cluster["east"].outriggers, cluster["west"].outrigger)]
    yield wires
    for wire in wires:
        wire.close()


def call(sidecar, method: str, path: str, body: object = None, **headers: str) -> "tuple[int, dict]":
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.admin_port, timeout=30)
    try:
        if body is not None:
            headers.setdefault("Content_Type", "application/json")
        connection.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body,
                           {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def invalidate(sidecar, *patterns: str) -> "list[int]":
    """The versions of the rules."""
    status, answer = call(sidecar, "POST", "/invalidate", {"patterns": list(patterns)})
    assert status == 200, answer
    return [int(result["version"]) for result in answer["results"]]


def rules(sidecar) -> "dict[str, int]":
    return {rule["pattern"]: int(rule["version"]) for rule in call(sidecar, "GET", "/rules")[1]["rules"]}


def knows(sidecar, pattern: str, version: int) -> None:
    until(lambda: rules(sidecar).get(pattern, 0) >= version, f"{pattern} known to {sidecar.name}")


def fresh(cluster, counter=iter(range(1_000_000))) -> str:
    name = f"pattern{next(counter)}"
    cluster.primary.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (name,), SCHEMA)
    return name


def change(cluster, row: str) -> None:
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE name = %s", (row,), SCHEMA)


# ---- where and when

def test_in_an_aside_namespace(cluster, wires):
    """At once for whoever asked; the region's other sidecar and the other region follow. What is set from then on is served."""
    for wire in wires:
        for key in ("where:1", "where:2", "elsewhere:1"):
            assert wire.set(key, b"old") == b"STORED\r\n"
    growth = Growth(cluster["east"].outrigger)
    invalidate(cluster["east"].outrigger, "where:*")
    assert wires[0].get("where:1") is None and wires[0].get("where:2") is None
    assert wires[0].get("elsewhere:1") == b"old"
    assert wires[0].set("where:1", b"new") == b"STORED\r\n"
    assert wires[0].get("where:1") == b"new"
    assert growth.of("outrigger_rule_hits_total") <= 2  # the sweep may have come first
    until(lambda: wires[1].get("where:2") is None, "hidden from the second sidecar")
    until(lambda: wires[2].get("where:1") is None and wires[2].get("where:2") is None, "hidden in west")
    assert wires[2].get("elsewhere:1") == b"old"
    assert wires[2].set("where:1", b"west") == b"STORED\r\n" and wires[2].get("where:1") == b"west"


def test_in_a_through_namespace(cluster, wires):
    row = fresh(cluster)
    key = "version:" + row
    assert [wire.get(key) for wire in wires] == [b"old"] * 3
    change(cluster, row)
    assert [wire.get(key) for wire in wires] == [b"old"] * 3
    invalidate(cluster["west"].outrigger, "version:patt*")
    assert wires[2].get(key) == b"new"
    until(lambda: wires[0].get(key) == b"new" and wires[1].get(key) == b"new", "the new row in east")
    growth = Growth(cluster["west"].outrigger)
    assert wires[2].get(key) == b"new"
    growth.becomes(hits=1, loads=0, rule_hits=0)  # it is cached again


@pytest.mark.parametrize("pattern, hidden, kept", [
    ("u:?", ["u:1"], ["u:12", "u:"]), ("u:[a-c]x*", ["u:ax", "u:bxy"], ["u:dx", "u:a"]), ("*:end", ["a:end", ":end"], ["a:en", "a:end2"]),
    ("lit\\*", ["lit*"], ["lit1"]), ("exact", ["exact"], ["exact2", "exac"]), ("a*b?c", ["ab1c", "axxb2c"], ["abc"])])
def test_patterns(cluster, wires, pattern, hidden, kept):
    for key in hidden + kept:
        wires[0].set(key, b"v")
    status, answer = call(cluster["east"].outrigger, "INVALIDATE", "/cache/" + quote(pattern, safe=""))
    assert status == 200 and answer["failed"] == 0 and answer["results"][0]["pattern"] == pattern
    assert [wires[0].get(key) for key in hidden] == [None] * len(hidden)
    assert [wires[0].get(key) for key in kept] == [b"v"] * len(kept)


# ---- every command

def hide(cluster, wire, key: str, value: bytes = b"10") -> None:
    assert wire.set(key, value) == b"STORED\r\n"
    invalidate(cluster["east"].outrigger, key[:-1] + "?")


@pytest.mark.parametrize("line, expected", [
    (b"get %s", b"END"), (b"gets %s", b"END"), (b"gat 100 %s", b"END"), (b"gats 100 %s", b"END"), (b"touch %s 100", b"NOT_FOUND"),
    (b"add %s 0 0 1\r\n1", b"STORED"), (b"replace %s 0 0 1\r\n1", b"NOT_STORED"), (b"append %s 0 0 1\r\n1", b"NOT_STORED"),
    (b"prepend %s 0 0 1\r\n1", b"NOT_STORED"), (b"incr %s 1", b"NOT_FOUND"), (b"decr %s 1", b"NOT_FOUND"), (b"delete %s", b"NOT_FOUND"),
    (b"set %s 0 0 1\r\n1", b"STORED"), (b"mg %s", b"EN"), (b"mg %s v t f c", b"EN"), (b"mg %s v N30 c", b"VA 0 c"), (b"md %s", b"NF"),
    (b"md %s I T30", b"NF"), (b"ms %s 1 ME\r\n1", b"HD"), (b"ms %s 1 MR\r\n1", b"NS"), (b"ms %s 1 MA\r\n1", b"NS"), (b"ma %s", b"NF"),
    (b"ma %s N0 J5 v", b"VA 1"), (b"me %s", b"EN"), (b"ms %s 1 MA N30\r\n1", b"HD")], ids=lambda v: repr(v)[2:12])
def test_hidden_is_absent(cluster, wires, line, expected, counter=iter(range(1000))):
    key = f"command{next(counter)}:x"
    hide(cluster, wires[0], key)
    assert wires[0].ask(line % key.encode() + b"\r\n").startswith(expected)
    with Wire(cluster["east"].outrigger.port) as other:  # and so it stays
        assert other.get(key) != b"10"


def test_cas_on_what_is_hidden(cluster, wires):
    assert wires[0].set("cas:x", b"1") == b"STORED\r\n"
    cas = wires[0].gets("cas:x")[2]
    invalidate(cluster["east"].outrigger, "cas:*")
    assert wires[0].ask(b"cas cas:x 0 0 1 %d\r\n2\r\n" % cas) == b"NOT_FOUND\r\n"
    assert wires[0].set("cas:x", b"3") == b"STORED\r\n"
    cas = wires[0].gets("cas:x")[2]
    assert wires[0].ask(b"cas cas:x 0 0 1 %d\r\n4\r\n" % cas) == b"STORED\r\n"
    assert wires[0].ask(b"cas cas:x 0 0 1 %d\r\n5\r\n" % cas) == b"EXISTS\r\n"
    assert wires[0].get("cas:x") == b"4"


def test_changes_under_a_rule(cluster, wires):
    """What was made after the rule is changed as ever, a counter that outgrows its entry included."""
    invalidate(cluster["east"].outrigger, "under:*")
    wires[0].set("under:n", b"8")
    for n in range(9, 120):
        assert wires[0].ask(b"incr under:n 1\r\n") == b"%d\r\n" % n
    assert wires[0].get("under:n") == b"119"
    assert wires[0].ask(b"ma under:n c v\r\n", b"\r\n120\r\n").startswith(b"VA 3")
    assert wires[0].get("under:n") == b"120"
    assert wires[0].set("under:a", b"b") == b"STORED\r\n"
    assert wires[0].ask(b"append under:a 0 0 1\r\nc\r\n") == b"STORED\r\n"
    assert wires[0].ask(b"touch under:a 100\r\n") == b"TOUCHED\r\n"
    assert wires[0].get("under:a") == b"bc"
    large = b"x" * 100_000  # kept while it is looked for what there is
    assert wires[0].ask(b"add under:large 0 0 %d\r\n%s\r\n" % (len(large), large)) == b"STORED\r\n"
    assert wires[0].get("under:large") == large
    # a pipeline keeps its order
    wires[0].send(b"add under:p 0 0 1\r\n1\r\nincr under:p 1\r\nget under:p\r\ndelete under:p\r\nget under:p\r\n")
    assert wires[0].read(len(b"STORED\r\n2\r\nVALUE under:p 0 1\r\n2\r\nEND\r\nDELETED\r\nEND\r\n")) == \
        b"STORED\r\n2\r\nVALUE under:p 0 1\r\n2\r\nEND\r\nDELETED\r\nEND\r\n"


def test_multi_get(cluster, wires):
    for i in range(20):
        wires[0].set(f"multi:{i}", b"v")
    invalidate(cluster["east"].outrigger, "multi:1*")
    text = wires[0].ask(b"get " + b" ".join(b"multi:%d" % i for i in range(20)) + b"\r\n", b"END\r\n")
    assert text == b"".join(b"VALUE multi:%d 0 1\r\nv\r\n" % i for i in [0, *range(2, 10)]) + b"END\r\n"


def test_binary_protocol(cluster, wires):
    client = binary.Client(Wire(cluster["east"].outrigger.port))
    hide(cluster, wires[0], "bin:x")
    assert client.ask(binary.get(b"bin:x")).status == binary.NOT_FOUND
    hide(cluster, wires[0], "bin:x")
    assert client.ask(binary.packet("delete", b"bin:x")).status == binary.NOT_FOUND
    hide(cluster, wires[0], "bin:x")
    assert client.ask(binary.store("add", b"bin:x", b"new")).status == binary.OK
    assert client.ask(binary.get(b"bin:x")).value == b"new"
    client.wire.close()


def test_commands_on_hidden_rows(cluster, wires):
    """In a read-through namespace."""
    row = fresh(cluster)
    key = b"version:" + row.encode()
    for line, expected in ((b"touch %s 100\r\n", b"NOT_FOUND\r\n"), (b"cas %s 0 0 1 1\r\n1\r\n", b"NOT_FOUND\r\n"), (b"gat 100 %s\r\n", b"VALUE"),
                           (b"delete %s\r\n", b"DELETED\r\n"), (b"set %s 0 0 1\r\n1\r\n", b"STORED\r\n")):
        assert wires[0].get(key.decode()) == b"old"
        cas = wires[0].gets(key.decode())[2]
        invalidate(cluster["east"].outrigger, "version:*")
        line = line.replace(b" 1 1\r\n", b" 1 %d\r\n" % cas)
        with Wire(cluster["east"].outrigger.port) as wire:
            assert wire.ask(line % key).startswith(expected), line


# ---- loads under way

def test_a_load_under_way(cluster):
    """Rows that were read before the rule are answered to who asked before it, but neither cached nor given to who asks after it."""
    through = Through(_West(cluster))
    row = fresh(cluster)
    key = "gated:" + row
    sidecar = cluster["west"].outrigger
    with through.gate_closed() as gate:
        first = Asking(sidecar, key)
        gate.holds(1)
        change(cluster, row)
        invalidate(sidecar, "gated:*")
        second = Asking(sidecar, key)
        gate.holds(2)
    assert first.answer() == b"old"
    assert second.answer() == b"new"
    assert sees(sidecar.port, key) == b"new"
    growth = Growth(sidecar)
    assert sees(sidecar.port, key) == b"new"
    growth.becomes(hits=1, loads=0)


class _West:
    """The cluster as Through wants it."""

    def __init__(self, cluster):
        self.primary = cluster.primary
        self._west = cluster["west"]

    def __getitem__(self, _):
        return self._west


# ---- who else

def test_keys_and_patterns_together(cluster, wires):
    for wire in wires:
        for key in ("both:1", "both:2", "single"):
            wire.set(key, b"v")
    status, answer = call(cluster["east"].outrigger, "POST", "/invalidate", {"keys": ["single", "absent"], "patterns": ["both:*"]})
    assert status == 200 and answer["failed"] == 0
    assert [r.get("result", r.get("pattern")) for r in answer["results"]] == ["both:*", "deleted", "not_found"]
    for key in ("both:1", "single"):
        assert wires[0].get(key) is None
        until(lambda: wires[2].get(key) is None, f"{key} gone from west")


def test_a_sidecar_that_starts_later(cluster, wires):
    """It knows the rules before it lets clients in."""
    east = cluster["east"]
    wires[0].set("late:1", b"v")
    invalidate(east.outrigger, "late:*")
    wires[1].close()
    east.outriggers[1].restart("listening")
    assert sees(east.outriggers[1].port, "late:1") is None


def test_flush_all_is_a_rule(cluster, wires):
    for wire in wires:
        wire.set("flushed", b"v")
    assert wires[0].ask(b"flush_all\r\n") == b"OK\r\n"
    assert wires[0].get("flushed") is None
    until(lambda: wires[2].get("flushed") is None, "hidden in west")
    assert wires[0].ask(b"flush_all 10\r\n").startswith(b"SERVER_ERROR flush_all is a rule here")


def test_flush_all_refused(start, cluster):
    sidecar = start({"pool": {"nodes": [cluster["east"].nodes[0].address]}, "flush_all": "refuse"})
    with Wire(sidecar.port) as wire:
        assert wire.ask(b"flush_all\r\n") == b"SERVER_ERROR flush_all is not allowed here (flush_all: refuse)\r\n"


def test_without_a_bus(start, cluster):
    """A rule is this sidecar's own."""
    sidecar = start({"pool": {"nodes": [cluster["east"].nodes[0].address]}})
    with Wire(sidecar.port) as wire:
        wire.set("alone", b"v")
        invalidate(sidecar, "al*")
        assert wire.get("alone") is None
        wire.set("alone", b"w")
        assert wire.get("alone") == b"w"


# ---- what is refused

@pytest.mark.parametrize("body, code, word", [
    ({"patterns": ["a["]}, 400, "pattern 1: at byte 2: '[' without its ']'"), ({"patterns": []}, 400, "the body is to be"), ([], 400, "the body"),
    ({"patterns": [1]}, 400, "texts"), ({"pattern": ["a"]}, 400, "the body"), ({"keys": [""]}, 400, "a key has"), ({"keys": ["k" * 251]}, 400, "a key"),
    ({"patterns": ["x" * 251]}, 400, "1 to 250 bytes"), ("{", 400, "the body"), ("", 400, "the body"), ({"patterns": "a"}, 400, "the body"),
    ({"patterns": ["ok:*", "a\\"]}, 400, "pattern 2")], ids=lambda v: repr(v)[:20])
def test_bad_requests(cluster, body, code, word):
    before = rules(cluster["east"].outrigger)
    status, answer = call(cluster["east"].outrigger, "POST", "/invalidate", body)
    assert status == code and word in answer["error"]["message"]
    assert rules(cluster["east"].outrigger).items() <= before.items()  # nothing half done


def test_only_json(cluster):
    assert call(cluster["east"].outrigger, "POST", "/invalidate", '{"patterns":["a"]}', Content_Type="text/plain")[0] == 415
    assert call(cluster["east"].outrigger, "GET", "/cache/a*")[0] == 404
    assert call(cluster["east"].outrigger, "INVALIDATE", "/cache/")[0] == 400


def test_rules_from_nobody(cluster, wires):
    """What is no rule is dropped; it is not in the way of those behind it."""
    port = cluster["east"].nats.port
    growth = Growth(cluster["west"].outrigger)
    events = [b"{}", b'{"format":1,"region":"east","events":[{"pattern":"[","version":"1","timestamp":1}]}',
              b'{"format":1,"region":"east","events":[{"pattern":"a","key":"a","version":"1","timestamp":1}]}']
    raw_nats.publish(port, *[("outrigger.inval.east.rule", e) for e in events])
    raw_nats.publish(port, *[("$KV.RULES_east." + key, text) for key in ("x", "0.1", "1.18446744073709551616", "a.b.c")
                             for text in (b"", b"{}", b"null", events[1])])
    wires[2].set("behind:1", b"v")
    invalidate(cluster["east"].outrigger, "behind:*")
    until(lambda: wires[2].get("behind:1") is None, "the rule behind them")
    growth.reaches(len(events), "outrigger_bus_malformed_total", peer="east")


# ---- what is away; last, as it stops servers

def test_the_bus_is_away(cluster, wires):
    """What can not be recorded is not claimed."""
    east = cluster["east"]
    wires[0].set("away:1", b"v")
    east.nats.kill()
    until(lambda: east.outrigger.http("GET", "/readyz")[0] == 503, "not ready")
    status, answer = call(east.outrigger, "POST", "/invalidate", {"patterns": ["away:*"]})
    assert status == 503 and answer["failed"] == 1 and "nothing is invalidated" in answer["results"][0]["error"]
    assert wires[0].ask(b"flush_all\r\n").startswith(b"SERVER_ERROR nothing is invalidated")
    assert wires[0].get("away:1") == b"v"
    wires[1].close()
    east.outriggers[1].restart("listening")  # after rules_wait
    until(lambda: "clients are let in without them" in log_of(east.outriggers[1]), "waited long enough")
    assert "rules: not known yet" in east.outriggers[1].http("GET", "/readyz")[1]
    east.nats.start()
    for sidecar in east.outriggers:
        sidecar.wait()
    invalidate(east.outrigger, "away:*")
    assert wires[0].get("away:1") is None


def test_the_record_is_lost(cluster, wires):
    """A NATS that lost its disk is told the rules again by those who know them."""
    east = cluster["east"]
    wires[0].set("lost:1", b"v")
    version, = invalidate(east.outrigger, "lost:*")
    east.nats.lose_store()
    east.nats.start()
    east.outrigger.wait()
    wires[1].close()
    until(lambda: raw_nats.request(east.nats.port, "$JS.API.STREAM.INFO.KV_RULES_east").get("state", {}).get("messages", 0) > 0, "rules put back")
    east.outriggers[1].restart()
    knows(east.outriggers[1], "lost:*", version)


def test_limits(start, directory, cluster):
    """10,000 rules, of which 256 may be other than a prefix; one more is refused, and they all work."""
    sidecar = start({"pool": {"nodes": [cluster["east"].nodes[0].address]}, "threads": 2, "max_clock_skew": "60s"})  # they are kept for so long
    for first in range(0, 9744, 2436):
        invalidate(sidecar, *[f"many:{i}:*" for i in range(first, first + 2436)])
    invalidate(sidecar, *[f"*:other{i}" for i in range(256)])
    status, answer = call(sidecar, "POST", "/invalidate", {"patterns": ["one:more:*"]})
    assert status == 507 and "there are too many rules: 10000 of 10000" in answer["results"][0]["error"]
    invalidate(sidecar, "many:7:*")  # it is there already
    with Wire(sidecar.port) as wire:
        for key in ("many:0:x", "many:9743:x", "a:other255", "many:9744:x"):
            assert wire.set(key, b"v") == b"STORED\r\n"
        invalidate(sidecar, "many:0:*", "many:9743:*", "*:other255")
        assert [wire.get(key) for key in ("many:0:x", "many:9743:x", "a:other255", "many:9744:x")] == [None, None, None, b"v"]
        assert sidecar.metrics().total("outrigger_rules") == 10000
        invalidate(sidecar, "*")
        assert wire.get("many:9744:x") is None


# ---- the sweep

def items(node) -> int:
    with Wire(node.port) as wire:
        text = wire.ask(b"stats\r\n", b"END\r\n").decode()
    return int(text.split("STAT curr_items ")[1].split()[0])


def test_sweep_and_retirement(directory, watch):
    """Hidden entries are removed, and the rule with them; whoever is not swept keeps it in force. One sidecar of the region does it."""
    with Cluster(directory / "swept", regions=("east",), nodes=2, database=False, outriggers=2) as cluster:
        east = cluster["east"]
        growth = Growth(*east.outriggers)
        with Wire(east.outrigger.port) as wire, Wire(east.outriggers[1].port) as other:
            for i in range(500):
                wire.send(b"set swept:%d 0 0 1 noreply\r\n1\r\nset kept:%d 0 0 1 noreply\r\n1\r\n" % (i, i))
            client = binary.Client(Wire(east.outrigger.port))
            assert client.ask(binary.store("set", b"swept: \xff\n", b"v")).status == binary.OK
            assert client.ask(binary.store("set", b"kept: \xff\n", b"v")).status == binary.OK
            client.wire.close()
            assert wire.get("kept:499") == b"1"
            invalidate(east.outrigger, "swept:*")
            growth.reaches(501, "outrigger_swept_entries_total")
            until(lambda: not rules(east.outrigger) and not rules(east.outriggers[1]), "the rule retired everywhere", 60)
            assert growth.of("outrigger_swept_entries_total") == 501
            assert sum(items(n) for n in east.nodes) == 501
            assert wire.get("kept:7") == b"1" and other.get("swept:7") is None
            assert "rules: 1 hide nothing any more" in log_of(east.outrigger) + log_of(east.outriggers[1])
            # a node that can not be swept
            passes = Growth(*east.outriggers)
            east.nodes[1].process.kill()
            invalidate(east.outrigger, "other:*")
            until(lambda: "the rules stay in force" in log_of(east.outrigger) + log_of(east.outriggers[1]), "a pass that failed", 60)
            assert "other:*" in rules(east.outrigger) and passes.of("outrigger_sweep_duration_seconds_count") == 0
            east.nodes[1].start()
            until(lambda: not rules(east.outrigger), "the rule retired", 60)
