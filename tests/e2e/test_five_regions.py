"""Five regions with a NATS each, 40 ms apart: links between them are cut, NATS servers killed, with their store and without. What was
acknowledged is applied in every other region: the keys are gone there, and the sidecars have counted at least as many events."""

import json
from urllib.parse import quote

import pytest

from local.cluster import Cluster
from support import Growth, Wire, in_threads, sees, until
from wan import Unavailable, Wan

REGIONS = ("east", "west", "north", "south", "centre")
APPLIED = "outrigger_bus_applied_total"
ONE_WAY_MS = 40


@pytest.fixture(scope="module")
def wan(watch, directory):
    try:
        wan = Wan(directory, REGIONS)
    except Unavailable as e:
        pytest.skip(f"needs network namespaces and TUN devices: {e}")
    yield wan
    wan.close()


@pytest.fixture(scope="module")
def cluster(wan, directory):
    """The regions' own servers are on the loopback of each region's namespace; only the NATS servers can be reached from the others."""
    spools = {name: {"bus": {"spool": {"directory": str(directory / f"spool-{name}")}}} for name in REGIONS}
    config = {"threads": 1, "bus": {"ack_wait": "10s", "publish_timeout": "1s"}}
    cluster = Cluster(directory, regions=REGIONS, nodes=1, database=False, config=config, region_config=spools,
                      nats_hosts={name: wan.address(name) for name in REGIONS})
    for region in cluster.regions.values():
        for process in region.processes():
            process.namespace = wan.namespace(region.name)
    wan.delay_all(ONE_WAY_MS)
    with cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(wan, cluster):
    """When a test is over everything runs and is reached, and every sidecar finds that out by itself."""
    yield
    wan.heal_all()
    for region in cluster.regions.values():
        if not region.nats.process.is_running:
            region.nats.start()
    in_threads([lambda r=r: r.outrigger.wait("ready", 60.0) for r in cluster.regions.values()])


class Keys:
    """Keys that every region has, and what becomes of them: `count` for each region, to be deleted through it."""

    def __init__(self, cluster, name: str, count: int):
        self.cluster = cluster
        self.of = {region: [f"{name}:{region}:{i}" for i in range(count)] for region in REGIONS}
        in_threads([lambda r=r: self._fill(r) for r in REGIONS])
        self.growth = {region: Growth(cluster[region].outrigger) for region in REGIONS}
        self.acknowledged = dict.fromkeys(REGIONS, 0)

    def _wire(self, region: str) -> Wire:
        return Wire(self.cluster[region].outrigger.socket)

    def _fill(self, region: str) -> None:
        with self._wire(region) as wire:
            for keys in self.of.values():
                wire.send(b"".join(b"set %s 0 0 1\r\n1\r\n" % key.encode() for key in keys))
                assert wire.read(8 * len(keys)) == b"STORED\r\n" * len(keys)

    def delete(self, region: str, first: int = 0, last: int = -1) -> None:
        """One at a time, each acknowledged."""
        with self._wire(region) as wire:
            for key in self.of[region][first:last if last >= 0 else None]:
                assert wire.delete(key) == b"DELETED\r\n"
                self.acknowledged[region] += 1

    def gone(self, by: str, *there: str) -> None:
        """Waits until these regions have none of what was deleted by that one."""
        def gone(region: str) -> None:
            with self._wire(region) as wire:
                for key in self.of[by][:self.acknowledged[by]]:
                    until(lambda k=key: wire.get(k) is None, f"{key}, deleted in {by}, gone from {region}", 60.0)
        in_threads([lambda r=r: gone(r) for r in there])

    def still(self, by: str, *there: str) -> None:
        """These regions have all that was deleted by that one."""
        for region in there:
            with self._wire(region) as wire:
                assert [key for key in self.of[by] if wire.get(key) is None] == []

    def everywhere(self) -> None:
        """Waits until every region is without all that was acknowledged anywhere, and has counted it."""
        for by in REGIONS:
            self.gone(by, *REGIONS)
        for region in REGIONS:
            self.growth[region].reaches(sum(n for by, n in self.acknowledged.items() if by != region), APPLIED)


def others(*names: str) -> "list[str]":
    return [name for name in REGIONS if name not in names]


def stops_hearing(cluster, region: str, of: str) -> None:
    """Waits until a region's sidecar has given up its connection to another's NATS."""
    def is_down() -> bool:
        return cluster[region].outrigger.metrics().total("outrigger_bus_connected", peer=of) == 0
    until(is_down, f"{region} noticing that it does not hear of {of}", 60.0)


# ---- links

def test_everybody_hears_of_everybody(cluster):
    keys = Keys(cluster, "all", 100)
    in_threads([lambda r=r: keys.delete(r) for r in REGIONS])
    keys.everywhere()
    for region in REGIONS:
        assert keys.growth[region].of(APPLIED) == 400  # nothing failed, so nothing came twice
        assert keys.growth[region].of("outrigger_bus_lag_seconds_sum") >= 400 * ONE_WAY_MS / 1000  # the network is what it is said to be


def test_one_link_is_cut_for_a_moment(wan, cluster):
    """Nobody has to notice: what was lost on the way is sent again."""
    keys = Keys(cluster, "moment", 50)
    wan.cut("east", "west")
    in_threads([lambda r=r: keys.delete(r) for r in ("east", "west")])
    for by in ("east", "west"):
        keys.gone(by, *others("east", "west"))
    keys.still("east", "west")
    keys.still("west", "east")
    wan.heal("east", "west")
    keys.everywhere()


def test_a_region_is_cut_off(wan, cluster):
    """It goes on by itself, and so do the others; whose connections are lost make them anew."""
    keys = Keys(cluster, "off", 50)
    wan.cut_off("south")
    in_threads([lambda r=r: keys.delete(r, 0, 25) for r in REGIONS])
    for by in others("south"):
        keys.gone(by, *others("south"))
    in_threads([lambda p=p: stops_hearing(cluster, *p) for p in [("south", r) for r in others("south")] + [(r, "south") for r in others("south")]])
    in_threads([lambda r=r: keys.delete(r, 25) for r in REGIONS])
    for by in others("south"):
        keys.still(by, "south")
    keys.still("south", *others("south"))
    wan.heal_all()
    keys.everywhere()


def test_waiting_for_a_region_that_is_cut_off(wan, cluster):
    """The answer names it, and it alone; once the link is there again, the same wait ends well. Nobody is said to have it sooner than the network can carry it."""
    keys = Keys(cluster, "waited", 1)
    sidecar = cluster["east"].outrigger
    wan.cut("east", "south")

    def ask(method: str, path: str, body: object = None) -> "tuple[int, dict]":
        status, text = sidecar.http(method, path, timeout=60.0, body=body)
        return status, json.loads(text)
    status, answer = ask("POST", "/invalidate?wait=regions&timeout=5s", {"keys": keys.of["east"]})
    regions = {region["region"]: region for region in answer["regions"]}
    assert status == 504 and [name for name, region in regions.items() if not region["is_applied"]] == ["south"]
    assert all(regions[name]["ms"] >= ONE_WAY_MS for name in others("east", "south"))
    wan.heal("east", "south")
    status, answer = ask("GET", f"/applied?timeout=50s&position={quote(answer['position'])}")
    assert status == 200
    keys.acknowledged["east"] = 1
    with Wire(cluster["south"].outrigger.socket) as wire:
        assert wire.get(keys.of["east"][0]) is None


# ---- NATS servers

def test_a_nats_is_killed_and_comes_back(cluster):
    """Its region spools meanwhile, and hears of the others; deletes go on everywhere all the time."""
    keys = Keys(cluster, "killed", 100)
    nats = cluster["east"].nats
    in_threads([lambda r=r: keys.delete(r, 0, 50) for r in REGIONS] + [nats.kill])
    keys.delete("west", 50)
    keys.gone("west", *REGIONS)
    keys.delete("east", 50)
    nats.start()
    in_threads([lambda r=r: keys.delete(r, 50) for r in others("east", "west")])
    keys.everywhere()


def test_a_nats_loses_its_store(cluster):
    """What everybody had applied by then is not missed; the stream and its readers are made anew."""
    keys = Keys(cluster, "lost", 50)
    in_threads([lambda r=r: keys.delete(r, 0, 25) for r in REGIONS])
    keys.everywhere()
    nats = cluster["east"].nats
    nats.lose_store()
    keys.delete("east", 25, 40)
    nats.start()
    in_threads([lambda r=r: keys.delete(r, 40 if r == "east" else 25) for r in REGIONS])
    keys.everywhere()


def test_a_nats_loses_what_was_not_read(wan, cluster):
    """South is cut off while east's deletes are acknowledged by east's stream, which then loses its disk."""
    keys = Keys(cluster, "unread", 50)
    wan.cut("east", "south")
    keys.delete("east")
    keys.gone("east", *others("south"))
    assert sees(cluster["south"].outrigger.socket, keys.of["east"][0]) == b"1"
    cluster["east"].nats.lose_store()
    wan.heal_all()
    cluster["east"].nats.start()
    keys.everywhere()
