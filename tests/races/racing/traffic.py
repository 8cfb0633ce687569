"""Writers and readers. They take every error as what it is: nothing was promised."""

import random
import threading
import time
from typing import Any, List, Optional, Tuple

from local.outrigger import Outrigger

from . import arena as arenas
from .arena import Arena
from .history import History, Write, value_of
from .wire import ServerError, Wire

_BATCH = 24
_PAUSE = 0.02  #: of a writer, at most, between two writes
_RETRY = 0.02


class _Client(threading.Thread):
    """One connection at a time, to one of the sidecars given, the next one after an error."""

    def __init__(self, name: str, history: History, sidecars: List[Tuple[str, Outrigger]], seed: int, stop: threading.Event):
        super().__init__(name=name, daemon=True)
        self.history = history
        self.sidecars = sidecars
        self.random = random.Random(seed)
        self.stopping = stop
        self.error: Optional[BaseException] = None
        self._wire: Optional[Wire] = None
        self._next = self.random.randrange(len(sidecars))

    def pick(self, keys: List[str]) -> str:
        """One to write."""
        calm = self.random.random() < arenas.CALM_SHARE
        return self.random.choice([key for key in keys if arenas.is_calm(key) == calm] or keys)

    @property
    def at(self) -> Tuple[str, Outrigger]:
        return self.sidecars[self._next % len(self.sidecars)]

    def wire(self) -> Wire:
        if self._wire is None:
            with self.at[1].process.inside():
                self._wire = Wire(self.at[1].port)
        return self._wire

    def lost(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._next += 1

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.turn()
        except BaseException as e:  # whoever waits for us raises it
            self.error = e
        finally:
            self.lost()

    def turn(self) -> None:
        raise NotImplementedError


class Reader(_Client):
    def __init__(self, keys: List[str], *arguments: Any):
        super().__init__(*arguments)
        self._keys = keys

    def turn(self) -> None:
        keys = self.random.choices(self._keys, k=self.random.randint(1, _BATCH))
        region, sidecar = self.at
        try:
            wire = self.wire()
            started = time.time()
            floors = [self.history.floor(region, key) for key in keys]
            answers = wire.get_all(keys)
        except OSError:
            self.lost()
            self.history.count(read_connections_lost=1)
            time.sleep(_RETRY)
            return
        read = errors = 0
        for key, answer, floor in zip(keys, answers, floors):
            if isinstance(answer, Exception):
                errors += 1
                continue
            read += 1
            self.history.read(key, arenas.row_of(key), answer, region, sidecar.name, started, floor)
        self.history.count(reads=read, read_errors=errors)


class Writer(_Client):
    """Of write: aside: updates the row, then sends delete until it is answered DELETED. Several of these may write the same keys."""

    def __init__(self, arena: Arena, keys: List[str], *arguments: Any):
        super().__init__(*arguments)
        self._arena = arena
        self._keys = keys
        self._database: Any = None

    def _update(self, row: str) -> int:
        """A statement that failed may have been carried out all the same; another one after it is carried out later, so its seq covers both."""
        while True:
            try:
                if self._database is None:
                    self._database = self._arena.primary.connect(arenas.SCHEMA, read_timeout=5, write_timeout=5)
                with self._database.cursor() as cursor:
                    cursor.execute(arenas.UPDATE, (row,))
                    return cursor.lastrowid
            except Exception:
                self.history.count(update_errors=1)
                if self._database is not None:
                    self._database.close()
                self._database = None
                time.sleep(_RETRY)

    def turn(self) -> None:
        key = self.pick(self._keys)
        seq = self._update(arenas.row_of(key))
        while True:
            region, sidecar = self.at
            started = time.time()
            try:
                answer = self.wire().delete(key)
            except OSError as e:
                self.lost()
                answer = f"{type(e).__name__}: {e}"
            self.history.wrote(key, Write(seq, region, sidecar.name, started, time.time(), answer))
            if answer == "DELETED":
                break
            self.history.count(write_errors=1)
            time.sleep(_RETRY)
        self.history.count(writes=1)
        self.stopping.wait(self.random.uniform(0, _PAUSE))


class ThroughWriter(_Client):
    """Of write: through: sets numbered values. It alone writes its keys, one write at a time, so that the numbers say which write is the last. After
    an error nobody knows whether the write took effect, or will."""

    def __init__(self, keys: List[str], *arguments: Any):
        super().__init__(*arguments)
        self._keys = keys
        self._last = dict.fromkeys(keys, 0)

    def turn(self) -> None:
        key = self.pick(self._keys)
        while True:
            self._last[key] += 1
            seq = self._last[key]
            region, sidecar = self.at
            started = time.time()
            self.history.unsettled[key].add(seq)
            try:
                answer = self.wire().set(key, value_of(arenas.row_of(key), seq))
            except OSError as e:
                self.lost()
                answer = f"{type(e).__name__}: {e}"
            if answer == "STORED":
                self.history.unsettled[key].discard(seq)
            self.history.wrote(key, Write(seq, region, sidecar.name, started, time.time(), answer))
            if answer == "STORED":
                break
            self.history.count(write_errors=1)
            time.sleep(_RETRY)
        self.history.count(writes=1)
        self.stopping.wait(self.random.uniform(0, _PAUSE))
        if self.random.random() < 0.05:
            self.lost()  # the next one through another sidecar, perhaps of another region


class Traffic:
    """All of them; started and ended together."""

    def __init__(self, arena: Arena, history: History, seed: int, readers: int = 2, writers: int = 4):
        self.history = history
        self.arena = arena
        numbers = random.Random(seed)
        self._stop_readers, self._stop_writers = threading.Event(), threading.Event()
        self.readers = [
            Reader(arena.keys, f"reader-{sidecar.name}-{i}", history, [(region, sidecar)], numbers.getrandbits(32), self._stop_readers)
            for region, sidecar in arena.sidecars() for i in range(readers)]
        self.writers: List[_Client] = []
        aside = [key for key in arena.keys if not arenas.is_through(key)]
        through = [key for key in arena.keys if arenas.is_through(key)]
        for i in range(writers):
            if aside:
                mine = [s for s in arena.sidecars() if s[0] == arenas.REGIONS[i % 2]]
                self.writers.append(Writer(arena, aside, f"writer-{i}", history, mine, numbers.getrandbits(32), self._stop_writers))
            if through:
                self.writers.append(ThroughWriter(through[i::writers], f"through-writer-{i}", history, arena.sidecars(), numbers.getrandbits(32),
                                                  self._stop_writers))

    def start(self) -> None:
        for client in [*self.readers, *self.writers]:
            client.start()

    def _end(self, clients: List[Any], deadline: float) -> None:
        end = time.monotonic() + deadline
        for client in clients:
            client.join(max(0.0, end - time.monotonic()))
            if client.error is not None:
                raise client.error
            if client.is_alive():
                raise AssertionError(f"{client.name} has not come to an end within {deadline:g} s: {self.history.counts}")

    def end_writers(self, deadline: float = 60.0) -> None:
        """After this every write has been acknowledged."""
        self._stop_writers.set()
        self._end(self.writers, deadline)

    def end_readers(self, deadline: float = 30.0) -> None:
        self._stop_readers.set()
        self._end(self.readers, deadline)

    def abort(self) -> None:
        self._stop_writers.set()
        self._stop_readers.set()


__all__ = ["ServerError", "Traffic"]
