"""More messages of a newer version than a consumer hands out without an acknowledgement. Two regions, a sidecar and a node each."""

import pytest

import raw_nats
from local.cluster import Cluster
from support import Growth, Wire, until

GAPS = "outrigger_bus_gaps_total"


@pytest.fixture(scope="module")
def cluster(watch, directory):
    with Cluster(directory, nodes=1, database=False) as cluster:
        yield cluster


def test_a_flood_of_messages_of_a_newer_version(cluster):
    """What is understood still comes through. Those that there is no room for are covered by a rule, and gone; the others are kept for a newer
    sidecar."""
    east, west = cluster["east"], cluster["west"]
    growth = Growth(west.outrigger)

    def looked_at() -> float:
        return growth.of("outrigger_bus_malformed_total", peer="east")

    def pending() -> int:
        return raw_nats.request(east.nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["num_ack_pending"]
    with Wire(west.outrigger.port) as wire, Wire(east.outrigger.port) as origin:
        assert wire.set("flood:1", b"1") == b"STORED\r\n"
        for _ in range(22):
            raw_nats.publish(east.nats.port, *[("outrigger.inval.east.later", b"{}")] * 1000)
        assert wire.set("flood:2", b"1") == b"STORED\r\n"
        assert origin.delete("flood:2") == b"NOT_FOUND\r\n"
        until(lambda: growth.of("outrigger_bus_applied_total", peer="east") >= 1, "the event behind them", 60)
        assert wire.get("flood:2") is None
        until(lambda: growth.of(GAPS, peer="east") >= 1, "the gap", 60)
        until(lambda: looked_at() >= 22000, "all to be looked at", 60)
        until(lambda: pending() == 1600, "what is covered to be acknowledged", 60)
        assert wire.get("flood:1") is None  # it may be among what was covered
        assert wire.set("flood:3", b"1") == b"STORED\r\n"
        assert wire.get("flood:3") == b"1"
