"""One race for each guard, made to happen: with the guard in force nothing is wrong, without it a promise is broken.

Each is a function of the arena and a history; it makes the race up to `rounds` times and raises the Violation that it sees. Where a round did not
come about (a load timed out while it was held up, on a busy machine), it is made again.
"""

import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

from local import wait
from local.outrigger import Outrigger

from . import arena as arenas
from .arena import Arena
from .history import History, Violation, Write, value_of
from .wire import ServerError, Wire

_DEADLINE = 30.0


def _until(check: Callable[[], Any], what: str) -> Any:
    return wait.until(check, what, _DEADLINE)


class Race:
    """What the scenarios share: single reads and writes, noted and checked like all others."""

    def __init__(self, arena: Arena, history: History):
        self.arena = arena
        self.history = history
        self._regions = {sidecar.name: region for region, sidecar in arena.sidecars()}

    def read(self, sidecar: Outrigger, key: str) -> int:
        """The seq; an error answer is tried again. Raises a Violation."""
        region = self._regions[sidecar.name]

        def ask() -> List[int]:
            floor, started = self.history.floor(region, key), time.time()
            with Wire(sidecar.port) as wire:
                value = wire.get(key)
            return [self.history.read(key, arenas.row_of(key), value, region, sidecar.name, started, floor)]
        seq = _until(ask, f"an answer to get {key} from {sidecar.name}")[0]
        if self.history.violations:
            raise self.history.violations[0]
        return seq

    def delete(self, sidecar: Outrigger, key: str, seq: int) -> None:
        """Until it is answered DELETED."""
        def ask() -> bool:
            started = time.time()
            with Wire(sidecar.port) as wire:
                answer = wire.delete(key)
            self.history.wrote(key, Write(seq, self._regions[sidecar.name], sidecar.name, started, time.time(), answer))
            return answer == "DELETED"
        _until(ask, f"delete {key} being answered")

    def total(self, sidecars: List[Outrigger], name: str, **labels: str) -> float:
        return sum(s.metrics().total(name, **labels) for s in sidecars)

    def filled(self, sidecar: Outrigger, namespace: str) -> Callable[[], bool]:
        """A function: whether a fill of this sidecar has been stored or refused since."""
        def count() -> float:
            return self.total([sidecar], "outrigger_fills_total", namespace=namespace) + \
                self.total([sidecar], "outrigger_fills_refused_total", namespace=namespace)
        before = count()
        return lambda: count() > before

    def uses_replica(self, sidecar: Outrigger) -> None:
        """Waits until loads of this sidecar are the replica's: its nodes are not young, and the heartbeat is fresh."""
        def is_used() -> bool:
            before = self.total([sidecar], "outrigger_loads_by_host_total", host="replica")
            key = self.arena.fresh("hot:")
            self.arena.replica.wait_for_gtid(self.arena.primary.gtid())
            self.read(sidecar, key)
            return self.total([sidecar], "outrigger_loads_by_host_total", host="replica") > before
        _until(is_used, f"{sidecar.name} loading from the replica")

    @contextmanager
    def stopped_replica(self) -> Iterator[None]:
        self.arena.replica.query("STOP SLAVE SQL_THREAD")
        try:
            yield
        finally:
            self.arena.replica.query("START SLAVE SQL_THREAD")


@contextmanager
def _gate_closed(arena: Arena) -> Iterator[Any]:
    """Within it, loads of gated: have read their row and are not given it. Yields a function that opens the gate."""
    connection = arena.primary.connect(arenas.SCHEMA)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('gate', 30)")
        yield lambda: cursor.execute("SELECT RELEASE_LOCK('gate')")


def fill_cas(race: Race, rounds: int) -> None:
    """A row is read from the database; then it is changed and deleted from the cache; then the old row comes to be stored."""
    first, second = race.arena.cluster["east"].outriggers
    done = 0
    while done < rounds:
        key = race.arena.fresh("gated:")
        is_filled = race.filled(first, "gated")
        with _gate_closed(race.arena) as open_gate, Wire(first.port) as reader:
            reader.send(b"get %s\r\n" % key.encode())
            _until(lambda: any(p["State"] == "User lock" for p in race.arena.primary.query("SHOW PROCESSLIST")), "the load at the gate")
            race.delete(second, key, race.arena.write_row(key))
            open_gate()
            if isinstance(reader.receive(key), ServerError):
                continue  # it was held up for too long
        _until(is_filled, "the fill")
        race.read(first, key)
        race.read(second, key)
        done += 1


def tombstone_version(race: Race, rounds: int) -> None:
    """The replica stands still, and is still taken for fresh; what was just deleted is read."""
    first = race.arena.cluster["west"].outriggers[0]
    for _ in range(rounds):
        race.uses_replica(first)
        key = race.arena.fresh("hot:")
        race.arena.replica.wait_for_gtid(race.arena.primary.gtid())
        with race.stopped_replica():
            race.delete(first, key, race.arena.write_row(key))
            race.read(first, key)
            race.read(first, key)


def as_of(race: Race, rounds: int) -> None:
    """The same, but nobody reads until the replica might show the change by the clock alone."""
    first = race.arena.cluster["west"].outriggers[0]
    for _ in range(rounds):
        race.uses_replica(first)
        key = race.arena.fresh("hot:")
        race.arena.replica.wait_for_gtid(race.arena.primary.gtid())
        with race.stopped_replica():
            race.delete(first, key, race.arena.write_row(key))
            proven = time.time() + (arenas.SKEW_MS + 20) / 1000
            _until(lambda: time.time() > proven, "the clock")
            race.read(first, key)
            race.read(first, key)


def skew(race: Race, rounds: int) -> None:
    """A sidecar whose clock is ahead stores a row; it is changed at once, and the other region's event has an earlier version than the entry."""
    east = race.arena.cluster["east"].outriggers
    ahead, writer = east[1], race.arena.cluster["west"].outriggers[0]
    for _ in range(rounds):
        key = race.arena.fresh("hot:")
        _until(lambda: race.total(east, "outrigger_bus_applied_total") == race.total(east, "outrigger_bus_received_total"), "nothing being under way")
        before = race.total(east, "outrigger_bus_applied_total")
        is_filled = race.filled(ahead, "hot")
        race.read(ahead, key)
        _until(is_filled, "the fill")
        seq = race.arena.write_row(key)
        race.delete(writer, key, seq)
        _until(lambda: race.total(east, "outrigger_bus_applied_total") > before, "east applying the event")
        for sidecar in east:
            if race.read(sidecar, key) < seq:
                violation = Violation(f"east has applied the invalidation of {key} for write {seq}, and {sidecar.name} still has an older one", key, "east")
                race.history.violated(violation)
                raise violation


def post_write_tombstone(race: Race, rounds: int) -> None:
    """A set waits for the row's lock in the database; meanwhile its lease is lost (evicted), and a reader stores the old row."""
    first, second = race.arena.cluster["west"].outriggers
    done = 0
    while done < rounds:
        key = race.arena.fresh("whot:")
        row = arenas.row_of(key)
        connection = race.arena.primary.connect(arenas.SCHEMA, autocommit=False)
        with connection, connection.cursor() as cursor, Wire(first.port) as writer:
            cursor.execute("SELECT v FROM races WHERE k = %s FOR UPDATE", (row,))
            value, started = value_of(row, 1), time.time()
            writer.send(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value))
            _until(lambda: any(node.command(b"md %s\r\n" % key.encode()).startswith(b"HD") for node in race.arena.cluster["west"].nodes),
                   "the lease of the set, to be evicted")
            is_filled = race.filled(second, "whot")
            race.read(second, key)
            _until(is_filled, "the fill")
            connection.rollback()
            answer = writer.line()
        race.history.wrote(key, Write(1, "west", first.name, started, time.time(), answer))
        if answer != "STORED":
            continue  # it was held up for too long
        race.read(first, key)
        race.read(second, key)
        done += 1


def short_life(race: Race, rounds: int) -> None:
    """No guard of its own: what was stored over an invalidation expires before the replica shows the change: by its namespace's ttl, by a client's
    touch, after a set."""
    west = race.arena.cluster["west"]
    first = west.outriggers[0]

    def is_gone(key: str) -> bool:
        return all(n.command(b"me %s\r\n" % key.encode()) == b"EN\r\n" for n in west.nodes)

    def by_ttl(key: str) -> None:
        race.delete(first, key, race.arena.write_row(key))
        is_filled = race.filled(first, key.partition(":")[0])
        race.read(first, key)
        _until(is_filled, "the fill")

    def by_touch(key: str) -> None:
        by_ttl(key)
        with Wire(first.port) as wire:
            wire.send(b"touch %s 1\r\n" % key.encode())
            assert wire.line() == "TOUCHED"

    def by_set(key: str) -> None:
        value, started = value_of(arenas.row_of(key), 1), time.time()
        with Wire(first.port) as wire:
            answer = wire.set(key, value)
        race.history.wrote(key, Write(1, "west", first.name, started, time.time(), answer))
        assert answer == "STORED", answer

    for _ in range(rounds):
        race.uses_replica(first)
        changes = {race.arena.fresh(prefix): change for change, prefix in ((by_ttl, "fleeting:"), (by_touch, "hot:"), (by_set, "wfleeting:"))}
        race.arena.replica.wait_for_gtid(race.arena.primary.gtid())
        with race.stopped_replica():
            for key, change in changes.items():
                change(key)
            left = list(changes)
            while left:
                key = _until(lambda: next((k for k in left if is_gone(k)), None), f"{left} expiring")
                left.remove(key)
                race.read(first, key)
                race.read(first, key)


#: By the guard whose absence each shows.
BY_GUARD: Dict[str, Callable[[Race, int], None]] = {
    "fill_cas": fill_cas,
    "tombstone_version": tombstone_version,
    "as_of": as_of,
    "skew": skew,
    "post_write_tombstone": post_write_tombstone,
}
OTHERS: Dict[str, Callable[[Race, int], None]] = {"short_life": short_life}

__all__ = ["BY_GUARD", "OTHERS", "Race"]
