"""A database that hangs, dies, comes back, refuses connections, or hands the primary's role to another server."""

import pytest

from local.cluster import Cluster
from support import Growth, Wire, until
from through import NAMESPACES, Asking, Through, prepare


@pytest.fixture(scope="module")
def cluster(directory):
    """Two servers with the same rows, either of which may be the primary; the second is read-only at first."""
    cluster = Cluster(directory, regions=("west",), replica=True, prepare=prepare, config={
        "bus": None, "namespaces": NAMESPACES, "database": {"timeout": "2s", "connect_timeout": "1s", "heartbeat_writer": "off"}})
    sidecar = cluster["west"].outrigger
    sidecar.config["database"]["primary"] = [cluster.replica.address, cluster.primary.address]
    with cluster:
        yield cluster


@pytest.fixture(scope="module")
def west(cluster):
    return Through(cluster)


def loads(west, name):
    """The row, or None while it can not be loaded."""
    with Wire(west.port) as wire:
        try:
            return wire.get(f"version:{name}")
        except RuntimeError:
            return None


@pytest.fixture(autouse=True)
def healed(cluster, west):
    yield
    for server in (cluster.primary, cluster.replica):
        if not server.process.is_running:
            server.start()
        server.process.resume()
    cluster.replica.query("SET GLOBAL read_only = 1")
    cluster.primary.query("SET GLOBAL read_only = 0")
    until(lambda: loads(west, west.fresh()) == b"old", "loads after the test")


def connections(server) -> int:
    """The sidecar's."""
    return len(server.query("SELECT id FROM information_schema.processlist WHERE user = %s", (Cluster.user,)))


def test_the_writable_one_of_two_is_found(cluster, west):
    assert loads(west, west.fresh()) == b"old"
    until(lambda: connections(cluster.primary) == 4, "four connections to the primary")
    assert connections(cluster.replica) == 0


def test_a_primary_that_turns_read_only_is_left_for_the_other(cluster, west):
    name = west.fresh()
    cluster.replica.wait_for_gtid(cluster.primary.gtid())
    cluster.primary.query("SET GLOBAL read_only = 1")
    cluster.replica.query("SET GLOBAL read_only = 0")
    until(lambda: loads(west, name) == b"old", "a load from the other")
    until(lambda: connections(cluster.primary) == 0 and connections(cluster.replica) == 4, "all connections to the other")


def test_a_primary_that_dies_is_left_for_the_other(cluster, west):
    name = west.fresh()
    cluster.replica.wait_for_gtid(cluster.primary.gtid())
    cluster.primary.kill()
    cluster.replica.query("SET GLOBAL read_only = 0")
    until(lambda: loads(west, name) == b"old", "a load from the other")


def test_a_hanging_database_is_left_alone_and_returned_to(cluster, west):
    """The first misses end at their deadline, those that come then at once; back again, the herd is a few statements."""
    sidecar = west.region.outrigger
    names = [west.fresh() for _ in range(60)]
    with Wire(west.port) as wire:
        assert wire.get("version:p1") == b"v1"
        until(lambda: connections(cluster.primary) == 4, "all connections, so that it is not the lack of them that ends loads at once")
        cluster.primary.process.pause()
        growth = Growth(sidecar)
        first = [Asking(sidecar, f"version:{name}") for name in names[:8]]
        for asking in first:
            with pytest.raises(RuntimeError, match="SERVER_ERROR database: "):
                asking.answer()

        def is_open():  # loads that ended in the queue do not count; one that was asked for does
            with pytest.raises(RuntimeError, match="SERVER_ERROR database: "):
                wire.get("version:" + names[8])
            return growth.of("outrigger_database_breaker_opened_total", host="primary") >= 1
        until(is_open, "the circuit breaker is open")
        executed = growth.of("outrigger_database_queries_total")
        for name in names:
            with pytest.raises(RuntimeError, match="SERVER_ERROR database: "):
                wire.get(f"version:{name}")
        assert growth.of("outrigger_database_queries_total") - executed <= 4  # they were not asked for
        assert wire.get("version:p1") == b"v1"
    cluster.primary.process.resume()
    until(lambda: loads(west, west.fresh()) == b"old", "a load after the pause")
    growth = Growth(sidecar)
    herd = [Asking(sidecar, f"version:{name}") for name in names]
    assert [asking.answer() for asking in herd] == [b"old"] * 60
    assert sidecar.metrics().total("outrigger_database_connections") <= 4
    assert sidecar.metrics().total("outrigger_database_breaker_open") == 0


def test_killed_and_restarted(cluster, west):
    names = [west.fresh() for _ in range(20)]
    cluster.primary.kill()
    sidecar = west.region.outrigger
    until(lambda: sidecar.http("GET", "/readyz")[0] == 503, "/readyz")
    growth = Growth(sidecar)
    with Wire(west.port) as wire:
        for name in names:
            with pytest.raises(RuntimeError, match="SERVER_ERROR database: not connected"):
                wire.get(f"version:{name}")
        assert growth.of("outrigger_database_queries_total") == 0
        cluster.primary.start()
        until(lambda: loads(west, west.fresh()) == b"old", "a load after the restart")
        until(lambda: [wire.get(f"version:{name}") for name in names] == [b"old"] * 20, "all rows")


def test_refused_connections(cluster, west):
    """An account that may not connect any more."""
    name = west.fresh()
    cluster.primary.query("ALTER USER %s@'127.0.0.1' ACCOUNT LOCK", (Cluster.user,))
    try:
        cluster.primary.query("KILL USER %s@'127.0.0.1'", (Cluster.user,))
        until(lambda: west.region.outrigger.http("GET", "/readyz")[0] == 503, "/readyz")
        assert loads(west, name) is None
    finally:
        cluster.primary.query("ALTER USER %s@'127.0.0.1' ACCOUNT UNLOCK", (Cluster.user,))
    until(lambda: loads(west, name) == b"old", "a load once the account may connect")
