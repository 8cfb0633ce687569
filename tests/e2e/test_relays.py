"""A few sidecars of a region are its relays: only they are connected to the peers' NATS. Whatever becomes of them, of the others and of the
region's own NATS, the peers' invalidations are applied. Two regions, three sidecars each."""

import http.client
import json
import socket
import threading
import time

import pytest

import raw_nats
from local import ports
from local.cluster import Cluster
from support import Wire, heal, log_of, until

RELAYS = 2


@pytest.fixture(scope="module")
def cluster(watch, directory):
    config = {"bus": {"ack_wait": "1s"}}
    cluster = Cluster(directory, regions=("east", "west"), nodes=1, outriggers=3, database=False, config=config)
    for region in cluster.regions.values():
        region.nats.http_port = ports.pick()
    with cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(cluster, west):
    """Every test begins with all of it there, and two relays."""
    heal(cluster)
    until(lambda: len(relays(west)) == RELAYS and connected(cluster["east"], "west") == RELAYS, "two relays", 60)


def is_relay(sidecar) -> bool:
    samples = sidecar.metrics()
    assert samples.total("outrigger_bus_connected", peer="east") <= samples.total("outrigger_bus_is_relay")
    return samples.total("outrigger_bus_is_relay") == 1


def relays(region) -> list:
    return [s for s in region.outriggers if s.process.is_running and is_relay(s)]


def connected(region, name: str) -> int:
    """How many sidecars of another region the NATS of this one says are connected."""
    connection = http.client.HTTPConnection("127.0.0.1", region.nats.http_port, timeout=5)
    try:
        connection.request("GET", "/connz")
        connections = json.load(connection.getresponse())["connections"]
    finally:
        connection.close()
    return sum(c.get("name") == f"outrigger {name}" for c in connections)


def arrives(east, west, key: str) -> None:
    """A delete in east is heard in west."""
    by = next(s for s in west.outriggers if s.process.is_running)
    with Wire(east.outrigger.port) as there, Wire(by.port) as here:
        assert here.set(key, b"1") == b"STORED\r\n"
        assert there.delete(key) == b"NOT_FOUND\r\n"
        until(lambda: here.get(key) is None, f"{key} gone from west")


def message(region, slot: int, role: str) -> dict:
    return raw_nats.message(region.nats.port, f"KV_ROLES_{region.name}", {"last_by_subj": f"$KV.ROLES_{region.name}.{role}.{slot}"})


def entry(region, slot: int, role: str = "relay") -> str:
    """Who has a slot, as the region's bucket says: "" for nobody."""
    return message(region, slot, role).get("data", "")


def test_only_relays_are_connected_to_a_peer(east, west):
    assert connected(east, "west") == RELAYS
    assert connected(east, "east") == 3
    (rest,) = [s for s in west.outriggers if s not in relays(west)]
    status, text = rest.http("GET", "/readyz")
    assert status == 200 and "not connected" not in text
    assert log_of(rest).rstrip().count("no relay: others receive for this region") >= 1
    assert len({entry(west, slot) for slot in range(RELAYS)}) == 2
    arrives(east, west, "plain")


def test_a_killed_relay_is_replaced(east, west):
    dead = relays(west)[0]
    dead.kill()
    arrives(east, west, "killed")  # by the other one, or after ack_wait
    until(lambda: len(relays(west)) == RELAYS, "another relay")
    until(lambda: connected(east, "west") == RELAYS, "it being connected")
    arrives(east, west, "replaced")


def test_both_relays_are_killed(east, west):
    with Wire(west.outriggers[0].port) as wire:
        assert wire.set("both", b"1") == b"STORED\r\n"
    for dead in relays(west):
        dead.kill()
    with Wire(east.outrigger.port) as wire:
        assert wire.delete("both") == b"NOT_FOUND\r\n"
    (rest,) = [s for s in west.outriggers if s.process.is_running]
    with Wire(rest.port) as wire:
        until(lambda: wire.get("both") is None, "the third having applied it")
    assert is_relay(rest)


def test_a_frozen_relay_is_replaced_and_finds_out(east, west):
    frozen = relays(west)[0]
    frozen.process.pause()
    others = [s for s in west.outriggers if s is not frozen]
    until(lambda: all(is_relay(s) for s in others), "another relay")
    frozen.process.resume()
    until(lambda: not is_relay(frozen), "it having noticed")
    until(lambda: connected(east, "west") == RELAYS, "it having let go")
    arrives(east, west, "thawed")


def test_an_orderly_end_gives_the_slot_back(east, west):
    leaving = relays(west)
    for sidecar in west.outriggers:
        if sidecar not in leaving:
            assert sidecar.stop() == 0
    before = {entry(west, slot) for slot in range(RELAYS)}
    assert "" not in before
    assert leaving[0].stop() == 0
    after = [entry(west, slot) for slot in range(RELAYS)]
    assert after.count("") == 1 and set(after) < before | {""}
    arrives(east, west, "left")


def test_who_sweeps_hands_over_too(west):
    """The region's sweeper is elected in the same way."""
    sweeps = "this sidecar sweeps the pool of its region"
    seen = message(west, 0, "sweeper")["seq"]  # perhaps of one that was killed by the test before: it can not give back anything
    until(lambda: message(west, 0, "sweeper")["seq"] != seen, "a renewal, or a successor", 40)
    counts = [log_of(s).count(sweeps) for s in west.outriggers]
    before = entry(west, 0, "sweeper")
    assert before != ""
    for sidecar in west.outriggers:
        assert sidecar.stop() == 0
    assert entry(west, 0, "sweeper") == ""
    for sidecar in west.outriggers:
        sidecar.start()
    until(lambda: entry(west, 0, "sweeper") not in ("", before), "one sweeping")
    until(lambda: sum(log_of(s).count(sweeps) for s in west.outriggers) > sum(counts), "it saying so")


def test_own_nats_away(east, west):
    """Relays go on receiving; who was none stays so while it does not last."""
    before = relays(west)
    west.nats.kill()
    arrives(east, west, "own-away")
    assert set(before) <= set(relays(west))


def test_own_nats_away_and_the_relays_too(east, west):
    """Nobody can be elected: the third stands in. It lets go when others are there again."""
    dead = relays(west)
    (rest,) = [s for s in west.outriggers if s not in dead]
    west.nats.kill()
    for sidecar in dead:
        sidecar.kill()
    until(lambda: is_relay(rest), "the third standing in")
    arrives(east, west, "stand-in")
    west.nats.start()
    for sidecar in dead:
        sidecar.start("listening")
    until(lambda: len(relays(west)) == RELAYS and connected(east, "west") == RELAYS, "two relays, and no more")
    arrives(east, west, "elected-again")


def test_own_nats_loses_its_disk(east, west):
    west.nats.lose_store()
    west.nats.start()
    arrives(east, west, "no-disk")
    until(lambda: len({entry(west, slot) for slot in range(RELAYS)} - {""}) == RELAYS, "both slots written anew", 60)
    until(lambda: len(relays(west)) == RELAYS, "two relays")


def test_every_sidecar(start, east, west):
    """relays: 0, and a NATS of the own region that was never there: nothing to be elected by, and nothing needed."""
    config = west.config([east], changes={"region": "north", "bus": {"url": f"nats://127.0.0.1:{ports.pick()}", "relays": 0}})
    sidecars = [start(config, "listening") for _ in range(2)]
    until(lambda: connected(east, "north") == 2, "both being connected to east")
    assert all(is_relay(s) for s in sidecars)


class Doorkeeper:
    """Accepts connections, closes them at once, and notes when they came."""

    def __init__(self):
        self.times = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.times.append(time.monotonic())
            connection.close()

    def close(self) -> None:
        self._listener.close()


def test_connections_to_peers_are_tried_again_with_pauses_and_jitter(start, west):
    """Nobody hammers servers that throw connections out, and attempts are not in step with each other."""
    doors = [Doorkeeper(), Doorkeeper()]
    peers = [{"region": f"south-{i}", "url": f"nats://127.0.0.1:{door.port}"} for i, door in enumerate(doors)]
    try:
        start({**west.config(), "region": "north", "bus": {"url": west.nats.url, "relays": 0, "peers": peers}}, "listening")
        until(lambda: all(len(door.times) >= 4 for door in doors), "four attempts at each")
    finally:
        for door in doors:
            door.close()
    pauses = [[later - earlier for earlier, later in zip(door.times, door.times[1:4])] for door in doors]
    assert min(map(min, pauses)) > 0.05, pauses  # the shortest is 250 ms, less what an accept came late
    assert max(abs(a - b) for a, b in zip(*pauses)) > 0.01, pauses
