"""Three regions, of real servers: a primary and its replica, which all regions but the first read, and in each region a NATS, a node and sidecars.

What races/racing/faults.py needs of an arena is here, too, so that its faults can be committed. `wan` is None: once links between the regions can be
cut (network namespaces), it is what has cut(region, other) and join(region, other), and the schedule has such faults (faults.py)."""

from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

from local.cluster import Cluster
from local.memcached import Memcached
from local.outrigger import Outrigger
from racing import arena as arenas

REGIONS = ("east", "west", "north")
PREFIX = "linear:"
KEYS = 6

TABLES = [*arenas.TABLES[-2:], "CREATE TABLE registers (k VARBINARY(100) PRIMARY KEY, v VARBINARY(2000) NOT NULL) ENGINE=InnoDB"]


class Rig:
    """As a context it is started, and closed. Options of the races: short times, so that leases and tombstones expire meanwhile."""

    def __init__(self, directory: Path, binary: Path, regions: int = 3, sidecars: int = 1, broken: Optional[str] = None, consistency: str = "eventual"):
        self.keys = [f"{PREFIX}k{i}" for i in range(KEYS)]
        self.wan: Any = None
        namespace = {"prefix": PREFIX, "read": "through", "write": "through", "ttl": "60s", "lease_wait": "200ms",
                     "source": {"table": "registers", "key_column": "k", "value_column": "v"},
                     "lease_ttl": f"{arenas.LEASE_TTL_S}s", "tombstone_ttl": f"{arenas.TOMBSTONE_TTL_S}s"}
        if consistency != "eventual":
            namespace["consistency"] = consistency
        self.cluster = Cluster(
            directory, regions=REGIONS[:regions], nodes=1, outriggers=sidecars, memory_mb=16, replica=True, schema=arenas.SCHEMA, binary=binary,
            prepare=lambda db: [db.query(statement, database=arenas.SCHEMA) for statement in TABLES],
            config={"namespaces": [namespace], "database": arenas.DATABASE, "log": {"level": "warn"}, "max_clock_skew": f"{arenas.SKEW_MS}ms",
                    "bus": {"ack_wait": "1s", "publish_timeout": "1s"},
                    "pool": {"timeout": "300ms", "connect_timeout": "300ms", "retry_min": "20ms", "retry_max": "200ms"}})
        for region, sidecar in self.sidecars():
            if region != REGIONS[0]:
                sidecar.config["database"]["replica"] = self.cluster.replica.address
        self.use(broken)

    def use(self, broken: Optional[str]) -> None:
        """The guard that is out in sidecars that are started from now on (a build with hooks)."""
        for _, sidecar in self.sidecars():
            sidecar.config.pop("test", None)
            if broken is not None:
                sidecar.config["test"] = {"broken_guard": broken}

    def restart_with(self, broken: Optional[str]) -> None:
        self.use(broken)
        for _, sidecar in self.sidecars():
            sidecar.stop()
        self.cluster.primary.query("DELETE FROM registers", database=arenas.SCHEMA)
        for _, node in self.nodes():
            node.restart()
        self.cluster.start_outriggers()

    @property
    def primary(self) -> Any:
        return self.cluster.primary

    @property
    def replica(self) -> Any:
        return self.cluster.replica

    @property
    def regions(self) -> Sequence[str]:
        return list(self.cluster.regions)

    def sidecars(self) -> List[Tuple[str, Outrigger]]:
        return [(name, sidecar) for name, region in self.cluster.regions.items() for sidecar in region.outriggers]

    def nodes(self) -> List[Tuple[str, Memcached]]:
        return [(name, node) for name, region in self.cluster.regions.items() for node in region.nodes]

    def __enter__(self) -> "Rig":
        self.cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.cluster.processes():  # what is stopped ends only when it goes on
            if process.is_running:
                process.resume()
        self.cluster.close()
