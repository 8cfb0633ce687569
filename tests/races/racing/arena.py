"""Where the races are run: two regions on one primary, west reading a replica; two sidecars, two nodes and a bus in each. Times are short, so that
leases and tombstones expire while it runs."""

import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from local.cluster import Cluster
from local.mariadb import MariaDB
from local.memcached import Memcached
from local.outrigger import Outrigger

from .history import value_of
from .wire import Wire

SCHEMA = "outrigger"
REGIONS = ("east", "west")
SKEW_MS = 500
OFFSET_MS = 400  #: how far the clock of the second sidecar of east is ahead
LEASE_TTL_S = 1
TOMBSTONE_TTL_S = 4  #: longer than timeout, lag, twice the skew and a second together, as --check demands
DATABASE = {"timeout": "800ms", "connect_timeout": "1s", "max_replica_lag": "700ms", "heartbeat_interval": "50ms", "threads": 4}

TABLES = [
    "CREATE TABLE races (k VARBINARY(100) PRIMARY KEY, seq BIGINT UNSIGNED NOT NULL DEFAULT 0, v VARBINARY(2000) NOT NULL) ENGINE=InnoDB",
    # Its rows are read at once, then given out only while nobody holds the lock `gate`: rows that are old when they arrive.
    "CREATE VIEW gated AS SELECT k, v FROM races WHERE GET_LOCK('gate', 30) = 1 AND RELEASE_LOCK('gate') = 1",
    "CREATE TABLE outrigger_heartbeat (id TINYINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED NOT NULL, owner BIGINT UNSIGNED NOT NULL, "
    "beat_at DATETIME(6) NOT NULL) ENGINE=InnoDB",
    "INSERT INTO outrigger_heartbeat VALUES (1, 0, 0, '2000-01-01')",
]

#: The next write of a row; LAST_INSERT_ID tells its seq. (MariaDB assigns from left to right.) history.value_of() is the same.
UPDATE = ("UPDATE races SET seq = LAST_INSERT_ID(seq + 1), v = CONCAT(k, ':', seq, ':', REPEAT('x', seq * 37 MOD 900), ':', seq) WHERE k = %s")

#: What is read and written at random, by mode: long-lived entries that are written all the time; such as expire and are refreshed; and many that
#: expire and are written now and then, so that they are loaded from the replica.
KEYS = {
    "aside": [f"hot:h{i}" for i in range(6)] + [f"brief:b{i}" for i in range(4)] + [f"calm:c{i}" for i in range(30)],
    "through": [f"whot:w{i}" for i in range(6)] + [f"wbrief:v{i}" for i in range(4)] + [f"wcalm:d{i}" for i in range(30)],
}
KEYS["both"] = KEYS["aside"][::2] + KEYS["through"][::2]
CALM_SHARE = 0.05  #: of the writes
MODES = list(KEYS)


def is_through(key: str) -> bool:
    """Whether it is written through its sidecar."""
    return key.startswith("w")


def is_calm(key: str) -> bool:
    return key.startswith(("calm:", "wcalm:"))


def row_of(key: str) -> str:
    return key.partition(":")[2]


def _namespace(prefix: str, write: str = "aside", table: str = "races", **more: Any) -> Dict[str, Any]:
    return {"prefix": prefix, "read": "through", "write": write, "source": {"table": table, "key_column": "k", "value_column": "v"}, "ttl": "60s",
            "lease_ttl": f"{LEASE_TTL_S}s", "lease_wait": "200ms", "tombstone_ttl": f"{TOMBSTONE_TTL_S}s", **more}


NAMESPACES = [
    _namespace("hot:"),
    _namespace("brief:", ttl="5s", refresh_ahead="1s"),
    _namespace("whot:", "through"),
    _namespace("wbrief:", "through", ttl="5s", refresh_ahead="1s"),
    _namespace("calm:", ttl="5s"),
    _namespace("wcalm:", "through", ttl="5s"),
    _namespace("fleeting:", ttl="1s"),
    _namespace("wfleeting:", "through", ttl="1s"),
    _namespace("gated:", table="gated"),
]


class Fault(NamedTuple):
    """A guard that is out, and a clock that is ahead."""

    broken: Optional[str] = None
    offset_ms: int = OFFSET_MS


class Arena:
    """The servers, and sidecars that may be started anew with other options. As a context it is started, and closed."""

    def __init__(self, directory: Path, binary: Path, mode: str = "both", fault: Fault = Fault()):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.mode = mode
        self.keys = KEYS[mode]
        self._rows = 0
        self.cluster = Cluster(
            directory, regions=REGIONS, nodes=2, outriggers=2, memory_mb=8, replica=True, schema=SCHEMA, prepare=self._prepare, binary=binary,
            config={"namespaces": NAMESPACES, "database": DATABASE, "max_clock_skew": f"{SKEW_MS}ms", "log": {"level": "warn"},
                    "bus": {"ack_wait": "1s", "publish_timeout": "1s"},
                    "pool": {"timeout": "300ms", "connect_timeout": "300ms", "retry_min": "20ms", "retry_max": "200ms"}})
        for sidecar in self.cluster["west"].outriggers:
            sidecar.config["database"]["replica"] = self.cluster.replica.address
        self.use(fault)

    def use(self, fault: Fault) -> None:
        """What the sidecars will be started with."""
        for region, sidecar in self.sidecars():
            offset = fault.offset_ms if sidecar is self.cluster["east"].outriggers[1] else 0
            sidecar.config["test"] = {"broken_guard": fault.broken or "none", "clock_offset": f"{offset}ms"}

    def restart_with(self, fault: Fault) -> None:
        self.use(fault)
        for _, sidecar in self.sidecars():
            sidecar.stop()
        for _, node in self.nodes():
            node.restart()
        self.cluster.start_outriggers()

    @staticmethod
    def _prepare(primary: MariaDB) -> None:
        for statement in TABLES:
            primary.query(statement, database=SCHEMA)
        connection = primary.connect(SCHEMA)
        with connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO races VALUES (%s, 0, %s)", [(row_of(key), value_of(row_of(key), 0)) for key in KEYS["aside"] + KEYS["through"]])

    # ---- who is there

    @property
    def primary(self) -> MariaDB:
        return self.cluster.primary

    @property
    def replica(self) -> MariaDB:
        return self.cluster.replica

    def sidecars(self) -> List[Tuple[str, Outrigger]]:
        return [(name, sidecar) for name, region in self.cluster.regions.items() for sidecar in region.outriggers]

    def nodes(self) -> List[Tuple[str, Memcached]]:
        return [(name, node) for name, region in self.cluster.regions.items() for node in region.nodes]

    # ---- rows

    def fresh(self, prefix: str) -> str:
        """A key of a row that nobody has used yet, at seq 0, on the replica too."""
        self._rows += 1
        row = f"fresh{self._rows}"
        self.primary.query("INSERT INTO races VALUES (%s, 0, %s)", (row, value_of(row, 0)), SCHEMA)
        return prefix + row

    def write_row(self, key: str) -> int:
        """Writes the row once more; its seq."""
        connection = self.primary.connect(SCHEMA)
        with connection, connection.cursor() as cursor:
            cursor.execute(UPDATE, (row_of(key),))
            return cursor.lastrowid

    def rows(self, server: MariaDB, keys: List[str]) -> Dict[str, int]:
        """The seq that a server has for each key."""
        found = server.query(f"SELECT k, seq, v FROM races WHERE k IN ({', '.join(['%s'] * len(keys))})", [row_of(k) for k in keys], SCHEMA)
        by_row = {r["k"].decode(): int(r["v"].split(b":", 2)[1]) for r in found}
        return {key: by_row.get(row_of(key), -1) for key in keys}

    # ---- life

    def __enter__(self) -> "Arena":
        self.cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        # Stopped processes end only when they go on.
        for process in self.cluster.processes():
            if process.is_running:
                process.resume()
        self.cluster.close()

    def problems(self) -> List[str]:
        """Sidecars that ended by themselves, or that a sanitizer has complained of."""
        found = []
        for _, sidecar in self.sidecars():
            if sidecar.process.is_expected and not sidecar.process.is_running:
                found.append(f"{sidecar.name} died: {sidecar.process.describe_end()}")
            log = sidecar.process.log.read_text(errors="replace") if sidecar.process.log.exists() else ""
            for word in ("AddressSanitizer", "runtime error:", "LeakSanitizer"):
                if word in log:
                    found.append(f"{sidecar.process.log}:\n{log[log.index(word):][:6000]}")
        return found


def binary() -> Path:
    """The build with hooks that tests/run makes, or $OUTRIGGER_HOOKS_BINARY."""
    default = Path(__file__).resolve().parents[3] / "build-hooks/proxy/outrigger"
    return Path(os.environ.get("OUTRIGGER_HOOKS_BINARY") or default)


__all__ = ["Arena", "Fault", "KEYS", "MODES", "REGIONS", "SCHEMA", "SKEW_MS", "TOMBSTONE_TTL_S", "UPDATE", "Wire", "binary", "is_calm", "is_through", "row_of"]
