"""Regions that lose what they are made of: NATS servers, sidecars and nodes are killed, frozen and back. Nothing is lost, nothing waits
for ever, and whatever a region does not need goes on. Two regions, two sidecars each."""

import pytest

import raw_nats
from local.cluster import Cluster
from support import Growth, Wire, heal, log_of, sees, until
from through import SCHEMA, prepare

NAMESPACES = [{"prefix": "version:", "read": "through", "source": {"table": "packages", "key_column": "name", "value_column": "version"}}]


@pytest.fixture(scope="module")
def cluster(watch, directory):
    config = {"namespaces": NAMESPACES, "bus": {"ack_wait": "3s"}, "pool": {"timeout": "300ms", "retry_max": "300ms"}}
    with Cluster(directory, regions=("east", "west"), nodes=2, outriggers=2, prepare=prepare, config=config) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(cluster):
    """When a test is over everything runs, and every sidecar finds that out by itself."""
    yield
    heal(cluster)


def port(region) -> int:
    """Of a sidecar that runs."""
    return next(sidecar.port for sidecar in reversed(region.outriggers) if sidecar.process.is_running)


def fill(region, *keys) -> None:
    with Wire(port(region)) as wire:
        for key in keys:
            assert wire.set(key, b"1") == b"STORED\r\n"


def delete(region, *keys, by: int = 0) -> None:
    with Wire(region.outriggers[by].port) as wire:
        for key in keys:
            assert wire.delete(key) in (b"DELETED\r\n", b"NOT_FOUND\r\n")


def gone(region, *keys) -> None:
    """Waits until a region has none of these keys."""
    with Wire(port(region)) as wire:
        for key in keys:
            until(lambda: wire.get(key) is None, f"{key} gone from {region.name}")


def unacknowledged(east) -> int:
    """How many messages of east's stream west has been given, and has not settled."""
    return raw_nats.request(east.nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["num_ack_pending"]


def heals(cluster, *, key: str) -> None:
    """Waits until a delete works in each region and is heard in the other."""
    for here, there in (("east", "west"), ("west", "east")):
        fill(cluster[there], key)

        def deleted() -> bool:
            delete(cluster[here], key)
            return True
        until(deleted, f"deletes in {here}")
        gone(cluster[there], key)


# ---- sidecars

def test_sidecars_of_a_region_share_the_work(east, west):
    """Each event is applied once, by either."""
    keys = [f"share{i}" for i in range(2000)]
    fill(west, *keys[:100])
    growth = Growth(*west.outriggers)
    with Wire(east.outriggers[0].port) as wire:
        # One at a time is one message each; a pipeline would be batched.
        for key in keys[:300]:
            assert wire.delete(key) == b"NOT_FOUND\r\n"
        wire.send(b"".join(b"delete %s\r\n" % k.encode() for k in keys[300:]))
        assert wire.read(11 * 1700) == b"NOT_FOUND\r\n" * 1700
    growth.reaches(2000, "outrigger_bus_applied_total")
    assert growth.of("outrigger_bus_applied_total") == growth.of("outrigger_bus_received_total") == 2000
    gone(west, *keys[:100])


def test_one_of_two_sidecars_is_killed(east, west):
    """The other one does all the work, after ack_wait also what the dead one had been given."""
    keys = [f"survive{i}" for i in range(200)]
    fill(west, *keys)
    west.outriggers[0].kill()
    delete(east, *keys)
    gone(west, *keys)


def test_sidecars_away_while_events_come(east, west):
    """The whole region's sidecars are down; what came meanwhile is applied once one is back."""
    keys = [f"away{i}" for i in range(50)]
    fill(west, *keys)
    for sidecar in west.outriggers:
        sidecar.kill()
    delete(east, *keys)
    assert any(sees(node.port, keys[0]) for node in west.nodes)
    west.outriggers[1].start()
    gone(west, *keys)


def test_sidecar_killed_with_events_not_acknowledged(east, west):
    """It has been given events, and can not apply them as its node does not answer; killed then, it leaves them to the one that is restarted."""
    keys = [f"unacked{i}" for i in range(40)]
    fill(west, *keys)
    west.outriggers[1].stop()
    held = west.outriggers[0]  # a node that is frozen still reads what was sent to it, so that it is the applied events that tell
    growth = Growth(held)
    for node in west.nodes:
        node.process.pause()
    delete(east, *keys)
    growth.reaches(40, "outrigger_bus_received_total")
    held.kill()
    assert unacknowledged(east) > 0
    for node in west.nodes:
        node.process.resume()
    held.start()
    until(lambda: held.metrics().total("outrigger_bus_applied_total", peer="east") >= 40, "all being delivered again, and applied")
    until(lambda: unacknowledged(east) == 0, "all being acknowledged")
    gone(west, *keys)


def test_sigterm_with_events_under_way(east, west):
    """A sidecar that ends in order loses none either."""
    keys = [f"orderly{i}" for i in range(500)]
    fill(west, *keys)
    with Wire(east.outrigger.port) as wire:
        wire.send(b"".join(b"delete %s\r\n" % k.encode() for k in keys))
        assert west.outriggers[0].stop() == 0
        wire.read(11 * 500)
    gone(west, *keys)


# ---- nodes

@pytest.mark.parametrize("how", ["paused", "killed"])
def test_home_node_of_the_other_region_is_away(east, west, how):
    """The event is not acknowledged until the node has it; those for the other node are."""
    keys = [f"node-{how}-{i}" for i in range(40)]
    fill(west, *keys)
    node, other = west.nodes
    kept = [k for k in keys if sees(node.port, k)]
    assert 0 < len(kept) < 40
    growth = Growth(*west.outriggers)
    if how == "paused":
        node.process.pause()
    else:
        node.kill()
    delete(east, *keys)
    until(lambda: not any(sees(other.port, k) for k in keys), "those of the other node being gone")
    growth.reaches(1, "outrigger_bus_apply_failed_total", peer="east")
    assert unacknowledged(east) > 0
    if how == "paused":
        node.process.resume()
        until(lambda: not any(sees(node.port, k) for k in keys), "the others, too")
    else:
        node.start()
    growth.reaches(40, "outrigger_bus_applied_total", peer="east")
    until(lambda: unacknowledged(east) == 0, "all being acknowledged")


def test_delete_while_the_own_node_is_away(east, west):
    """Not changed here, so not told to the others as if it were: the client has to send it again."""
    fill(east, *[f"own{i}" for i in range(20)])
    node = east.nodes[0]
    lost = next(f"own{i}" for i in range(20) if sees(node.port, f"own{i}"))
    fill(west, lost)
    node.kill()
    with Wire(east.outrigger.port) as wire:
        until(lambda: wire.delete(lost).startswith(b"SERVER_ERROR node"), "the node being away")
    node.start()
    until(lambda: delete(east, lost) or True, "the node being back")
    gone(west, lost)


# ---- NATS

def test_own_nats_killed(cluster, east, west):
    """Hits, misses and fills go on; a delete is made here, and answered SERVER_ERROR as nobody else could be told."""
    fill(east, "own-killed", "untouched")
    fill(west, "own-killed")
    east.nats.kill()
    with Wire(east.outrigger.port) as wire:
        until(lambda: b"not connected" in wire.ask(b"delete gone\r\n"), "the connection being lost")
        assert wire.get("untouched") == b"1" and wire.set("new", b"1") == b"STORED\r\n" and wire.get("version:p1") == b"v1"
        assert wire.delete("own-killed") == (
            b"SERVER_ERROR changed in this region, but the other regions could not be told: bus: not connected; send it again\r\n")
        assert wire.get("own-killed") is None
        assert sees(west.outrigger.port, "own-killed") == b"1"
        east.nats.start()
        until(lambda: wire.delete("own-killed") == b"NOT_FOUND\r\n", "the delete, sent again")
    gone(west, "own-killed")
    heals(cluster, key="after-own-killed")


def test_own_nats_frozen(cluster, east, west):
    """The same within publish_timeout; and what NATS had been given before it froze is not lost."""
    fill(east, "frozen", "untouched")
    fill(west, "frozen")
    growth = Growth(*east.outriggers)
    east.nats.process.pause()
    with Wire(east.outrigger.port) as wire, Wire(east.outrigger.port) as other:
        wire.send(b"delete frozen\r\n")
        until(lambda: other.get("frozen") is None, "the delete in this region")
        assert other.get("untouched") == b"1" and other.get("version:p2") == b"v2"
        assert wire.line().startswith(b"SERVER_ERROR changed in this region, but the other regions could not be told: bus: ")
    assert growth.of("outrigger_bus_publish_failed_total") == 1
    assert growth.of("outrigger_errors_total", source="bus", error="timeout") == 1
    east.nats.process.resume()
    heals(cluster, key="after-frozen")


def test_pending_deletes_survive_a_short_freeze(cluster, east, west):
    """Shorter than publish_timeout: every delete is acknowledged, and heard."""
    keys = [f"short{i}" for i in range(300)]
    fill(west, *keys)
    growth = Growth(east.outrigger)
    with Wire(east.outrigger.port) as wire:
        east.nats.process.pause()
        wire.send(b"".join(b"delete %s\r\n" % k.encode() for k in keys))
        growth.reaches(1, "outrigger_requests_total", command="delete")
        east.nats.process.resume()
        answers = [wire.line() for _ in keys]
    assert set(answers) == {b"NOT_FOUND\r\n"}
    gone(west, *keys)


def test_nats_of_the_other_region_killed(cluster, east, west):
    """Ours carries what we say, and theirs what they say: east's deletes are heard in west while west's NATS is away."""
    west.nats.kill()
    until(lambda: east.outrigger.http("GET", "/readyz")[0] == 503, "east noticing")
    assert "west: not connected" in east.outrigger.http("GET", "/readyz")[1]
    fill(west, "peer-killed")
    delete(east, "peer-killed")
    gone(west, "peer-killed")
    with Wire(west.outrigger.port) as wire:
        assert wire.delete("x").startswith(b"SERVER_ERROR changed in this region")
    west.nats.start()
    heals(cluster, key="after-peer-killed")


def test_nats_restarted_with_a_backlog(cluster, east, west):
    """What was acknowledged is on disk: west's sidecars are away, east's NATS is killed and back, and the events are still there."""
    keys = [f"backlog{i}" for i in range(200)]
    fill(west, *keys)
    for sidecar in west.outriggers:
        sidecar.kill()
    delete(east, *keys)
    east.nats.restart()
    west.outriggers[1].start()
    gone(west, *keys)
    west.outriggers[0].start()
    heals(cluster, key="after-backlog")


def test_nats_that_lost_its_store(cluster, east, west):
    """Stream and consumers are made again; from then on everything is heard."""
    east.nats.lose_store()
    east.nats.start()
    heals(cluster, key="after-lost")
    keys = [f"lost{i}" for i in range(100)]
    fill(west, *keys)
    delete(east, *keys)
    gone(west, *keys)


def test_all_nats_killed_and_back(cluster, east, west):
    for region in (east, west):
        region.nats.kill()
    with Wire(east.outrigger.port) as wire:
        until(lambda: b"not connected" in wire.ask(b"delete k\r\n"), "the connection being lost")
        assert wire.set("alone", b"1") == b"STORED\r\n" and wire.get("alone") == b"1" and wire.get("version:p3") == b"v3"
    for region in (east, west):
        region.nats.start()
    heals(cluster, key="after-all")


def test_through_namespace_across_an_outage(cluster, east, west):
    """A row changes while west can not hear of it; west serves the old one until then, and the new one after that without anybody's help."""
    name = "outage"
    cluster.primary.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (name,), SCHEMA)
    key = "version:" + name
    assert sees(west.outrigger.port, key) == b"old"
    for sidecar in west.outriggers:
        sidecar.kill()
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE name = %s", (name,), SCHEMA)
    delete(east, key)
    for sidecar in west.outriggers:
        sidecar.start("listening")
    until(lambda: sees(west.outrigger.port, key) == b"new", "west serving the new row")
    for sidecar in west.outriggers:
        assert sees(sidecar.port, key) == b"new"
        assert "could not be applied" not in log_of(sidecar).split("receiving the invalidations")[-1]
