"""The demo's walk: the main job, step by step, each step checked with a real memcached client.

What a step did is judged by what others say of it: the answers by the rows read directly from MySQL, "it was loaded" and "it
was a hit" by the sidecar's metrics, "it is stored" by asking the memcached nodes themselves.
"""

import json
import statistics
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from . import catalogue, metrics, wait
from .cluster import Cluster
from .console import Console, duration
from .memcached import Memcached
from .outrigger import Outrigger
from .walk_regions import RegionsWalk, Wrong
from .walk_strong import NAMESPACE as STRONG_NAMESPACE, StrongWalk

PREFIX = "package:"
NAMESPACE = "package"
VALUE_COLUMNS = ["name", "version", "section", "priority", "maintainer", "installed_size", "depends", "homepage",
                 "description"]

#: What the sidecars of the demo are configured to do.
NAMESPACES = [
    {"prefix": "", "read": "aside"},
    {"prefix": PREFIX, "name": NAMESPACE, "read": "through", "ttl": "1h", "negative_ttl": "10s",
     "source": {"table": catalogue.TABLE, "key_column": "name", "value_columns": VALUE_COLUMNS}},
    STRONG_NAMESPACE,
]

_HIT_SAMPLES = 200
_DEADLINE = 15.0  # of everything that is waited for


def _client(port: int) -> Client:
    return Client(("127.0.0.1", port), connect_timeout=5, timeout=10, default_noreply=False, no_delay=True)


def _timed(call: Callable[[], Any]) -> Tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def _expect(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise Wrong(f"{what}: expected {wanted!r}, got {got!r}")


class Walk:
    """Walks through a started cluster whose sidecars have NAMESPACES, and tells a console."""

    def __init__(self, cluster: Cluster, console: Console):
        self.cluster = cluster
        self.console = console
        self.clients: Dict[str, Client] = {n: _client(r.outrigger.port) for n, r in cluster.regions.items()}
        self.west: Client = self.clients["west"]
        self.east: Client = self.clients["east"]
        self.sidecar: Outrigger = cluster["west"].outrigger
        self.names: List[str] = []  # of the packages of the multi-get

    def run(self) -> None:
        """All steps; console.failures counts those that showed something wrong. A step that fails does not keep the
        next ones from being tried."""
        self._part("Read-through: get package:bash in west", self._first_read, self._second_read, self._absent)
        self._part("Multi-get of 100 packages in west", self._multi_get)
        self._part("A change: UPDATE in MySQL, then delete package:bash through east", self._change)
        for title, *steps in StrongWalk(self.cluster, self.console, self.clients).parts():
            self._part(title, *steps)
        for title, step in RegionsWalk(self.cluster, self.console, self.clients).parts():
            self._part(title, step)
        self._part("Plain keys: set, get, incr, cas in west", self._set_get, self._incr, self._cas)
        self._part("A memcached node of west is killed, and comes back", self._node_killed)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()

    def _part(self, title: str, *steps: Callable[[], None]) -> None:
        self.console.heading(title)
        for step in steps:
            try:
                step()
            except Exception as e:  # anything a step did not expect is something wrong
                reason = str(e) if isinstance(e, (Wrong, wait.Timeout)) else f"{type(e).__name__}: {e}"
                self.console.bad(step.__name__.strip("_").replace("_", " "), reason)

    # ---- witnesses

    def _rows(self, names: List[str]) -> Dict[str, Dict[str, Any]]:
        """Rows as MySQL itself has them, by name."""
        slots = ", ".join(["%s"] * len(names))
        sql = f"SELECT {', '.join(VALUE_COLUMNS)} FROM {catalogue.TABLE} WHERE name IN ({slots})"
        return {row["name"]: row for row in self.cluster.primary.query(sql, names, self.cluster.schema)}

    @staticmethod
    def _check_row(key: str, value: Optional[bytes], row: Dict[str, Any]) -> None:
        """Whether a value is that row as a JSON object."""
        if value is None:
            raise Wrong(f"get {key}: a miss, though MySQL has the row")
        try:
            got = json.loads(value)
        except ValueError as e:
            raise Wrong(f"get {key}: not JSON ({e}): {value[:200]!r}") from None
        _expect(f"get {key}, compared with the row in MySQL", {c: None if v is None else str(v) for c, v in got.items()},
                {c: None if v is None else str(v) for c, v in row.items()})

    def _count(self, call: Callable[[], Any], **wanted: float) -> Tuple[Any, float]:
        """Makes a call of west's sidecar; its result and time. Fails unless the loads= and hits= that the metrics of
        the package namespace have grown by are these."""
        before = self.sidecar.metrics()
        result, took = _timed(call)
        names = {"loads": metrics.LOADS, "hits": metrics.HITS}

        def grown() -> Dict[str, float]:
            since = self.sidecar.metrics().since(before)
            return {k: since.total(names[k], namespace=NAMESPACE) for k in wanted}
        try:
            wait.until(lambda: grown() == wanted, "", 1.0)
        except wait.Timeout:
            _expect("by how much the counters in /metrics have grown", grown(), wanted)
        return result, took

    def _holders(self, keys: List[str]) -> Dict[str, Memcached]:
        """Which node of west holds each key, asked directly; keys that none holds are left out."""
        found: Dict[str, Memcached] = {}
        for node in self.cluster["west"].nodes:
            if node.process.is_running:
                client = _client(node.port)
                found.update((key, node) for key in client.get_many(keys))
                client.close()
        return found

    # ---- read-through

    def _first_read(self) -> None:
        row = self._rows(["bash"])["bash"]
        value, took = self._count(lambda: self.west.get(PREFIX + "bash"), loads=1, hits=0)
        self._check_row(PREFIX + "bash", value, row)
        self.console.ok("miss → MySQL → answered", took, f"{len(value)} bytes, equal to the row; metrics: 1 load, 0 hits")
        holders = wait.until(lambda: self._holders([PREFIX + "bash"]), "package:bash stored in a node of west", _DEADLINE)
        self.console.ok("stored", None, f"{holders[PREFIX + 'bash'].name} has it")

    def _second_read(self) -> None:
        row = self._rows(["bash"])["bash"]
        value, took = self._count(lambda: self.west.get(PREFIX + "bash"), loads=0, hits=1)
        self._check_row(PREFIX + "bash", value, row)
        median = statistics.median(_timed(lambda: self.west.get(PREFIX + "bash"))[1] for _ in range(_HIT_SAMPLES))
        self.console.ok("hit", took, f"median of {_HIT_SAMPLES} more: {duration(median)}; metrics: 0 loads, 1 hit")

    def _absent(self) -> None:
        key = PREFIX + "no-such-package"
        value, took = self._count(lambda: self.west.get(key), loads=1)
        _expect(f"get {key}", value, None)
        value, again = self._count(lambda: self.west.get(key), loads=0)
        _expect(f"get {key}, again", value, None)
        self.console.ok("a package that does not exist", took, f"its absence is remembered: {duration(again)}, no load")

    # ---- multi-get

    def _multi_get(self) -> None:
        rows = self.cluster.primary.query(
            f"SELECT name FROM {catalogue.TABLE} WHERE name <> 'bash' ORDER BY RAND() LIMIT 100", database=self.cluster.schema)
        self.names = [row["name"] for row in rows]
        keys = [PREFIX + name for name in self.names]
        rows = self._rows(self.names)

        def check(values: Dict[str, bytes]) -> None:
            for name in self.names:
                self._check_row(PREFIX + name, values.get(PREFIX + name), rows[name])
        values, took = self._count(lambda: self.west.get_many(keys), loads=len(keys), hits=0)
        check(values)
        self.console.ok(f"{len(keys)} misses in one get", took, "every value equals its row; metrics: 100 loads")
        wait.until(lambda: len(self._holders(keys)) == len(keys), "all 100 stored in west's nodes", _DEADLINE)
        values, took = self._count(lambda: self.west.get_many(keys), loads=0, hits=len(keys))
        check(values)
        by_node = [list(self._holders(keys).values()).count(node) for node in self.cluster["west"].nodes]
        self.console.ok(f"{len(keys)} hits in one get", took, f"from both nodes: {' + '.join(map(str, by_node))}")

    # ---- invalidation

    def _change(self) -> None:
        key = PREFIX + "bash"
        old = self._rows(["bash"])["bash"]
        for client in (self.east, self.west):
            self._check_row(key, client.get(key), old)
        self.console.ok("both regions have it in their caches", None, old["description"])

        description = f"GNU Bourne Again SHell, changed at {time.strftime('%H:%M:%S')} by the demo"
        _, took = _timed(lambda: self.cluster.primary.query(
            f"UPDATE {catalogue.TABLE} SET description = %s WHERE name = 'bash'", (description,), self.cluster.schema))
        new = self._rows(["bash"])["bash"]
        _expect("the description after the UPDATE", new["description"], description)
        self.console.ok("UPDATE in MySQL", took, "the caches do not know of it yet")
        self._check_row(key, self.west.get(key), old)

        start = time.perf_counter()
        _expect(f"delete {key} through east", self.east.delete(key), True)
        took = time.perf_counter() - start
        self.console.ok("delete through east", took, "answered when east's stream has the invalidation")
        polls = [0]

        def west_has_it() -> bool:
            polls[0] += 1
            return json.loads(self.west.get(key) or b"{}").get("description") == description
        wait.until(west_has_it, "west serving the new row", _DEADLINE, pause=0.0002, longest_pause=0.002)
        self.console.ok("west serves the new row", time.perf_counter() - start, f"since the delete was sent; {polls[0]} reads")
        self._check_row(key, self.west.get(key), new)
        self._check_row(key, self.east.get(key), new)
        applied = wait.until(lambda: self.sidecar.metrics().total(metrics.BUS_APPLIED), "west counting the invalidation", 2.0)
        self.console.ok("east serves it too", None, f"metrics of west: {applied:.0f} invalidation applied")
        if self.cluster.replica:
            _, took = _timed(lambda: self.cluster.replica.wait_for_gtid(self.cluster.primary.gtid(), _DEADLINE))
            there = self.cluster.replica.query(
                f"SELECT description FROM {catalogue.TABLE} WHERE name = 'bash'", database=self.cluster.schema)
            _expect("the description in the replica", there[0]["description"], description)
            self.console.ok("the MariaDB replica has it as well", None, f"GTID {self.cluster.replica.gtid()}")

    # ---- plain keys

    def _set_get(self) -> None:
        _expect("set greeting", self.west.set("greeting", b"hello"), True)
        value, took = _timed(lambda: self.west.get("greeting"))
        _expect("get greeting", value, b"hello")
        self.console.ok("set greeting, get greeting", took, value.decode())

    def _incr(self) -> None:
        _expect("set counter 41", self.west.set("counter", b"41"), True)
        value, took = _timed(lambda: self.west.incr("counter", 1))
        _expect("incr counter 1", value, 42)
        _expect("get counter", self.west.get("counter"), b"42")
        self.console.ok("incr counter 1", took, "41 → 42")

    def _cas(self) -> None:
        value, token = self.west.gets("greeting")
        _expect("gets greeting", value, b"hello")
        _expect("set greeting by somebody else", self.west.set("greeting", b"salut"), True)
        _expect("cas with the old token", self.west.cas("greeting", b"lost update", token), False)
        _, token = self.west.gets("greeting")
        stored, took = _timed(lambda: self.west.cas("greeting", b"bonjour", token))
        _expect("cas with the new token", stored, True)
        _expect("get greeting", self.west.get("greeting"), b"bonjour")
        self.console.ok("gets, cas", took, "refused after a change in between, stored with the new token")

    # ---- a node dies

    def _node_killed(self) -> None:
        plain = {f"plain:{i}": b"value %d" % i for i in range(100)}
        _expect("set of 100 plain keys (those not stored)", self.west.set_many(plain), [])
        packages = [PREFIX + name for name in self.names]
        holders = self._holders(list(plain) + packages)
        _expect("keys held by a node", len(holders), len(plain) + len(packages))
        victim, survivor = self.cluster["west"].nodes[:2]
        lost = [k for k, node in holders.items() if node is victim]
        kept = [k for k, node in holders.items() if node is survivor]
        rows = self._rows(self.names)

        _, took = _timed(victim.kill)
        self.console.ok(f"{victim.name} killed (kill -9)", took, f"it held {len(lost)} of {len(holders)} keys")
        try:
            self._check_kept(kept, plain, rows)
            self._check_lost([k for k in lost if k.startswith(PREFIX)], rows)
            self._check_lost_plain([k for k in lost if k in plain], plain)
        finally:
            victim.start()
        self._check_back(victim, [k for k in lost if k in plain], [k for k in lost if k.startswith(PREFIX)], rows)

    def _check_kept(self, keys: List[str], plain: Dict[str, bytes], rows: Dict[str, Dict[str, Any]]) -> None:
        packages = [k for k in keys if k.startswith(PREFIX)]
        values, took = self._count(lambda: self.west.get_many(keys), loads=0, hits=len(packages))
        for key in keys:
            if key in plain:
                _expect(f"get {key}", values.get(key), plain[key])
            else:
                self._check_row(key, values.get(key), rows[key[len(PREFIX):]])
        self.console.ok(f"the other node's {len(keys)} keys: all hits", took, "in one get; not affected")

    def _check_lost(self, keys: List[str], rows: Dict[str, Dict[str, Any]]) -> None:
        times = []
        for key in keys:
            value, took = _timed(lambda k=key: self.west.get(k))
            self._check_row(key, value, rows[key[len(PREFIX):]])
            times.append(took)
        self.console.ok(f"its {len(keys)} packages: answered from MySQL", statistics.median(times),
                        f"median; the slowest took {duration(max(times))}")

    def _check_lost_plain(self, keys: List[str], plain: Dict[str, bytes]) -> None:
        misses = errors = 0
        start = time.perf_counter()
        for key in keys:
            try:
                value = self.west.get(key)
            except MemcacheError:  # SERVER_ERROR
                errors += 1
                continue
            if value is None:
                misses += 1
            else:
                _expect(f"get {key}", value, plain[key])
        took = (time.perf_counter() - start) / max(len(keys), 1)
        self.console.ok(f"its {len(keys)} plain keys: nobody else has them", took,
                        f"each, on average; {misses} misses, {errors} SERVER_ERROR")

    def _check_back(self, node: Memcached, plain: List[str], packages: List[str], rows: Dict[str, Dict[str, Any]]) -> None:
        start = time.perf_counter()
        key = plain[0]
        wait.until(lambda: self.west.set(key, b"back") and self.west.get(key) == b"back",
                   f"set and get of a key of {node.name} after it came back", _DEADLINE)
        took = time.perf_counter() - start
        _expect(f"which node holds {key}", self._holders([key]).get(key), node)
        self.console.ok(f"{node.name} is back, empty, and in use", took, "since it accepted connections again")
        key = packages[0]
        value, load = self._count(lambda: self.west.get(key), loads=1, hits=0)
        self._check_row(key, value, rows[key[len(PREFIX):]])
        wait.until(lambda: self._holders([key]), f"{key} stored again", _DEADLINE)
        value, took = self._count(lambda: self.west.get(key), loads=0, hits=1)
        self._check_row(key, value, rows[key[len(PREFIX):]])
        self.console.ok("its packages: loaded once more, then hits", took, f"loaded in {duration(load)}")
