"""An invalidation and the replica's row are both late, and meet at a reader who is just loading."""

import json

from local.cluster import Cluster
from raw_nats import publish
from support import Growth, Wire, until
from test_replica_reads import caught_up, prepare_all
from through import NAMESPACES, SCHEMA, Asking, Through

TTL_S = 9


def test_event_that_finds_a_reader_loading(watch, directory):
    """The reader's stub is newer than the event, but the row that it is about to be filled with is not."""
    namespaces = [{**n, "tombstone_ttl": f"{TTL_S}s"} for n in NAMESPACES]
    cluster = Cluster(directory, regions=("east", "west"), outriggers=1, replica=True, prepare=prepare_all, config={
        "namespaces": namespaces, "max_clock_skew": "100ms", "database": {"timeout": "3s", "max_replica_lag": "4s", "heartbeat_interval": "50ms"}})
    sidecar = cluster["west"].outrigger
    sidecar.config["database"]["replica"] = cluster.replica.address
    with cluster:
        west = Through(cluster)

        def reads_from_replica():
            growth = Growth(sidecar)
            with Wire(sidecar.port) as wire:
                wire.get("version:" + west.fresh())
            return growth.of("outrigger_loads_by_host_total", host="replica") == 1
        until(reads_from_replica, "the first load from the replica", 4 * TTL_S)
        key = "gated:" + west.fresh()
        caught_up(cluster)
        cluster.replica.query("STOP SLAVE SQL_THREAD")
        west.update(key.split(":")[1])
        row = west.query("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) AS ms")[0]
        version = int(row["ms"]) << 21
        gate = cluster.replica.connect(SCHEMA)
        with gate.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('gate', 30)")

            def is_newer():  # by more than the skew: what the event would leave alone, if it were an entry
                cursor.execute("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) AS ms")
                return cursor.fetchone()["ms"] > row["ms"] + 200
            until(is_newer, "the skew has passed")
        reader = Asking(sidecar, key)
        until(lambda: west.item(key), "the reader's stub")
        growth = Growth(sidecar)
        event = {"key": key, "version": str(version), "timestamp": row["ms"]}
        publish(cluster["east"].nats.port, ("outrigger.inval.east.key", json.dumps({"format": 1, "region": "east", "events": [event]}).encode()))
        growth.reaches(1, "outrigger_bus_applied_total")
        gate.close()
        assert reader.answer() in (b"old", b"new")  # it was asked before the event was there
        cluster.replica.query("START SLAVE SQL_THREAD")
        with Wire(sidecar.port) as wire:
            assert wire.get(key) == b"new"
