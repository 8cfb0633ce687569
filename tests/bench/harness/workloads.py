"""What is measured."""

from dataclasses import dataclass
from typing import List, Tuple

#: Every peer but `direct` is a proxy, and has one processor to itself.
PEERS = ("direct", "twemproxy", "outrigger")

#: Outrigger against itself: a namespace with `read: aside`, and one with `read: through`.
NAMESPACES = ("aside", "through")

#: The client's protocol through Outrigger and, for comparison, with one memcached directly. twemproxy speaks classic alone.
BY_PROTOCOL = ("direct-classic", "direct-meta", "direct-binary", "classic", "meta", "binary")

#: Small GETs alone, and while another client moves large values, with memcached directly and through Outrigger.
BESIDE_LARGE = ("direct-alone", "direct-beside", "alone", "beside")

KEYS = 10000
KEY_SIZE = 64
VALUE_SIZE = 1024

LARGE_KEYS = 4
LARGE_SIZE = 8 << 20
LARGE_RATE = 20  # GETs and SETs a second, half of each


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    connections: int
    pipeline: int
    node: str = "fast"  # fast: the scripted node; memcached: the real one; both: scripted, a real one for `direct-…`; large: real, large values
    multi_get: int = 1
    set_ratio: float = 0.0
    peers: Tuple[str, ...] = PEERS
    rate: float = 0  # of an open loop alone; 0: a closed loop, and then an open one at a share of what it gave

    @property
    def baseline(self) -> str:
        """The peer that ratios are formed with."""
        return {PEERS: "twemproxy", BY_PROTOCOL: "classic"}.get(self.peers, self.peers[0])

    @property
    def shape(self) -> str:
        return f"{self.connections} × {self.pipeline}"


WORKLOADS: List[Workload] = [
    *(Workload(f"get-{c}x{p}", "GET hit", c, p) for c in (1, 50, 500) for p in (1, 16)),
    Workload("mix-50x1", "90 % GET, 10 % SET", 50, 1, set_ratio=0.1),
    Workload("mget10-50x1", "multi-get of 10", 50, 1, multi_get=10),
    Workload("mget100-50x1", "multi-get of 100", 50, 1, multi_get=100),
    Workload("memcached-get-50x1", "GET hit", 50, 1, node="memcached"),
    Workload("memcached-get-50x16", "GET hit", 50, 16, node="memcached"),
    Workload("through-50x1", "GET hit", 50, 1, node="memcached", peers=NAMESPACES),
    Workload("through-50x16", "GET hit", 50, 16, node="memcached", peers=NAMESPACES),
    Workload("protocol-50x1", "GET hit by protocol", 50, 1, node="both", peers=BY_PROTOCOL),
    Workload("protocol-50x16", "GET hit by protocol", 50, 16, node="both", peers=BY_PROTOCOL),
    Workload("beside-large", "small GETs beside large values", 10, 1, node="large", peers=BESIDE_LARGE, rate=2000),
]


def select(names: List[str]) -> List[Workload]:
    """Those called one of `names`, or, for a name that none has, those whose name contains it; all, when there are none. Fails with
    ValueError for a name that fits none."""
    for name in names:
        if not any(name in w.name for w in WORKLOADS):
            raise ValueError(f"no workload is called {name}; there are: {', '.join(w.name for w in WORKLOADS)}")
    exact = {w.name for w in WORKLOADS}
    return [w for w in WORKLOADS if not names or any(name == w.name or (name not in exact and name in w.name) for name in names)]
