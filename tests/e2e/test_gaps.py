"""A bus that loses invalidations says so and acts: what a region may have missed is not served from its cache any more, and what its own stream
had acknowledged is published again. Two regions, a sidecar and a node each."""

import base64
import json
import shutil
from typing import Optional

import pytest

import raw_nats
from local.cluster import Cluster
from support import Growth, Wire, heal, log_of, sees, until

GAPS = "outrigger_bus_gaps_total"
RESENT = "outrigger_bus_resent_total"
APPLIED = "outrigger_bus_applied_total"


@pytest.fixture(scope="module")
def cluster(watch, directory):
    with Cluster(directory, nodes=1, database=False, config={"bus": {"stream_max_bytes": "1MiB", "publish_timeout": "10s"}}) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(cluster):
    yield
    heal(cluster)


def fill(region, *keys: str) -> None:
    with Wire(region.outrigger.port) as wire:
        for key in keys:
            assert wire.set(key, b"1") == b"STORED\r\n"
            assert wire.get(key) == b"1"


def delete(region, *keys: str) -> None:
    with Wire(region.outrigger.port) as wire:
        for key in keys:
            assert wire.delete(key) in (b"DELETED\r\n", b"NOT_FOUND\r\n")


def get(region, key: str) -> Optional[bytes]:
    with Wire(region.outrigger.port) as wire:
        return wire.get(key)


def stream(region, name: str = "") -> dict:
    return raw_nats.request(region.nats.port, f"$JS.API.STREAM.INFO.{name or 'INVAL_' + region.name}")


def mark(region, origin: str) -> dict:
    """What a region has noted about an origin's stream; {} if nothing."""
    message = raw_nats.message(region.nats.port, f"KV_CURSOR_{region.name}", {"last_by_subj": f"$KV.CURSOR_{region.name}.{origin}"})
    return json.loads(base64.b64decode(message["data"])) if message else {}


def note(east, west) -> dict:
    """Waits until west has noted that it has applied all of east's stream."""
    def all_noted() -> Optional[dict]:
        noted, there = mark(west, "east"), stream(east)
        is_all = noted.get("created") == there["created"] and noted["seq"] == there["state"]["last_seq"]
        return noted if is_all else None
    return until(all_noted, "west to note what it has applied", 30)


def wrap(east) -> None:
    """Publishes more in east than its stream keeps."""
    last = stream(east)["state"]["last_seq"]
    with Wire(east.outrigger.port) as wire:
        while stream(east)["state"]["first_seq"] <= last + 1:
            wire.send(b"".join(b"delete %s%06d\r\n" % (b"w" * 200, i) for i in range(2000)))
            assert wire.read(len(b"NOT_FOUND\r\n") * 2000) == b"NOT_FOUND\r\n" * 2000


# ---- a stream that has dropped what a region had not had

def test_origin_stream_wraps_while_a_region_is_away(east, west):
    delete(east, "first")
    note(east, west)
    fill(west, "wrap:1", "wrap:2")
    west.outrigger.stop()
    delete(east, "wrap:1")
    wrap(east)
    assert sees(west.nodes[0].port, "wrap:1") == b"1"
    west.outrigger.start()
    assert get(west, "wrap:1") is None
    assert get(west, "wrap:2") is None  # nobody knows that it was not invalidated
    assert west.outrigger.metrics().total(GAPS, peer="east") == 1
    assert "has dropped messages that this region has not had" in log_of(west.outrigger)
    fill(west, "wrap:3")
    delete(east, "wrap:3")
    until(lambda: get(west, "wrap:3") is None, "events to be applied as ever")
    note(east, west)


def test_no_gap_is_seen_where_there_is_none(east, west):
    """Sidecars and servers are restarted, with events in between; the streams and the notes are still there."""
    delete(east, "first")
    note(east, west)
    fill(west, "kept", "away")
    west.outrigger.stop()
    delete(east, "away")
    east.nats.restart()
    west.nats.restart()
    west.outrigger.start()
    until(lambda: get(west, "away") is None, "what came meanwhile to be applied")
    note(east, west)
    assert west.outrigger.metrics().total(GAPS) == 0
    assert get(west, "kept") == b"1"


def test_a_consumer_that_vanished_begins_where_the_region_is(east, west):
    """Neither at the first message there is, nor at the next that comes."""
    delete(east, *(f"before{i}" for i in range(20)))
    noted = note(east, west)
    fill(west, "vanish")
    west.outrigger.stop()
    assert raw_nats.request(east.nats.port, "$JS.API.CONSUMER.DELETE.INVAL_east.to_west")["success"]
    delete(east, "vanish")
    west.outrigger.start()
    until(lambda: get(west, "vanish") is None, "what came before there was a consumer to be applied")
    config = raw_nats.request(east.nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["config"]
    assert config["deliver_policy"] == "by_start_sequence"
    assert noted["seq"] < config["opt_start_seq"] <= stream(east)["state"]["last_seq"]
    assert west.outrigger.metrics().total(GAPS) == 0


# ---- servers that lose what they had

def test_origin_loses_its_store(east, west):
    """What east's stream had acknowledged comes again; west has got it before, or not, and trusts nothing that it has."""
    delete(east, "first")
    note(east, west)
    fill(west, "lost:1", "lost:2")
    west.outrigger.stop()
    growth = Growth(east.outrigger)
    delete(east, "lost:1")
    created = stream(east)["created"]
    east.nats.lose_store()
    east.nats.start()
    growth.reaches(1, RESENT)
    until(lambda: stream(east).get("created", created) != created, "the stream to be there again")
    west.outrigger.start()
    assert get(west, "lost:1") is None
    assert west.outrigger.metrics().total(GAPS, peer="east") == 1
    until(lambda: west.outrigger.metrics().total(APPLIED, peer="east") >= 1, "what was published again to be applied")
    assert note(east, west)["created"] == stream(east)["created"]
    delete(east, "later")
    note(east, west)


def test_origin_loses_its_store_under_everybody(east, west):
    """Nobody is restarted."""
    delete(east, "first")
    note(east, west)
    fill(west, "under:1")
    seen, resent = Growth(west.outrigger), Growth(east.outrigger)
    east.nats.lose_store()
    east.nats.start()
    seen.reaches(1, GAPS, peer="east")
    resent.reaches(1, RESENT)
    until(lambda: get(west, "under:1") is None, "what may be stale to be hidden")
    note(east, west)
    west.outrigger.wait("ready")
    fill(west, "under:2")
    delete(east, "under:2")
    until(lambda: get(west, "under:2") is None, "events to be applied as ever")


def lose_the_last_writes(nats, copy) -> None:
    """As a host that loses power does: the store is what it was when it was last synced."""
    nats.kill()
    shutil.rmtree(nats.directory / "store")
    shutil.copytree(copy, nats.directory / "store")
    nats.start()


def sync(nats, copy) -> None:
    nats.process.stop()
    shutil.copytree(nats.directory / "store", copy)
    nats.start()


def test_origin_loses_its_last_writes(east, west, tmp_path):
    """The region that had not had them gets them: there is no gap."""
    delete(east, "first")
    note(east, west)
    fill(west, "tail:1", "tail:2", "tail:kept")
    west.outrigger.stop()
    sync(east.nats, tmp_path / "synced")
    last = stream(east)["state"]["last_seq"]
    growth = Growth(east.outrigger)
    until(lambda: delete(east, "tail:1") is None, "the bus of east to be there")
    delete(east, "tail:2")
    lose_the_last_writes(east.nats, tmp_path / "synced")
    growth.reaches(2, RESENT)
    assert stream(east)["state"]["last_seq"] >= last + 2
    west.outrigger.start()
    for key in "tail:1", "tail:2":
        until(lambda: get(west, key) is None, f"{key} to be gone")
    assert get(west, "tail:kept") == b"1"
    assert west.outrigger.metrics().total(GAPS) == 0


def test_origin_loses_writes_that_a_region_has_had(east, west, tmp_path):
    """The numbers that it knows are given to other messages: it trusts neither them nor its consumer."""
    delete(east, "first")
    note(east, west)
    east.outrigger.wait("ready")
    sync(east.nats, tmp_path / "synced")
    east.outrigger.wait("ready")
    until(lambda: delete(east, *(f"had{i}" for i in range(10))) is None, "the bus of east to be there")
    note(east, west)
    fill(west, "had:1", "had:2")
    west.outrigger.stop()
    east.outrigger.stop()  # with what it remembers
    lose_the_last_writes(east.nats, tmp_path / "synced")
    east.outrigger.start()
    delete(east, "had:1")
    last = stream(east)["state"]["last_seq"]
    assert mark(west, "east")["seq"] > last
    west.outrigger.start()
    assert get(west, "had:1") is None
    assert west.outrigger.metrics().total(GAPS, peer="east") == 1
    fill(west, "had:3")
    delete(east, "had:3")  # a number that had been acknowledged in the old life of the stream
    assert stream(east)["state"]["last_seq"] == last + 1
    until(lambda: get(west, "had:3") is None, "the reused numbers to be delivered")
    note(east, west)


def test_origin_loses_writes_and_fills_up_again(east, west, tmp_path):
    """No number tells; the time of the message that west has noted does."""
    delete(east, "first")
    note(east, west)
    sync(east.nats, tmp_path / "synced")
    east.outrigger.wait("ready")
    until(lambda: delete(east, *(f"full{i}" for i in range(5))) is None, "the bus of east to be there")
    noted = note(east, west)
    fill(west, "full:1")
    west.outrigger.stop()
    east.outrigger.stop()
    lose_the_last_writes(east.nats, tmp_path / "synced")
    east.outrigger.start()
    delete(east, "full:1", *(f"more{i}" for i in range(20)))
    assert stream(east)["state"]["last_seq"] > noted["seq"]
    west.outrigger.start()
    assert get(west, "full:1") is None
    assert west.outrigger.metrics().total(GAPS, peer="east") == 1
    assert "was filled with others" in log_of(west.outrigger)
    note(east, west)


def test_own_nats_loses_its_store(east, west):
    """West does not know any more what it has applied."""
    delete(east, "first")
    note(east, west)
    fill(west, "own:1")
    growth = Growth(west.outrigger)
    west.nats.lose_store()
    west.nats.start()
    growth.reaches(1, GAPS, peer="east")
    until(lambda: get(west, "own:1") is None, "what may be stale to be hidden")
    note(east, west)
    west.outrigger.wait("ready")
    fill(west, "own:2")
    delete(east, "own:2")
    until(lambda: get(west, "own:2") is None, "events to be applied as ever")
    assert growth.of(GAPS, peer="east") == 1
