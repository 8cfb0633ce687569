"""What is lost, and comes back. Each is a function of the rig: it begins the fault, and returns how it is ended and in which region it is (None: in all)."""

from typing import Callable, Dict, NamedTuple, Optional, Sequence

from linearity.rig import Rig
from local.outrigger import Outrigger

End = Callable[[], object]


class Fault(NamedTuple):
    region: Optional[str]
    end: End
    sidecar: Optional[Outrigger] = None  #: which clients are not connected to


def holder_of(rig: Rig, region: str) -> Outrigger:
    for sidecar in rig.cluster[region].outriggers:
        if sidecar.metrics().total("outrigger_strong_holder") == 1:
            return sidecar
    return rig.cluster[region].outrigger


def _follower_of(rig: Rig, region: str) -> Outrigger:
    holder = holder_of(rig, region)
    return next(s for s in rig.cluster[region].outriggers if s is not holder)


def _nothing(rig: Rig, there: str) -> Fault:
    return Fault(None, lambda: None)


def _region(rig: Rig, there: str) -> Fault:
    rig.wan.cut_off(there)
    return Fault(there, rig.wan.heal_all)


def _nats(rig: Rig, there: str) -> Fault:
    nats = rig.cluster[there].nats
    nats.kill()
    return Fault(there, nats.start)


def _majority(rig: Rig, there: str) -> Fault:
    servers = [rig.cluster[name].nats for name in list(rig.regions)[:len(rig.regions) // 2 + 1]]
    for server in servers:
        server.kill()
    return Fault(None, lambda: [server.start() for server in servers])


def _paused(sidecar: Outrigger, region: str) -> Fault:
    sidecar.process.pause()
    return Fault(region, sidecar.process.resume, sidecar)


def _killed(sidecar: Outrigger, region: str) -> Fault:
    sidecar.kill()
    return Fault(region, lambda: sidecar.start(None), sidecar)


def _primary(rig: Rig, there: str) -> Fault:
    rig.primary.kill()
    return Fault(None, rig.restart_database)


def _switch(rig: Rig, there: str) -> Fault:
    rig.switch_database()
    return Fault(None, lambda: None)


def _node(rig: Rig, there: str) -> Fault:
    node = rig.cluster[there].nodes[0]
    node.kill()
    return Fault(there, node.start)


FAULTS: Dict[str, Callable[[Rig, str], Fault]] = {
    "nothing": _nothing,
    "a region is cut off from all others": _region,
    "a region's NATS is lost": _nats,
    "a majority of the NATS is lost": _majority,
    "a sidecar stands still, not the holder": lambda rig, there: _paused(_follower_of(rig, there), there),
    "the holder stands still": lambda rig, there: _paused(holder_of(rig, there), there),
    "the holder is killed": lambda rig, there: _killed(holder_of(rig, there), there),
    "the MySQL primary is lost": _primary,
    "the primary's role moves to the replica": _switch,
    "a region's only memcached node is lost": _node,
}
NAMES: Sequence[str] = list(FAULTS)
