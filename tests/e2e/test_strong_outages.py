"""Strong namespaces while something is away: writes go on without the region that is cut off, and nobody reads what was before an acknowledged write, then or when it is back.

Two sidecars in each of three regions. Each test begins with everything in order, and puts it in order again.
"""

import json

import pytest

from local import schema
from local.cluster import Cluster
from support import DEADLINE, Outrigger, Wire, heal, in_threads, log_of, sees, sets, until, wait

SCHEMA = "outrigger"
REGIONS = ("east", "west", "north")
LONG = 60.0  #: for what takes several lease and lock times on a busy machine
CONFIG = {
    "max_clock_skew": "100ms",
    "database": {"timeout": "4500ms"},
    "strong": {"lease": "1s", "lock_window": "5s", "prepare_timeout": "1500ms"},
    "namespaces": [
        {"prefix": "s:", "read": "through", "write": "through", "consistency": "strong", "source": "entries"},
        {"prefix": "a:", "read": "through", "consistency": "strong", "source": {"table": "packages", "key_column": "name", "value_column": "version"}},
        {"prefix": "e:", "read": "through", "write": "through", "source": "entries"},
    ],
}


def _prepare(db):
    db.query("CREATE TABLE packages (name VARCHAR(200) PRIMARY KEY, version VARCHAR(100))", database=SCHEMA)
    schema.create(db, SCHEMA)


@pytest.fixture(scope="module")
def running(watch, directory):
    with Cluster(directory, regions=REGIONS, nodes=2, outriggers=2, config=CONFIG, prepare=_prepare) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    heal(running)
    yield running
    heal(running)


def sidecars(cluster):
    return [sidecar for name in REGIONS for sidecar in cluster[name].outriggers]


def gauge(sidecar, name, **labels):
    return sidecar.metrics().total(f"outrigger_strong_{name}", **labels)


def leases(sidecar):
    """What /regions says of every region's lease."""
    regions = json.loads(sidecar.http("GET", "/regions")[1])["regions"]
    return {region["region"]: region["strong"] for region in regions}


def is_well(sidecar):
    """A sidecar may be late with what it says of itself: nobody asserts that of a moment."""
    found = leases(sidecar).values()
    return len(found) == 3 and all(lease["lease"] == "ready" and lease["is_vote"] and not lease["is_suspended"] for lease in found)


def holder_of(region):
    return until(lambda: next((s for s in region.outriggers if gauge(s, "holder") == 1), None), "a holder", LONG)


def other_than_holder(region):
    holder = holder_of(region)
    return next(s for s in region.outriggers if s is not holder)


def cached(sidecar, key, value):
    """Reads until it is a hit."""
    def hits():
        before = sidecar.metrics()
        assert sees(sidecar.port, key) == value
        return sidecar.metrics().since(before).total("outrigger_hits_total") == 1
    until(hits, f"{key} being cached in {sidecar.process.name}", LONG)


def all_see(cluster, key, value, but=()):
    return {s.process.name: sees(s.port, key) for s in sidecars(cluster) if s not in but} == {
        s.process.name: value for s in sidecars(cluster) if s not in but}


def serves(sidecar):
    until(lambda: gauge(sidecar, "serves") == 1, f"{sidecar.process.name} serving strong hits", LONG)


def test_all_is_well(cluster):
    assert sets(cluster["east"].outrigger.port, "s:well", b"1") == b"STORED\r\n"
    assert all_see(cluster, "s:well", b"1")
    for sidecar in sidecars(cluster):
        until(lambda s=sidecar: is_well(s), f"{sidecar.process.name}: all ready", LONG)
    for name in REGIONS:
        until(lambda n=name: sorted(gauge(s, "holder") for s in cluster[n].outriggers) == [0, 1], f"one holder in {name}", LONG)


def test_patterns(cluster):
    """Answered once no sidecar of any region serves what it hides."""
    for i in range(5):
        cluster.primary.query("REPLACE INTO packages VALUES ('p', %s)", (str(i),), SCHEMA)
        with Wire(cluster["north"].outrigger.port) as wire:
            assert wire.delete("a:p") == b"DELETED\r\n"
        for sidecar in sidecars(cluster):
            cached(sidecar, "a:p", b"%d" % i)
        cluster.primary.query("REPLACE INTO packages VALUES ('p', %s)", (f"new{i}",), SCHEMA)
        status, text = sidecars(cluster)[i].http("POST", "/invalidate", body={"patterns": ["a:*"]}, timeout=20)
        assert status == 200, text
        assert all_see(cluster, "a:p", b"new%d" % i)


def test_patterns_and_a_sidecar_that_is_paused(cluster):
    """Its share has run out by the time of the answer: when it goes on it does not serve what it had."""
    cluster.primary.query("REPLACE INTO packages VALUES ('q', 'old')", database=SCHEMA)
    paused = other_than_holder(cluster["north"])
    for sidecar in sidecars(cluster):
        cached(sidecar, "a:q", b"old")
    paused.process.pause()
    cluster.primary.query("REPLACE INTO packages VALUES ('q', 'new')", database=SCHEMA)
    status, text = cluster["east"].outrigger.http("POST", "/invalidate", body={"patterns": ["a:q*"]}, timeout=20)
    assert status == 200, text
    assert all_see(cluster, "a:q", b"new", but=(paused,))
    paused.process.resume()
    assert sees(paused.port, "a:q") == b"new"
    assert not leases(cluster["east"].outrigger)["north"]["is_suspended"]


def test_a_sidecar_stands_still(cluster):
    """Another of its region locks for it: the region is not left out. What the paused one has in its buffers harms nobody when it goes on."""
    paused = other_than_holder(cluster["north"])
    keys = [f"s:still-{i}" for i in range(20)]
    for key in keys:
        assert sets(cluster["west"].outrigger.port, key, b"old") == b"STORED\r\n"
        cached(paused, key, b"old")
    number = leases(cluster["east"].outrigger)["north"]["number"]
    paused.process.pause()
    for i, key in enumerate(keys):
        assert sets(cluster["east"].outriggers[i % 2].port, key, b"new") == b"STORED\r\n"
    assert leases(cluster["east"].outrigger)["north"]["number"] == number
    paused.process.resume()
    for key in keys:
        assert sees(paused.port, key) == b"new"


def test_a_holder_is_killed(cluster):
    """Another of its region takes over; nothing was written meanwhile, so the region need not come back."""
    region = cluster["west"]
    killed = holder_of(region)
    other = next(s for s in region.outriggers if s is not killed)
    number = leases(other)["west"]["number"]
    assert sets(cluster["east"].outrigger.port, "s:taken", b"1") == b"STORED\r\n"
    cached(other, "s:taken", b"1")
    killed.kill()
    until(lambda: gauge(other, "holder") == 1, "another holder", LONG)
    serves(other)
    assert leases(other)["west"]["number"] == number
    cached(other, "s:taken", b"1")
    assert sets(cluster["east"].outrigger.port, "s:taken", b"2") == b"STORED\r\n"
    assert sees(other.port, "s:taken") == b"2"


def test_a_region_whose_nats_is_paused(cluster):
    """It is left out after prepare_timeout and a lease; it serves no hit that is false, and comes back by itself."""
    north = cluster["north"].outrigger
    assert sets(cluster["east"].outrigger.port, "s:cut", b"old") == b"STORED\r\n"
    for sidecar in sidecars(cluster):
        cached(sidecar, "s:cut", b"old")
    cluster["north"].nats.process.pause()
    assert sets(cluster["east"].outrigger.port, "s:cut", b"new") == b"STORED\r\n"
    assert all_see(cluster, "s:cut", b"new")
    assert gauge(north, "serves") == 0

    def is_left_out():  # at first its holder may come back at once, as it can reach the voters
        assert sets(cluster["east"].outrigger.port, "s:cut", b"new") == b"STORED\r\n"
        return leases(cluster["east"].outrigger)["north"]["is_suspended"]
    until(is_left_out, "north being left out", LONG)
    for i in range(5):  # and now it is known
        assert sets(cluster["west"].outrigger.port, "s:cut", b"%d" % i) == b"STORED\r\n"
        assert all_see(cluster, "s:cut", b"%d" % i)
    cluster["north"].nats.process.resume()
    serves(north)
    until(lambda: not leases(cluster["east"].outrigger)["north"]["is_suspended"], "north being asked again", LONG)
    assert sees(north.port, "s:cut") == b"4"
    cached(north, "s:cut", b"4")
    assert sets(cluster["east"].outrigger.port, "s:cut", b"back") == b"STORED\r\n"
    assert all_see(cluster, "s:cut", b"back")


def test_a_region_whose_nats_has_lost_its_store(cluster):
    assert sets(cluster["east"].outrigger.port, "s:lost", b"old") == b"STORED\r\n"
    for sidecar in sidecars(cluster):
        cached(sidecar, "s:lost", b"old")
    cluster["west"].nats.lose_store()
    assert sets(cluster["east"].outrigger.port, "s:lost", b"new") == b"STORED\r\n"
    assert all_see(cluster, "s:lost", b"new")
    cluster["west"].nats.start()
    serves(cluster["west"].outrigger)
    assert sets(cluster["west"].outrigger.port, "s:lost", b"newer") == b"STORED\r\n"
    assert all_see(cluster, "s:lost", b"newer")


def test_no_majority(cluster):
    """Strong writes fail, strong reads are the primary's, eventual namespaces go on."""
    east = cluster["east"].outrigger
    assert sets(east.port, "s:few", b"1") == b"STORED\r\n"
    cached(east, "s:few", b"1")
    cluster["west"].nats.kill()
    cluster["north"].nats.kill()
    until(lambda: gauge(east, "votes") == 1, "two voters being missed", LONG)
    until(lambda: gauge(east, "serves") == 0, "the lease running out", LONG)
    reply = sets(east.port, "s:few", b"2")
    assert reply.startswith(b"SERVER_ERROR") and b"no majority of the voters" in reply
    assert all_see(cluster, "s:few", b"1")
    assert sets(east.port, "e:few", b"2") == b"STORED\r\n"
    assert sees(east.port, "e:few") == b"2"
    cluster["west"].nats.start()
    serves(east)
    assert sets(east.port, "s:few", b"3") == b"STORED\r\n"
    assert all_see(cluster, "s:few", b"3")


def test_a_node_is_killed(cluster):
    """Its region is left out, and comes back when the node does: a lock can not be put where nobody is."""
    north = cluster["north"]
    keys = [f"s:node-{i}" for i in range(8)]  # on both nodes
    for key in keys:
        assert sets(cluster["east"].outrigger.port, key, b"old") == b"STORED\r\n"
        cached(north.outrigger, key, b"old")
    north.nodes[0].kill()
    for key in keys:
        assert sets(cluster["east"].outrigger.port, key, b"new") == b"STORED\r\n"
        assert all_see(cluster, key, b"new")
    north.nodes[0].start()
    serves(north.outrigger)
    for key in keys:
        assert sees(north.outrigger.port, key) == b"new"


def test_a_node_that_comes_back_empty_in_the_middle_of_a_write(cluster):
    """The lock is gone with it. Who reads then must not store what was before the write."""
    assert sets(cluster["east"].outrigger.port, "s:empty", b"old") == b"STORED\r\n"
    for sidecar in sidecars(cluster):
        cached(sidecar, "s:empty", b"old")
    connection = cluster.primary.connect(SCHEMA)
    with connection.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT value FROM outrigger_entries WHERE cache_key = 's:empty' FOR UPDATE")
    with Wire(cluster["east"].outrigger.port) as writer:
        writer.send(b"set s:empty 0 0 3\r\nnew\r\n")

        def waits():
            return cluster.primary.query("SELECT COUNT(*) AS n FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")[0]["n"] > 0
        # InnoDB shows anew only what nobody has looked at for a tenth of a second.
        wait.until(waits, "the write waiting for the row", DEADLINE, pause=0.15, longest_pause=0.15)
        in_threads([node.restart for node in cluster["north"].nodes])
        assert in_threads([lambda s=s: sees(s.port, "s:empty") for s in cluster["north"].outriggers]) == [b"old"] * 2
        connection.close()
        assert writer.line() == b"STORED\r\n"
    assert all_see(cluster, "s:empty", b"new")


def test_a_sidecar_with_other_voters(cluster, directory):
    """It can not lock anything, and is told why; the others do not notice."""
    config = json.loads(json.dumps(cluster["east"].outrigger.config))
    config["strong"]["witnesses"] = [{"name": "witness", "url": cluster["west"].nats.url}]
    config.pop("admin", None)
    config.pop("listen", None)
    stranger = Outrigger(directory, config, name="stranger")
    try:
        stranger.start("listening")
        until(lambda: gauge(stranger, "votes") >= 3, "its voters", LONG)
        reply = sets(stranger.port, "s:other", b"1")
        assert reply.startswith(b"SERVER_ERROR") and b"its voters are not ours, or the clocks differ" in reply, reply
        until(lambda: any("its voters" in log_of(s) for s in sidecars(cluster)), "somebody saying so")
    finally:
        stranger.close()
    assert sets(cluster["east"].outrigger.port, "s:other", b"2") == b"STORED\r\n"
    assert all_see(cluster, "s:other", b"2")
