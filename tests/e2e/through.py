"""A region with read-through namespaces over a few tables: what the tests of through reads, of leases and of outages start from."""

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from local.cluster import Cluster
from local.mariadb import MariaDB
from local.memcached import Memcached
from local.region import Region
from support import DEADLINE, Outrigger, Wire, sees, until

SCHEMA = "outrigger"

TABLES = [
    "CREATE TABLE packages (name VARCHAR(200) PRIMARY KEY, version VARCHAR(100), size INT UNSIGNED, ratio DOUBLE, note TEXT)",
    "CREATE TABLE texts (k VARBINARY(240) PRIMARY KEY, v LONGBLOB, flags INT UNSIGNED, expires DATETIME(3))",
    "CREATE TABLE numbers (id BIGINT PRIMARY KEY, v VARCHAR(50))",
    "CREATE TABLE words (word VARCHAR(100) COLLATE utf8mb4_general_ci PRIMARY KEY, v VARCHAR(50))",
    # Its rows are read at once, then given out only while nobody holds the lock `gate`: rows that are old when they arrive.
    "CREATE VIEW gated AS SELECT name, version FROM packages WHERE GET_LOCK('gate', 30) = 1 AND RELEASE_LOCK('gate') = 1",
]


def _namespace(prefix: str, table: str, key: str, values: Any, **more: Any) -> Dict[str, Any]:
    source = {"table": table, "key_column": key, "value_columns" if isinstance(values, list) else "value_column": values}
    source.update(more.pop("source", {}))
    return {"prefix": prefix, "read": "through", "lease_wait": "8s", "source": source, **more}


NAMESPACES = [
    _namespace("package:", "packages", "name", ["name", "version", "size", "ratio", "note"]),
    _namespace("version:", "packages", "name", "version", ttl="0s"),
    _namespace("text:", "texts", "k", "v", source={"flags_column": "flags", "expires_column": "expires"}),
    _namespace("number:", "numbers", "id", "v"),
    _namespace("word:", "words", "word", "v"),
    _namespace("gated:", "gated", "name", "version"),
    _namespace("forgetful:", "packages", "name", "version", negative_ttl="0s"),
    _namespace("fleeting:", "packages", "name", "version", ttl="1s", negative_ttl="1s"),
    _namespace("hot:", "packages", "name", "version", lease_wait="19s", lease_ttl="60s"),
    # Others' loads are not waited for for long, and in the second one a lease that is not used is soon lost.
    _namespace("hasty:", "packages", "name", "version", lease_wait="100ms"),
    _namespace("brief:", "packages", "name", "version", lease_wait="100ms", lease_ttl="1s"),
]


def prepare(db: MariaDB) -> None:
    for table in TABLES:
        db.query(table, database=SCHEMA)
    connection = db.connect(SCHEMA)
    with connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO packages VALUES (%s, %s, %s, %s, %s)",
                           [(f"p{i}", f"v{i}", i, i / 8, None if i % 2 else f"nötе {i}") for i in range(1000)])


class Through:
    """One region; by default two nodes and two sidecars, and loads may take as long as a test wants them to."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.primary: MariaDB = cluster.primary
        self.region: Region = cluster["west"]
        self.nodes: List[Memcached] = self.region.nodes
        self.outriggers: List[Outrigger] = self.region.outriggers
        self._keys = 0

    @property
    def port(self) -> int:
        return self.region.outrigger.port

    def query(self, sql: str, arguments: Any = None) -> List[Dict[str, Any]]:
        return self.primary.query(sql, arguments, SCHEMA)

    def fresh(self) -> str:
        """The name of a row in `packages` that no test has used yet; its version is "old"."""
        self._keys += 1
        name = f"fresh{self._keys}"
        self.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (name,))
        return name

    def update(self, name: str, version: str = "new") -> None:
        self.query("UPDATE packages SET version = %s WHERE name = %s", (version, name))

    @contextmanager
    def frozen(self, table: str = "packages") -> Iterator["Freeze"]:
        """Within it every load from the table waits; leaving it lets them go on."""
        connection = self.primary.connect(SCHEMA)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLES {table} WRITE")
            yield Freeze(self, "Waiting for table metadata lock")
        finally:
            connection.close()

    @contextmanager
    def gate_closed(self) -> Iterator["Freeze"]:
        """Within it loads of the namespace gated: have read their row, but are not given it yet."""
        connection = self.primary.connect(SCHEMA)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT GET_LOCK('gate', 30)")
            yield Freeze(self, "User lock")
        finally:
            connection.close()

    def item(self, key: str) -> Optional[Dict[str, str]]:
        """What the nodes have under a key: value size s, CAS c, TTL t, and X, W or Z; None when they have nothing. It changes nothing."""
        for node in self.nodes:
            if not node.process.is_running:
                continue
            words = node.command(b"mg %s s c t f k\r\n" % key.encode()).decode().split()
            if words[0] == "HD":
                return {word[0]: word[1:] for word in words[1:]}
        return None

    def is_cached(self, key: str) -> bool:
        item = self.item(key)
        return item is not None and "X" not in item and int(item["c"]) > 0 and item["s"] != "0"

    def node_of(self, key: str) -> Memcached:
        """The node that has a key, which must be cached."""
        return until(lambda: next((n for n in self.nodes if n.process.is_running and sees(n.port, key)), None), f"{key} in a node")


class Freeze:
    def __init__(self, through: Through, state: str):
        self._through = through
        self._state = state

    def holds(self, count: int = 1) -> None:
        """Waits until so many loads are held up."""
        until(lambda: sum(p["State"] == self._state for p in self._through.primary.query("SHOW PROCESSLIST")) >= count,
              f"{count} loads waiting in the database")


@contextmanager
def through_region(directory: Path, *, outriggers: int = 2, config: Optional[Dict[str, Any]] = None, **options: Any) -> Iterator[Through]:
    changes = {"bus": None, "namespaces": NAMESPACES, "database": {"timeout": "20s"}, "pool": {"timeout": "10s"}, **(config or {})}
    with Cluster(directory, regions=("west",), outriggers=outriggers, prepare=options.pop("prepare", prepare), config=changes, **options) as cluster:
        yield Through(cluster)


class Asking:
    """A get that has been sent, and is answered later."""

    def __init__(self, sidecar: Outrigger, key: str):
        self.wire = Wire(sidecar.port)
        self.wire.send(b"get %s\r\n" % key.encode())

    def answer(self) -> Optional[bytes]:
        """The value; None for a miss. An error line is a RuntimeError."""
        with self.wire as wire:
            head = wire.line()
            if head == b"END\r\n":
                return None
            if not head.startswith(b"VALUE "):
                raise RuntimeError(head.decode(errors="replace").strip())
            value = wire.read(int(head.split()[3]))
            assert wire.read(7) == b"\r\nEND\r\n"
            return value

    def is_waiting(self) -> bool:
        self.wire.socket.setblocking(False)
        try:
            return not self.wire.socket.recv(1, socket.MSG_PEEK) and False
        except BlockingIOError:
            return True
        finally:
            self.wire.socket.settimeout(DEADLINE)
