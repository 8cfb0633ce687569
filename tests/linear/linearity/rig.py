"""Up to five regions, of real servers: a primary and its replica, which all regions but the first read, and in each region a NATS, a node and sidecars.

With `wan`, each region is in a network namespace of its own, and links between them can be delayed and cut (tests/support/wan.py). Only the NATS
servers can be reached from other regions; the databases are reached by their unix sockets, from everywhere, also from a region that is cut off: that
one goes on with what it has, which is the case that strong consistency is about.

What races/racing/faults.py needs of an arena is here, too, so that its faults can be committed."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from local import schema
from local.cluster import Cluster
from local.mariadb import MariaDB
from local.memcached import Memcached
from local.outrigger import Outrigger
from local.region import merged
from racing import arena as arenas
from racing.history import value_of
from wan import Wan

REGIONS = ("east", "west", "north", "south", "centre")
PREFIX = "linear:"
ASIDE_PREFIX = "hot:"
KEYS = 6
ASIDE_KEYS = [f"{ASIDE_PREFIX}h{i}" for i in range(4)]

#: Short, so that leases and locks run out while a test goes on; --check demands of the window what a suspended region takes.
STRONG = {"lease": "1s", "lock_window": "4s", "prepare_timeout": "500ms"}
STRONG_SKEW_MS = 100

TABLES = [arenas.TABLES[0], "CREATE TABLE registers (k VARBINARY(100) PRIMARY KEY, v VARBINARY(2000) NOT NULL) ENGINE=InnoDB"]


def _namespaces(is_strong: bool) -> List[Dict[str, Any]]:
    times = {"ttl": "60s", "lease_wait": "200ms", "lease_ttl": f"{arenas.LEASE_TTL_S}s", "tombstone_ttl": f"{(2 if is_strong else 1) * arenas.TOMBSTONE_TTL_S}s"}
    through = {"prefix": PREFIX, "read": "through", "write": "through", **times}
    if not is_strong:
        return [{**through, "source": {"table": "registers", "key_column": "k", "value_column": "v"}}]
    return [{**through, "source": "entries", "consistency": "strong"},
            {"prefix": ASIDE_PREFIX, "read": "through", "write": "aside", "consistency": "strong",
             "source": {"table": "races", "key_column": "k", "value_column": "v"}, **times}]


class Rig:
    """As a context it is started, and closed. Fails with wan.Unavailable. config: changes to every sidecar's configuration."""

    def __init__(self, directory: Path, binary: Path, regions: int = 3, sidecars: int = 1, broken: Optional[str] = None, consistency: str = "eventual",
                 wan: bool = False, delay_ms: int = 0, config: Optional[Mapping[str, Any]] = None):
        names = REGIONS[:regions]
        directory.mkdir(parents=True, exist_ok=True)
        self.is_strong = consistency == "strong"
        self.keys = [f"{PREFIX}k{i}" for i in range(KEYS)]
        self.wan: Optional[Wan] = Wan(directory, names) if wan else None
        self.cluster = Cluster(
            directory, regions=names, nodes=1, outriggers=sidecars, memory_mb=16, replica=True, schema=arenas.SCHEMA, binary=binary,
            prepare=self._prepare, nats_hosts={name: self.wan.address(name) for name in names} if self.wan else None,
            config=merged({"namespaces": _namespaces(self.is_strong), "database": arenas.DATABASE, "log": {"level": "info"},
                           "max_clock_skew": f"{STRONG_SKEW_MS if self.is_strong else arenas.SKEW_MS}ms",
                           "bus": {"ack_wait": "1s", "publish_timeout": "1s"},
                           "pool": {"timeout": "300ms", "connect_timeout": "300ms", "retry_min": "20ms", "retry_max": "200ms"},
                           **({"strong": STRONG} if self.is_strong else {})}, config))
        self._configs: Dict[str, Any] = {}  # before they were changed
        self.primary: MariaDB = self.cluster.primary
        self.replica: MariaDB = self.cluster.replica
        self._place_databases(names)
        for region in self.cluster.regions.values() if self.wan else ():
            for process in region.processes():
                process.namespace = self.wan.namespace(region.name)
        if self.wan is not None and delay_ms > 0:
            self.wan.delay_all(delay_ms)
        self.use(broken)

    def _place_databases(self, names: Sequence[str]) -> None:
        """A server is read only until it is told that it is the primary, so that none that was started anew takes writes by mistake."""
        self.primary.arguments.append("--read-only=1")
        addresses = {db: f"unix:{db.socket}" if self.wan else db.address for db in (self.primary, self.replica)}
        for region, sidecar in self.sidecars():
            database = sidecar.config["database"]
            database["primary"] = [addresses[self.primary], addresses[self.replica]] if self.is_strong else addresses[self.primary]
            if region != names[0] and not self.is_strong:
                database["replica"] = addresses[self.replica]

    def _prepare(self, primary: MariaDB) -> None:
        primary.query("SET GLOBAL read_only = 0")
        schema.create(primary, arenas.SCHEMA)
        for statement in TABLES:
            primary.query(statement, database=arenas.SCHEMA)
        for key in ASIDE_KEYS:
            row = arenas.row_of(key)
            primary.query("INSERT INTO races VALUES (%s, 0, %s)", (row, value_of(row, 0)), arenas.SCHEMA)
        primary.admit_by_socket(arenas.SCHEMA, self.cluster.user, self.cluster.password)

    def use(self, broken: Optional[str]) -> None:
        """The guard that is out in sidecars that are started from now on (a build with hooks)."""
        for _, sidecar in self.sidecars():
            sidecar.config.pop("test", None)
            if broken is not None:
                sidecar.config["test"] = {"broken_guard": broken}

    def restart_with(self, broken: Optional[str], config: Optional[Mapping[str, Any]] = None) -> None:
        """All sidecars, over empty nodes and tables. config: changes for this time."""
        self.use(broken)
        for _, sidecar in self.sidecars():
            sidecar.stop()
            sidecar.config = merged(self._configs.setdefault(sidecar.name, sidecar.config), {**(config or {}), "test": sidecar.config.get("test")})
        for table in ("registers", "outrigger_entries"):
            self.primary.query(f"DELETE FROM {table}", database=arenas.SCHEMA)
        for _, node in self.nodes():
            node.restart()
        self.cluster.start_outriggers()

    @property
    def regions(self) -> Sequence[str]:
        return list(self.cluster.regions)

    def sidecars(self) -> List[Tuple[str, Outrigger]]:
        return [(name, sidecar) for name, region in self.cluster.regions.items() for sidecar in region.outriggers]

    def nodes(self) -> List[Tuple[str, Memcached]]:
        return [(name, node) for name, region in self.cluster.regions.items() for node in region.nodes]

    def switch_database(self) -> None:
        """The replica becomes the primary, and the other way round. Nothing that was committed is lost: the old one takes no more writes before
        the new one has all of it, and nobody can write meanwhile."""
        old, new = self.primary, self.replica
        old.query("SET GLOBAL read_only = 1")
        new.wait_for_gtid(old.gtid())
        new.query("STOP SLAVE")
        new.query("RESET SLAVE ALL")  # or it would follow the other again when it is started anew
        new.query("SET GLOBAL read_only = 0")
        self.primary, self.replica = new, old
        old.query("SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos")
        old.replicate_from(new)

    def restart_database(self) -> None:
        """The primary, after kill(). Its replica goes on by itself."""
        self.primary.start()
        self.primary.query("SET GLOBAL read_only = 0")

    def problems(self) -> List[str]:
        """Sidecars that ended by themselves, or that a sanitizer has complained of."""
        return arenas.Arena.problems(self)  # type: ignore[arg-type]  # it asks for sidecars() alone

    def __enter__(self) -> "Rig":
        try:
            self.cluster.__enter__()
        except BaseException:
            self._close_wan()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.cluster.processes():  # what is stopped ends only when it goes on
            if process.is_running:
                process.resume()
        self.cluster.close()
        self._close_wan()

    def _close_wan(self) -> None:
        if self.wan is not None:
            self.wan.close()
            self.wan = None
