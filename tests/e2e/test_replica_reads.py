"""Loads from the region's replica: right under updates and lag, and the primary is asked for what the replica can not prove."""

import threading
import time

import pytest

from local.cluster import Cluster
from support import Growth, Wire, until, log_of
from through import NAMESPACES, SCHEMA, Through, _namespace, prepare

HEARTBEAT = [
    "CREATE TABLE outrigger_heartbeat (id TINYINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED NOT NULL, owner BIGINT UNSIGNED NOT NULL, "
    "beat_at DATETIME(6) NOT NULL) ENGINE=InnoDB",
    "INSERT INTO outrigger_heartbeat VALUES (1, 0, 0, '2000-01-01')",
]

#: A node that was connected to less than tombstone_ttl ago may have lost its tombstones, so until then everything is the primary's.
TTL_S = 6


def prepare_all(db):
    prepare(db)
    for statement in HEARTBEAT:
        db.query(statement, database=SCHEMA)


@pytest.fixture(scope="module")
def cluster(directory):
    # The sidecars' configuration needs the replica's port, which is known from the start.
    soon = _namespace("soon:", "packages", "name", "version", ttl="60s", refresh_ahead="10s", negative_ttl="5s")
    namespaces = [{**n, "tombstone_ttl": f"{TTL_S}s"} for n in [*NAMESPACES, soon]]
    cluster = Cluster(directory, regions=("west",), outriggers=2, replica=True, prepare=prepare_all, config={
        "bus": None, "namespaces": namespaces, "max_clock_skew": "100ms",
        "database": {"timeout": "3s", "max_replica_lag": "1500ms", "heartbeat_interval": "50ms"}})
    for outrigger in cluster["west"].outriggers:
        outrigger.config["database"]["replica"] = cluster.replica.address
    with cluster:
        yield cluster


@pytest.fixture(scope="module")
def west(cluster):
    through = Through(cluster)
    for sidecar in through.outriggers:
        def from_replica():
            growth = Growth(sidecar)
            for _ in range(8):  # by whichever worker, for whichever node
                with Wire(sidecar.port) as wire:
                    wire.get("version:" + through.fresh())
            return growth.of("outrigger_loads_by_host_total", host="replica") == 8
        until(from_replica, "loads from the replica only", 4 * TTL_S)
    return through


def by_host(growth):
    return [growth.of("outrigger_loads_by_host_total", host=host) for host in ("primary", "replica")]


def caught_up(cluster):
    cluster.replica.wait_for_gtid(cluster.primary.gtid())


def test_one_sidecar_writes_the_heartbeat(cluster, west):
    growth = [Growth(sidecar) for sidecar in west.outriggers]
    until(lambda: sum(g.of("outrigger_heartbeats_total") for g in growth) >= 10, "heartbeats")
    assert sorted(g.of("outrigger_heartbeats_total") > 0 for g in growth) == [False, True]


def test_misses_are_read_from_the_replica_and_cached(cluster, west):
    caught_up(cluster)
    growth = Growth(west.outriggers[0])
    with Wire(west.port) as wire:
        assert [wire.get(f"version:p{i}") for i in range(20)] == [b"v%d" % i for i in range(20)]
        assert wire.get("version:absent-at-the-replica") is None
        growth.reaches(21, "outrigger_fills_total", namespace="version")
        hosts = by_host(growth)  # a heartbeat that was late sends one or the other to the primary
        assert sum(hosts) == 21 and hosts[1] > 10
        assert [wire.get(f"version:p{i}") for i in range(20)] == [b"v%d" % i for i in range(20)]
    assert by_host(growth) == hosts
    assert growth.of("outrigger_replica_asof_age_seconds_count") >= hosts[1]


def test_what_was_just_invalidated_is_read_from_the_primary(cluster, west):
    name = west.fresh()
    caught_up(cluster)
    at_once = 0
    with Wire(west.port) as wire:
        for i in range(20):
            growth = Growth(west.outriggers[0])
            west.update(name, f"new{i}")
            began = time.monotonic()
            assert wire.delete(f"version:{name}") in (b"DELETED\r\n", b"NOT_FOUND\r\n")
            assert wire.get(f"version:{name}") == b"new%d" % i
            if time.monotonic() - began < 0.1:  # max_clock_skew: until then no heartbeat proves anything
                assert by_host(growth) == [1, 0]
                at_once += 1
    assert at_once


def test_a_stopped_replica_is_never_believed(cluster, west):
    """Its SQL thread stands still: what is invalidated is right at once, and after max_replica_lag it is not asked at all."""
    name, other = west.fresh(), west.fresh()
    caught_up(cluster)
    cluster.replica.query("STOP SLAVE SQL_THREAD")
    try:
        with Wire(west.port) as wire:
            west.update(name)
            wire.delete(f"version:{name}")
            assert wire.get(f"version:{name}") == b"new"
            assert wire.get(f"version:{name}") == b"new"
            west.update(other)
            wire.delete(f"version:{other}")
            growth = Growth(west.outriggers[0])

            def is_stale():
                wire.get("version:" + west.fresh())
                return growth.of("outrigger_replica_refused_total", reason="stale") >= 1
            until(is_stale, "a load refused because the replica lags")
            growth = Growth(west.outriggers[0])
            fresh = [west.fresh() for _ in range(10)]
            assert [wire.get(f"version:{f}") for f in fresh] == [b"old"] * 10  # the replica has none of them
            assert by_host(growth) == [10, 0]
            assert wire.get(f"version:{other}") == b"new"
    finally:
        cluster.replica.query("START SLAVE SQL_THREAD")
    caught_up(cluster)

    def is_back():
        growth = Growth(west.outriggers[0])
        with Wire(west.port) as wire:
            wire.get("version:" + west.fresh())
        return by_host(growth) == [0, 1]
    until(is_back, "the replica being used again")


def test_a_replica_that_is_down_or_hangs_costs_no_answer(cluster, west):
    for stop, go in ((cluster.replica.process.pause, cluster.replica.process.resume), (cluster.replica.kill, cluster.replica.start)):
        names = [west.fresh() for _ in range(12)]
        caught_up(cluster)
        stop()
        try:
            with Wire(west.port) as wire:
                assert [wire.get(f"version:{n}") for n in names] == [b"old"] * 12
        finally:
            go()

        def is_back():
            growth = Growth(west.outriggers[0])
            with Wire(west.port) as wire:
                wire.get("version:" + west.fresh())
            return by_host(growth) == [0, 1]
        until(is_back, "the replica being used again")


def test_readers_and_a_writer_with_a_delayed_replica(cluster, west):
    """The writer counts up, deletes after each commit, and from then on nobody may read less. The replica is a second behind."""
    cluster.replica.query("STOP SLAVE")
    cluster.replica.query("CHANGE MASTER TO MASTER_DELAY=1")
    cluster.replica.query("START SLAVE")
    names = [west.fresh() for _ in range(4)]
    for name in names:
        west.update(name, "0")
    done, wrong, counts = threading.Event(), [], [0] * 8
    acknowledged = dict.fromkeys(names, 0)
    growth = Growth(*west.outriggers)

    def read(reader):
        with Wire(west.outriggers[reader % 2].port) as wire:
            while not done.is_set():
                for name in names:
                    least = acknowledged[name]
                    value = wire.get(f"version:{name}")
                    counts[reader] += 1
                    if value is None or int(value) < least:
                        wrong.append((name, value, least))
    # The rows themselves reach the replica first.
    caught_up(cluster)
    with Wire(west.port) as wire:
        for name in names:
            wire.delete(f"version:{name}")
    readers = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for reader in readers:
        reader.start()
    try:
        with Wire(west.port) as wire:
            for i in range(1, 61):
                name = names[i % 4]
                west.update(name, str(i))
                assert wire.delete(f"version:{name}") in (b"DELETED\r\n", b"NOT_FOUND\r\n")
                acknowledged[name] = i
                wire.get("version:" + west.fresh())  # keeps the replica in use
    finally:
        done.set()
        for reader in readers:
            reader.join()
        cluster.replica.query("STOP SLAVE")
        cluster.replica.query("CHANGE MASTER TO MASTER_DELAY=0")
        cluster.replica.query("START SLAVE")
    assert not wrong, wrong[:5]
    assert min(counts) > 0
    primary, replica = by_host(growth)
    assert primary >= 60 and growth.of("outrigger_replica_refused_total") + primary + replica >= 120


def test_tombstones_that_were_flushed(cluster, west):
    """Somebody empties a node behind the sidecars' backs, tombstones and all: until its keys have lived long enough, the primary is asked."""
    name = west.fresh()
    key = "version:" + name
    caught_up(cluster)
    node = None
    with Wire(west.port) as wire:
        assert wire.get(key) == b"old"
        node = west.node_of(key)
        cluster.replica.query("STOP SLAVE SQL_THREAD")
        try:
            west.update(name)
            assert wire.delete(key) == b"DELETED\r\n"
            assert node.command(b"flush_all\r\n").startswith(b"OK")
            sidecar = west.outriggers[0]
            line = f"node {node.address}: it was flushed"
            until(lambda: log_of(sidecar).count(line) == sidecar.config["threads"], "every worker of the sidecar sees the flush")
            assert wire.get(key) == b"new"
        finally:
            cluster.replica.query("START SLAVE SQL_THREAD")


def _stays(cluster, west, wire, key, value):
    """No reader sees anything else for as long as an old entry could take to come back: the replica's row is old all the time."""
    node = west.nodes[0]

    def clock():
        with Wire(node.port) as mine:
            return int(next(line.split()[2] for line in mine.ask(b"stats\r\n", b"END\r\n").splitlines() if line.startswith(b"STAT time ")))
    end = clock() + 3
    while clock() < end:
        assert wire.get(key) == value


@pytest.fixture
def lagging(cluster, west):
    """The row has changed, the key was invalidated, and the replica does not know it yet."""
    caught_up(cluster)
    with Wire(west.port) as wire:
        yield wire
    cluster.replica.query("START SLAVE SQL_THREAD")


def _invalidated(cluster, west, wire, prefix, sql):
    name = west.fresh()
    caught_up(cluster)
    cluster.replica.query("STOP SLAVE SQL_THREAD")
    west.query(sql, (name,))
    assert wire.delete(prefix + name) == b"DELETED\r\n"
    return prefix + name


def test_absence_that_is_refreshed(cluster, west, lagging):
    """A negative entry near its end is no stub: what replaces it must not be older."""
    key = _invalidated(cluster, west, lagging, "soon:", "DELETE FROM packages WHERE name = %s")
    _stays(cluster, west, lagging, key, None)


def test_entry_that_expires_before_the_tombstone_would_have(cluster, west, lagging):
    key = _invalidated(cluster, west, lagging, "fleeting:", "UPDATE packages SET version = 'new' WHERE name = %s")
    _stays(cluster, west, lagging, key, b"new")


def test_entry_that_is_touched_away(cluster, west, lagging):
    for command in (b"touch %s -1\r\n", b"touch %s 1\r\n", b"gat -1 %s\r\n"):
        key = _invalidated(cluster, west, lagging, "version:", "UPDATE packages SET version = 'new' WHERE name = %s")
        assert lagging.get(key) == b"new"
        end = b"END\r\n" if command.startswith(b"gat") else b"TOUCHED\r\n"
        assert lagging.ask(command % key.encode(), end).endswith(end)
        _stays(cluster, west, lagging, key, b"new")
        cluster.replica.query("START SLAVE SQL_THREAD")
