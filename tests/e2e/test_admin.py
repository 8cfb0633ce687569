"""Admin HTTP: the pages, and that every metric moves when, and only when, it should."""

import math
import re

import pytest

from local.cluster import Cluster
from support import ROOT, Growth, Wire, sees, until
from through import NAMESPACES, Through, prepare


@pytest.fixture(scope="module")
def cluster(watch, directory):
    """Two regions that hear of each other; every metric there is can move."""
    namespaces = [*NAMESPACES, {"prefix": "told:", "on_set": "invalidate"}]
    config = {"namespaces": namespaces, "database": {"timeout": "20s"}}
    with Cluster(directory, regions=("east", "west"), prepare=prepare, config=config) as cluster:
        yield cluster


@pytest.fixture
def west(cluster):
    return cluster["west"].outrigger


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


@pytest.fixture
def growth(west):
    return Growth(west)


def fresh(cluster, counter=iter(range(1_000_000))) -> str:
    name = f"row{next(counter)}"
    cluster.primary.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (name,), cluster.schema)
    return name


# ---- pages

def test_pages(west):
    assert west.http("GET", "/healthz") == (200, "ok\n")
    assert west.http("GET", "/readyz") == (200, "pool: ok\ndatabase: ok\nbus: ok\nrules: ok\n")
    status, text = west.http("GET", "/")
    assert status == 200 and all(page in text for page in ("/healthz", "/readyz", "/metrics"))
    assert west.http("GET", "/nothing")[0] == 404
    assert west.http("POST", "/healthz")[0] == 405 and west.http("DELETE", "/metrics")[0] == 405
    assert west.http("HEAD", "/healthz") == (200, "")
    assert west.http("GET", "/healthz?verbose=1")[0] == 200


@pytest.mark.parametrize("text", [b"\r\n\r\n", b"GET\r\n\r\n", b"\0" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/x" * 50_000 + b" HTTP/1.1\r\n\r\n",
                                  b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
                                  b"get key\r\n"], ids=lambda text: repr(text[:12]))
def test_nonsense(west, text):
    """It neither ends the server nor keeps others waiting."""
    with Wire(west.admin_port) as client:
        try:
            client.send(text)
        except OSError:
            pass  # it has hung up
        assert west.http("GET", "/healthz")[0] == 200
    assert west.http("GET", "/healthz")[0] == 200


def test_format_of_metrics(cluster, west, wire):
    """A help and a type for each family, in front of its samples and only once; buckets that only grow up to +Inf, which is the count."""
    wire.get("version:" + fresh(cluster))
    wire.delete("k")
    status, text = west.http("GET", "/metrics")
    assert status == 200 and text.endswith("\n")
    histograms = 0
    types, helps, current = {}, {}, None
    for line in text.splitlines():
        words = line.split(" ", 3)
        if line.startswith("# HELP "):
            assert words[2] not in helps
            helps[words[2]] = words[3]
        elif line.startswith("# TYPE "):
            assert words[2] not in types and words[2] in helps
            types[words[2]], current = words[3], words[2]
        else:
            name = re.match(r"\w+", line)[0]
            assert name == current or (types[current] == "histogram" and re.fullmatch(current + "_(bucket|sum|count)", name)), line
    samples = west.metrics()
    for family, kind in types.items():
        if kind == "counter":
            assert family.endswith("_total"), family
        if kind != "histogram":
            continue
        groups = {}
        for (name, labels), value in samples.items():
            if name == family + "_bucket":
                rest = tuple(pair for pair in labels if pair[0] != "le")
                groups.setdefault(rest, []).append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
        histograms += len(groups)
        for rest, buckets in groups.items():
            buckets.sort()
            counts = [count for _, count in buckets]
            assert counts == sorted(counts) and math.isinf(buckets[-1][0])
            assert counts[-1] == samples[family + "_count", rest]
    assert histograms >= 5  # two commands, a node or two, loads, the bus


def test_every_metric_is_there(west):
    defined = re.findall(r'^X\(\w+, "(\w+)"', (ROOT / "proxy/metrics.def").read_text(), re.M)
    assert len(defined) > 30
    text = west.http("GET", "/metrics")[1]
    for name in defined + ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total", "outrigger_build_info"]:
        assert f"# TYPE {name} " in text, name
    # From the start, whatever has been done: what has no labels, and what has one.
    for name in ("client_connections", "bus_published_total", "database_connections", "hits_total", "node_connections", "bus_connected"):
        assert re.search(rf"^outrigger_{name}[{{ ]", text, re.M), name


# ---- clients

def test_requests_by_command_and_namespace(wire, growth):
    for prefix, name in (("plain", "default"), ("told:", "told")):
        for line in (b"get %s", b"gets %s", b"gat 0 %s", b"gats 0 %s", b"set %s 0 0 1\r\n1", b"add %s 0 0 1\r\n1", b"replace %s 0 0 1\r\n1",
                     b"append %s 0 0 1\r\n1", b"prepend %s 0 0 1\r\n1", b"cas %s 0 0 1 1\r\n1", b"incr %s 1", b"decr %s 1", b"touch %s 0", b"delete %s"):
            command = line.split()[0].decode()
            wire.ask(line % (prefix + "counted").encode() + b"\r\nverbosity 1\r\n", b"OK\r\n")
            labels = {"command": command} if name == "default" else {"command": command, "namespace": name}
            assert growth.of("outrigger_requests_total", **labels) == 1, (command, prefix)
    before = growth.of("outrigger_requests_total", command="verbosity")
    for line, end in ((b"version", b"\r\n"), (b"stats", b"END\r\n"), (b"verbosity 1", b"\r\n"), (b"flush_all", b"\r\n")):
        wire.ask(line + b"\r\n", end)
    assert growth.of("outrigger_requests_total", command="verbosity") == before + 1
    for command in ("version", "stats", "flush_all"):
        assert growth.of("outrigger_requests_total", command=command) == 1
    wire.ask(b"get a b c d told:e\r\n", b"END\r\n")  # one for each key
    assert growth.of("outrigger_requests_total", command="get") == 2 + 5
    assert growth.of("outrigger_requests_total", command="get", namespace="told") == 2


def test_hits_and_misses(wire, growth):
    wire.set("hit", b"1")
    wire.ask(b"get hit miss hit gone\r\n", b"END\r\n")
    wire.ask(b"gat 0 hit\r\n", b"END\r\n")
    growth.becomes(hits=3, misses=2, loads=0)


def test_client_latency_by_command(wire, growth):
    wire.get("k")
    wire.set("k", b"1")
    wire.get("k")
    assert growth.of("outrigger_client_duration_seconds_count", command="get") == 2
    assert growth.of("outrigger_client_duration_seconds_count", command="set") == 1
    assert growth.of("outrigger_client_duration_seconds_sum", command="get") > 0


def test_bytes(wire, growth):
    wire.set("bytes", b"b" * 100_000)
    read = growth.of("outrigger_client_read_bytes_total")
    assert 100_000 < read < 100_100
    for _ in range(3):
        wire.get("bytes")
    wire.get("no-bytes")  # what a connection has written is counted when it is next read from
    assert 300_000 < growth.of("outrigger_client_written_bytes_total") < 300_200


def test_connections(west, growth):
    until(lambda: west.metrics().total("outrigger_client_connections") == 0, "all others being gone")
    wires = [Wire(west.port) for _ in range(5)] + [Wire(west.socket) for _ in range(5)]
    until(lambda: west.metrics().total("outrigger_client_connections") == 10, "ten connections")
    assert growth.of("outrigger_client_connections_total") == 10 and growth.of("outrigger_client_connections_refused_total") == 0
    for client in wires:
        client.close()
    until(lambda: west.metrics().total("outrigger_client_connections") == 0, "none")


def test_client_errors_by_kind(wire, growth):
    wire.ask(b"nonsense\r\n")
    wire.ask(b"incr k x\r\n")
    wire.ask(b"set k 0 0 1\r\nxyz\r\n", b"ERROR\r\n")
    wire.ask(b"set k 0 0 2000000\r\n" + b"x" * 2_000_000 + b"\r\n")
    wire.ask(b"incr version:p1 1\r\n")
    assert growth.of("outrigger_errors_total", source="client", error="invalid") == 4
    assert growth.of("outrigger_errors_total", source="client", error="too_large") == 1
    assert growth.of("outrigger_errors_total", source="client", error="unsupported") == 1
    assert growth.of("outrigger_errors_total") == 6


# ---- nodes

def test_nodes(cluster, wire, growth):
    nodes = cluster["west"].nodes
    for i in range(40):
        wire.set(f"node{i}", b"1")
    grown = [growth.of("outrigger_node_requests_total", node=n.address) for n in nodes]
    assert sum(grown) == 40 and min(grown) > 0
    assert [growth.of("outrigger_node_duration_seconds_count", node=n.address) for n in nodes] == grown
    assert growth.of("outrigger_node_duration_seconds_sum") > 0
    samples = cluster["west"].outrigger.metrics()
    assert [samples.total("outrigger_node_connections", node=n.address) for n in nodes] == [2, 2]
    assert growth.of("outrigger_node_errors_total") == 0


def test_node_errors(cluster, west, wire, growth):
    node = cluster["west"].nodes[0]
    node.kill()
    until(lambda: west.metrics().total("outrigger_node_connections", node=node.address) == 0, "the connections being lost")
    answers = [wire.ask(b"get gone%d\r\n" % i) for i in range(20)]
    failed = sum(a.startswith(b"SERVER_ERROR") for a in answers)
    assert 0 < failed < 20
    assert growth.of("outrigger_node_errors_total", node=node.address, error="unavailable") == failed
    assert growth.of("outrigger_errors_total", source="node", error="unavailable") == failed
    node.start()
    until(lambda: west.metrics().total("outrigger_node_connections", node=node.address) == 2, "the connections")
    assert growth.of("outrigger_node_connects_total", node=node.address) == 2
    west.wait("ready")


# ---- loads

def test_loads(cluster, wire, growth):
    name = fresh(cluster)
    wire.get("version:" + name)
    wire.get("version:none-such")
    growth.becomes(lease_wins=2, fills=2, fills_refused=0, lease_waits=0, tombstones=0, misses=2)
    for result, count in (("found", 1), ("absent", 1), ("failed", 0)):
        assert growth.of("outrigger_loads_total", namespace="version", result=result) == count
    assert growth.of("outrigger_database_duration_seconds_count", namespace="version") == 2
    assert growth.of("outrigger_database_duration_seconds_sum", namespace="version") > 0
    wire.get("version:none-such")
    growth.becomes(negative_hits=1, misses=2)
    wire.delete("version:" + name)
    growth.becomes(tombstones=1)


def test_lease_waits_and_refused_fills(cluster, west, growth):
    through = Through(cluster)
    key = "version:" + fresh(cluster)
    with through.frozen() as freeze:
        first, second = Wire(west.port), Wire(west.port)
        first.send(b"get %s\r\n" % key.encode())
        freeze.holds()
        second.send(b"get %s\r\n" % key.encode())
        growth.reaches(1, "outrigger_lease_waits_total", namespace="version")
        with Wire(west.port) as third:
            third.delete(key)
    for client in (first, second):
        assert client.until(b"END\r\n").startswith(b"VALUE ")
        client.close()
    growth.becomes(lease_waits=1, fills_refused=1, fills=0)


def test_queue_of_the_database(cluster, west):
    """Loads beyond the threads wait, which shows."""
    through = Through(cluster)
    with through.frozen() as freeze:
        wires = [Wire(west.port) for _ in range(10)]
        for i, client in enumerate(wires):
            client.send(b"get version:p%d\r\n" % (700 + i))
            freeze.holds(min(i + 1, 4))  # one after another, or a thread would take several together
        until(lambda: west.metrics().total("outrigger_database_queue") == 6, "six loads in the queue")
    for i, client in enumerate(wires):
        assert client.until(b"END\r\n").endswith(b"\r\nv%d\r\nEND\r\n" % (700 + i))
        client.close()
    assert west.metrics().total("outrigger_database_queue") == 0
    assert west.metrics().total("outrigger_database_connections") == 4


def test_database_errors(cluster, west, wire, growth):
    cluster.primary.query("RENAME TABLE words TO away", database=cluster.schema)
    wire.ask(b"get word:x\r\n")
    cluster.primary.query("RENAME TABLE away TO words", database=cluster.schema)
    assert growth.of("outrigger_loads_total", namespace="word", result="failed") == 1
    assert growth.of("outrigger_errors_total", source="database", error="database") == 1


# ---- the bus

def test_bus(cluster, west, wire):
    east = cluster["east"].outrigger
    until(lambda: east.metrics().total("outrigger_bus_applied_total", peer="west") >= west.metrics().total("outrigger_bus_published_total"),
          "what was said before")
    here, there = Growth(west), Growth(east)
    wire.set("told:k", b"1")
    wire.delete("told:k")
    assert here.of("outrigger_bus_published_total") == 2 and here.of("outrigger_bus_publish_duration_seconds_count") == 2
    there.reaches(2, "outrigger_bus_applied_total", peer="west")
    assert there.of("outrigger_bus_received_total", peer="west") == 2
    assert there.of("outrigger_bus_lag_seconds_count", peer="west") == 2
    assert 0 <= there.of("outrigger_bus_lag_seconds_sum", peer="west") < 60
    for name in ("apply_failed", "malformed", "publish_failed"):
        assert here.of(f"outrigger_bus_{name}_total") == there.of(f"outrigger_bus_{name}_total") == 0
    assert here.of("outrigger_bus_applied_total") == 0
    for sidecar in (west, east):
        assert sidecar.metrics().total("outrigger_bus_connected") == 2


def test_bus_errors(cluster, west, growth):
    nats = cluster["west"].nats
    nats.kill()
    until(lambda: west.metrics().total("outrigger_bus_connected", peer="west") == 0, "the connection being lost")
    until(lambda: west.http("GET", "/readyz")[0] == 503, "/readyz")
    text = west.http("GET", "/readyz")[1]
    assert re.search(r"^bus: own region west: not connected", text, re.M) and "pool: ok" in text
    with Wire(west.port) as wire:
        assert wire.delete("k").startswith(b"SERVER_ERROR ")
    assert growth.of("outrigger_bus_publish_failed_total") == 1
    assert growth.of("outrigger_errors_total", source="bus", error="unavailable") == 1
    nats.start()
    west.wait("ready")
    cluster["east"].outrigger.wait("ready")


# ---- stats, as memcached clients see them

def test_stats(west, wire):
    def stats():
        return dict(line.split()[1:3] for line in wire.ask(b"stats\r\n", b"END\r\n").decode().splitlines()[:-1])
    before = stats()
    assert int(before["pid"]) == west.process.pid and before["region"] == "west" and before["version"].startswith("1.6.38")
    wire.set("stat", b"1")
    wire.get("stat")
    wire.get("no-stat")
    after = stats()
    for name, grown in {"cmd_set": 1, "cmd_get": 2, "get_hits": 1, "get_misses": 1, "cmd_delete": 0}.items():
        assert int(after[name]) - int(before[name]) == grown, name
    assert sees(west.port, "stat") == b"1"
    for argument in (b"settings", b"items", b"slabs"):
        assert wire.ask(b"stats %s\r\n" % argument, b"END\r\n").endswith(b"END\r\n")
