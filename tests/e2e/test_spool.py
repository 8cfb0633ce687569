"""Invalidations that nobody can be told of: they wait on the disk of the host, survive the sidecar, and are told when that can be done. Two
regions, one sidecar each; tests/unit/bus/test_spool.c has the log itself."""

import json
import re
import resource
import shutil

import pytest

import raw_nats
from local.cluster import Cluster
from support import DEADLINE, Growth, Wire, heal, log_of, sees, until
from through import SCHEMA, prepare

SOURCE = {"table": "packages", "key_column": "name", "value_column": "version"}
NAMESPACES = [{"prefix": "version:", "read": "through", "source": SOURCE},
              {"prefix": "written:", "read": "through", "write": "through", "source": SOURCE}]


@pytest.fixture(scope="module")
def cluster(watch, directory):
    config = {"namespaces": NAMESPACES, "pool": {"timeout": "300ms", "retry_max": "300ms"},
              "bus": {"ack_wait": "1s", "publish_timeout": "1s"}}
    spools = {name: {"bus": {"spool": {"directory": str(directory.resolve() / f"spool-{name}")}}} for name in ("east", "west")}
    with Cluster(directory, regions=("east", "west"), nodes=2, prepare=prepare, config=config, region_config=spools) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(cluster):
    """When a test is over everything runs, and nothing waits any more."""
    yield
    heal(cluster)
    for region in cluster.regions.values():
        drained(region.outrigger)


def waiting(sidecar) -> float:
    return sidecar.metrics().total("outrigger_spool_records")


def drained(sidecar) -> None:
    until(lambda: waiting(sidecar) == 0, "the spool being empty")


def kept_in(sidecar, count: int, deadline: float = DEADLINE) -> None:
    until(lambda: waiting(sidecar) == count, f"{count} records in the spool", deadline)


def fill(region, *keys) -> None:
    with Wire(region.outrigger.port) as wire:
        for key in keys:
            assert wire.set(key, b"1") == b"STORED\r\n"


def gone(region, *keys) -> None:
    with Wire(region.outrigger.port) as wire:
        for key in keys:
            until(lambda: wire.get(key) is None, f"{key} gone from {region.name}")


def restart(region) -> None:
    """kill -9, if it still runs, and a new process that answers for itself."""
    sidecar = region.outrigger
    sidecar.kill()
    sidecar.start(None)
    sidecar.process.wait_until(lambda: sidecar.http("GET", "/healthz")[0] == 200, "admin answering")


def lose_nats(region) -> None:
    region.nats.kill()
    until(lambda: "not connected" in region.outrigger.http("GET", "/readyz")[1], "the connection being lost")


# ---- the bus is away

def test_deletes_wait_for_nats(east, west):
    """Answered as ever; heard in the other region once NATS is back, each once."""
    keys = [f"wait{i}" for i in range(50)]
    fill(east, *keys)
    fill(west, *keys)
    heard = Growth(west.outrigger)
    growth = Growth(east.outrigger)
    lose_nats(east)
    with Wire(east.outrigger.port) as wire:
        for key in keys:
            assert wire.delete(key) == b"DELETED\r\n"
            assert wire.get(key) is None
    line = r"^spool: waiting for this region's NATS: 50; for a node of its pool: 0; the oldest for \d+ s$"
    until(lambda: re.search(line, east.outrigger.http("GET", "/readyz")[1], re.M), "50 waiting, by /readyz")
    assert east.outrigger.http("GET", "/readyz")[0] == 503
    assert growth.of("outrigger_spool_appended_total") == 50 and growth.of("outrigger_spool_replayed_total") == 0
    assert sees(west.outrigger.port, keys[0]) == b"1"
    east.nats.start()
    gone(west, *keys)
    drained(east.outrigger)
    heard.reaches(50, "outrigger_bus_applied_total")
    assert heard.of("outrigger_bus_applied_total") == growth.of("outrigger_spool_replayed_total") == 50


def test_the_sidecar_is_killed_meanwhile(east, west):
    """kill -9 after the answers, and the process that is started then knows what it owes."""
    keys = [f"killed{i}" for i in range(1500)]
    with Wire(west.outrigger.port) as wire:
        wire.send(b"".join(b"set %s 0 0 1\r\n1\r\n" % k.encode() for k in keys))
        assert wire.read(8 * len(keys)) == b"STORED\r\n" * len(keys)
    heard = Growth(west.outrigger)
    lose_nats(east)
    with Wire(east.outrigger.port) as wire:
        wire.send(b"".join(b"delete %s\r\n" % k.encode() for k in keys))
        assert wire.read(11 * len(keys)) == b"NOT_FOUND\r\n" * len(keys)
    restart(east)
    assert "1500 invalidations are to be published" in log_of(east.outrigger)
    assert waiting(east.outrigger) == 1500
    east.nats.start()
    gone(west, *keys)
    drained(east.outrigger)
    heard.reaches(1500, "outrigger_bus_applied_total")  # or more: what was not acknowledged in time comes again


def hides(sidecar, pattern: str) -> "tuple[int, dict]":
    status, text = sidecar.http("POST", "/invalidate", body={"patterns": [pattern]})
    return status, json.loads(text)["results"][0]


def known_rules(sidecar) -> "dict[str, int]":
    return {rule["pattern"]: int(rule["version"]) for rule in json.loads(sidecar.http("GET", "/rules")[1])["rules"]}


def test_a_pattern_waits_for_nats(east, west):
    """In force in this sidecar at once, after a kill -9 as well; in the region's record and in the other region once NATS is back."""
    keys = [f"pattern:{i}" for i in range(5)]
    fill(east, *keys)
    fill(west, *keys, "other")
    lose_nats(east)
    status, result = hides(east.outrigger, "pattern:*")
    assert status == 202 and result["spooled"] is True and "error" not in result
    unseen_by(east, *keys)
    assert sees(west.outrigger.port, keys[0]) == b"1"
    restart(east)
    until(lambda: known_rules(east.outrigger) == {"pattern:*": int(result["version"])}, "the rule in force again")
    unseen_by(east, *keys)
    assert waiting(east.outrigger) == 1
    east.nats.start()
    gone(west, *keys)
    assert sees(west.outrigger.port, "other") == b"1"
    drained(east.outrigger)
    restart(east)  # what it knows now it knows from the region's record
    until(lambda: "pattern:*" in known_rules(east.outrigger), "the rule in the region's record")


def test_keys_and_patterns_wait_together(east, west):
    """What is replayed has keys and patterns apart, in the order of their age."""
    keys = [f"mixed{i}" for i in range(40)]
    fill(west, *keys, *(f"mixture:{i}:x" for i in range(20)))
    heard = Growth(west.outrigger)
    lose_nats(east)
    with Wire(east.outrigger.port) as wire:
        for i in range(20):
            wire.delete(keys[2 * i])
            assert hides(east.outrigger, f"mixture:{i}:*")[0] == 202
            wire.delete(keys[2 * i + 1])
    restart(east)
    assert "60 invalidations are to be published, 20 to be applied" in log_of(east.outrigger)
    east.nats.start()
    gone(west, *keys, *(f"mixture:{i}:x" for i in range(20)))
    drained(east.outrigger)
    heard.reaches(60, "outrigger_bus_applied_total")


def unseen_by(region, *keys) -> None:
    with Wire(region.outrigger.port) as wire:
        for key in keys:
            assert wire.get(key) is None


def test_frozen_nats(east, west):
    """What it had been given before it froze is repeated as the same message: the stream has it once."""
    fill(west, "frozen")
    before = raw_nats.request(east.nats.port, "$JS.API.STREAM.INFO.INVAL_east")["state"]["messages"]
    east.nats.process.pause()
    with Wire(east.outrigger.port) as wire:
        assert wire.delete("frozen") == b"NOT_FOUND\r\n"  # within publish_timeout
    kept_in(east.outrigger, 1)
    east.nats.process.resume()
    gone(west, "frozen")
    drained(east.outrigger)
    assert raw_nats.request(east.nats.port, "$JS.API.STREAM.INFO.INVAL_east")["state"]["messages"] == before + 1


def test_live_deletes_go_on_during_a_replay(east, west):
    """A backlog does not hold up what clients wait for."""
    keys = [f"backlog{i}" for i in range(20000)]
    lose_nats(east)
    with Wire(east.outrigger.port) as wire:
        for at in range(0, len(keys), 1000):
            wire.send(b"".join(b"delete %s\r\n" % k.encode() for k in keys[at:at + 1000]))
            assert wire.read(11 * 1000) == b"NOT_FOUND\r\n" * 1000
        growth = Growth(east.outrigger)
        east.nats.start()
        until(lambda: growth.of("outrigger_spool_replayed_total") > 0, "the replay having begun")
        fill(west, "live")
        until(lambda: wire.delete("live") == b"NOT_FOUND\r\n" and growth.of("outrigger_bus_published_total") >= 1, "a live publication")
        gone(west, "live")
    drained(east.outrigger)


def test_sigterm_hands_over_what_is_under_way(east, west):
    fill(west, "orderly")
    growth = Growth(east.outrigger)
    east.nats.process.pause()
    with Wire(east.outrigger.port) as wire:
        wire.send(b"delete orderly\r\n")
        growth.reaches(1, "outrigger_requests_total", command="delete")  # what it had not read it would not answer
        assert east.outrigger.stop() == 0
        assert wire.line() == b"NOT_FOUND\r\n"
    east.nats.process.resume()
    east.outrigger.start("listening")
    gone(west, "orderly")


# ---- the disk

@pytest.fixture
def limited(east):
    """A function: how large a file of east's sidecar may become (its log, too); None: as large as it likes."""
    def limit(size) -> None:
        most = resource.RLIM_INFINITY
        resource.prlimit(east.outrigger.process.pid, resource.RLIMIT_FSIZE, (most if size is None else size, most))
    yield limit
    if east.outrigger.process.is_running:
        limit(None)


def test_full_disk(east, west, limited):
    """The delete fails, and says why; what was promised before is kept, and once there is room all is as before."""
    fill(west, "kept", "lost", "later")
    lose_nats(east)
    with Wire(east.outrigger.port) as wire:
        assert wire.delete("kept") == b"NOT_FOUND\r\n"
        wire.send(b"".join(b"delete %0100d\r\n" % i for i in range(1000)))
        assert wire.read(11 * 1000) == b"NOT_FOUND\r\n" * 1000
        log = east.outrigger.process.log
        segment = max((east.directory.parent / "spool-east").glob("*.spool"))
        limited(segment.stat().st_size + 10)
        assert wire.delete("lost") == (b"SERVER_ERROR changed in this region, but the other regions could not be told: bus: "
                                       b"the spool can not be written; send it again\r\n")
        assert "File too large" in log.read_text()
        until(lambda: "File too large" in east.outrigger.http("GET", "/readyz")[1], "/readyz saying so")
        assert wire.get("lost") is None and wire.set("unhurt", b"1") == b"STORED\r\n" and wire.get("unhurt") == b"1"
        limited(None)
        assert wire.delete("later") == b"NOT_FOUND\r\n"
    east.nats.start()
    gone(west, "kept", "later")
    assert sees(west.outrigger.port, "lost") == b"1"


def test_full_spool(start, directory, cluster, east):
    """max_bytes."""
    config = {**east.outrigger.config, "bus": {**east.outrigger.config["bus"], "url": "nats://127.0.0.1:1",
                                               "spool": {"directory": str(directory / "small"), "max_bytes": "1MiB", "segment_bytes": "64KiB"}}}
    config.pop("listen"), config.pop("admin")
    sidecar = start(config, until="listening")
    with Wire(sidecar.port) as wire:
        answers = set()
        for batch in range(20):
            wire.send(b"".join(b"delete %0200d\r\n" % i for i in range(batch * 500, batch * 500 + 500)))
            answers |= {wire.line() for _ in range(500)}
    assert answers == {b"NOT_FOUND\r\n", b"SERVER_ERROR changed in this region, but the other regions could not be told: bus: the spool is full; "
                                         b"send it again\r\n"}
    assert sidecar.metrics().total("outrigger_spool_bytes") <= 1 << 20


def test_a_directory_that_is_in_use(east, start):
    config = {**east.outrigger.config}
    config.pop("listen"), config.pop("admin")
    sidecar = start(config, until=None)
    assert sidecar.process.wait() == 1
    assert "another process uses this directory: every sidecar needs one of its own" in log_of(sidecar)


def test_a_damaged_spool_is_told(east, west):
    keys = [f"damaged{i}" for i in range(20)]
    fill(west, *keys)
    lose_nats(east)
    with Wire(east.outrigger.port) as wire:
        for key in keys:
            assert wire.delete(key) == b"NOT_FOUND\r\n"
    east.outrigger.kill()
    segment = max((east.directory.parent / "spool-east").glob("*.spool"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"damaged10") + 2] ^= 1
    segment.write_bytes(data)
    restart(east)
    assert waiting(east.outrigger) == 10
    assert east.outrigger.metrics().total("outrigger_spool_errors_total") == 1
    assert "invalidations were lost" in east.outrigger.http("GET", "/readyz")[1]
    assert "a record that is damaged at byte" in log_of(east.outrigger)
    east.nats.start()
    gone(west, *keys[:10])
    assert sees(west.outrigger.port, keys[10]) == b"1"
    drained(east.outrigger)
    assert east.outrigger.stop() == 0
    shutil.rmtree(east.directory.parent / "spool-east")  # made anew at the next start


# ---- a node of the own region is away

def on_node(cluster, region, node, prefix: str, count: int = 20) -> list:
    """Keys of aside entries whose home is this node, stored in this region."""
    keys = [f"{prefix}{i}" for i in range(2 * count)]
    fill(region, *keys)
    return [k for k in keys if sees(node.port, k)]


def unseen(wire: Wire, *keys) -> None:
    """None of them is served. A worker that has not connected to the node again yet may say that, of a key which another one has told the node of."""
    for key in keys:
        answer = wire.ask(b"get %s\r\n" % key.encode())
        assert answer == b"END\r\n" or re.fullmatch(rb"SERVER_ERROR node \S+: (not connected|timed out)\r\n", answer), (key, answer)


def cut_off(region, node, key: str) -> None:
    """Its connections are gone, what it holds is not. A node that is only paused still reads what has been sent to it, later."""
    node.process.pause()

    def is_given_up() -> bool:
        with Wire(region.outrigger.port) as wire:  # of any worker
            wire.ask(b"get %s\r\n" % key.encode())
        return region.outrigger.metrics().total("outrigger_node_connections", node=node.address) == 0
    until(is_given_up, "the connections being given up")


@pytest.mark.parametrize("how", ["paused", "cut off", "under a rule"])
def test_deletes_while_a_node_is_away(cluster, east, west, how):
    """The node comes back with what it had: nobody sees that of a deleted key, not even before the node has been told."""
    node, other = east.nodes
    if how == "under a rule":  # a delete then has to look at what the node has, first
        assert east.outrigger.http("INVALIDATE", "/cache/node-under*")[0] in (200, 202)  # 202: kept, and published later
    keys = on_node(cluster, east, node, f"node-{how}-".replace(" ", "-"))
    assert len(keys) > 2
    fill(west, *keys)
    growth = Growth(east.outrigger)
    if how != "paused":
        cut_off(east, node, keys[0])
    else:
        node.process.pause()
    with Wire(east.outrigger.port) as wire:
        for key in keys[1:]:
            assert wire.delete(key) == b"DELETED\r\n"
        assert wire.get(keys[1]) is None  # at once, without asking the node
        assert wire.ask(b"touch %s 0\r\n" % keys[1].encode()) == b"NOT_FOUND\r\n"
        assert wire.ask(b"append %s 0 0 1\r\n2\r\n" % keys[1].encode()).startswith(b"SERVER_ERROR node ")
        gone(west, *keys[1:])  # the other region does not wait for our node
        assert waiting(east.outrigger) == len(keys) - 1
        assert f"for a node of its pool: {len(keys) - 1};" in east.outrigger.http("GET", "/readyz")[1]
        node.process.resume()
        assert sees(node.port, keys[-1]) in (b"1", None)
        until(lambda: wire.get(keys[0]) == b"1", "connected to the node again")
        for _ in range(3):
            unseen(wire, *keys[1:])
        drained(east.outrigger)
        assert not any(sees(node.port, key) for key in keys[1:])
        until(lambda: wire.get(keys[0]) == b"1", "the node being connected")  # this key was not deleted
        assert growth.of("outrigger_spool_applied_total") == len(keys) - 1
        assert wire.set(keys[1], b"2") == b"STORED\r\n" and wire.get(keys[1]) == b"2"


def test_node_away_and_sidecar_killed(cluster, east, west):
    """What is owed to the node is known to the next process, too, before it serves anybody."""
    node = east.nodes[0]
    keys = on_node(cluster, east, node, "both-")
    cut_off(east, node, keys[0])
    with Wire(east.outrigger.port) as wire:
        for key in keys:
            assert wire.delete(key) == b"DELETED\r\n"
    east.outrigger.kill()
    node.process.resume()
    assert [sees(node.port, key) for key in keys] == [b"1"] * len(keys)
    restart(east)
    with Wire(east.outrigger.port) as wire:
        unseen(wire, *keys)
    drained(east.outrigger)
    assert not any(sees(node.port, key) for key in keys)


def test_events_of_the_other_region_for_a_node_that_is_away(cluster, east, west):
    """They are delivered again for a while, then kept by the sidecar: such a node must not fill what the stream lets be unacknowledged."""
    node = west.nodes[0]
    keys = on_node(cluster, west, node, "remote-")
    cut_off(west, node, keys[0])
    with Wire(east.outrigger.port) as wire:
        for key in keys:
            assert wire.delete(key) == b"NOT_FOUND\r\n"
    kept_in(west.outrigger, len(keys), 60)  # after six deliveries, with pauses between
    until(lambda: raw_nats.request(east.nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["num_ack_pending"] == 0, "all acknowledged")
    with Wire(west.outrigger.port) as wire:
        node.process.resume()
        unseen(wire, *keys)
        drained(west.outrigger)
        assert [sees(node.port, key) for key in keys] == [None] * len(keys)


def test_through_namespace(cluster, east):
    """The row has changed, the node has the old one: it is read from the database until the node has been told."""
    node = east.nodes[0]
    rows = [f"row{i}" for i in range(20)]
    for row in rows:
        cluster.primary.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (row,), SCHEMA)
        assert sees(east.outrigger.port, "version:" + row) == b"old"
    with Wire(node.port) as wire:  # the fill is behind the answer
        until(lambda: sum(wire.get("version:" + row) == b"old" for row in rows) > 0, "the fills")
    node.process.pause()
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE version = 'old'", (), SCHEMA)
    with Wire(east.outrigger.port) as wire:
        for row in rows:
            assert wire.delete("version:" + row) == b"DELETED\r\n"
            assert wire.get("version:" + row) == b"new"
        assert waiting(east.outrigger) > 0
        node.process.resume()
        for row in rows:
            assert wire.get("version:" + row) == b"new"
        drained(east.outrigger)
        for row in rows:
            assert wire.get("version:" + row) == b"new"
        growth = Growth(east.outrigger)
        for row in rows:
            assert wire.get("version:" + row) == b"new"
        growth.becomes(hits=20)


def test_delete_with_a_condition_is_not_kept(cluster, east):
    """Only the node can say whether it is to be deleted."""
    node = east.nodes[0]
    key = on_node(cluster, east, node, "cond-")[0]
    node.process.pause()
    with Wire(east.outrigger.port) as wire:
        assert wire.ask(b"md %s C12345\r\n" % key.encode()).startswith(b"SERVER_ERROR node ")
        assert wire.ask(b"md %s\r\n" % key.encode()) == b"HD\r\n"
    kept_in(east.outrigger, 1)


def test_node_and_bus_away(cluster, east, west):
    node = east.nodes[0]
    keys = on_node(cluster, east, node, "all-")
    fill(west, *keys)
    lose_nats(east)
    node.process.pause()
    with Wire(east.outrigger.port) as wire:
        for key in keys:
            assert wire.delete(key) == b"DELETED\r\n"
        node.process.resume()
        until(lambda: not any(sees(node.port, key) for key in keys), "the node being told")
        assert waiting(east.outrigger) == len(keys)  # the other region has not been
        assert sees(west.outrigger.port, keys[0]) == b"1"
    east.nats.start()
    gone(west, *keys)


def test_write_through_is_told_without_its_sidecar(cluster, east, west):
    """What a write will have to tell is on the disk before the database is asked: killed in between, the sidecar tells it when it is back."""
    key = "written:intent"
    with Wire(east.outrigger.port) as wire:
        assert wire.set(key, b"before") == b"STORED\r\n"
    until(lambda: sees(west.outrigger.port, key) == b"before", "the row in the other region")
    drained(east.outrigger)
    blocker = cluster.primary.connect(SCHEMA)
    with blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT version FROM packages WHERE name = 'intent' FOR UPDATE")
        with Wire(east.outrigger.port) as wire:
            wire.send(b"set %s 0 0 5\r\nafter\r\n" % key.encode())
            kept_in(east.outrigger, 1)
            until(lambda: any("packages" in (p["Info"] or "") and p["Id"] != blocker.thread_id() for p in cluster.primary.query("SHOW PROCESSLIST")),
                  "the write waiting for the row")
            east.outrigger.process.kill()
        cursor.execute("UPDATE packages SET version = 'after' WHERE name = 'intent'")  # as the write would have it
        cursor.execute("COMMIT")
    east.outrigger.start("listening")
    for region in (east, west):
        until(lambda: sees(region.outrigger.port, key) == b"after", f"the new row in {region.name}")
