"""Clients of the plain text protocol that note what they did and were answered."""

import random
import socket
import threading
import time
from typing import Any, List, NamedTuple, Optional, Tuple

from local.outrigger import Outrigger

from .history import FAILED, OK, UNKNOWN, Operation, Recorder

_TIMEOUT = 3.0
_RETRY = 0.02
_PAUSE = 0.01  #: between two operations, at most
_PADDING = 300
_BACK_OFF = 0.3  #: after an error line, at most
_EPOCH = 2.0  #: seconds that a counter or an added key is in use
_AT_ONCE = 3  #: of them

#: Error lines that say that nothing was written, and nothing will be.
_REFUSALS = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR not written", b"SERVER_ERROR namespace ")


class Mix(NamedTuple):
    """What is done how often, with a letter for each: get, set, gets and cas, delete, add, incr.

    Counters and added keys are new ones every few seconds: an incr or add of unknown outcome may be anywhere in what follows, and the checker would
    try all of it."""

    registers: str = "rrrrrrrwwwccd"
    counters: str = "rriii"
    added: str = "rraaad"
    shares: Tuple[int, int, int] = (1, 0, 0)  #: of the three kinds of keys


EVENTUAL = Mix()
STRONG = Mix(shares=(14, 3, 3))


class Connection:
    """To one sidecar, made when it is needed."""

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout
        self._socket: Optional[socket.socket] = None
        self._lines: Any = None

    def open(self, sidecar: Outrigger) -> bool:
        if self._socket is None:
            try:
                with sidecar.process.inside():
                    self._socket = socket.create_connection(("127.0.0.1", sidecar.port), self._timeout)
            except OSError:
                return False
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lines = self._socket.makefile("rb")
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._lines.close()
            self._socket.close()
            self._socket = None

    def line(self) -> bytes:
        line = self._lines.readline(4096)
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed")
        return line[:-2]

    def ask(self, request: bytes) -> bytes:
        """The first line of the answer."""
        self._socket.sendall(request)
        return self.line()

    def get(self, verb: bytes, key: str) -> Tuple[bytes, Optional[bytes], bytes]:
        """The first line, the data if that is a value's, and its CAS."""
        line = self.ask(b"%s %s\r\n" % (verb, key.encode()))
        if not line.startswith(b"VALUE "):
            return line, None, b""
        words = line.split()
        data = self._lines.read(int(words[3]) + 2)
        if len(data) != int(words[3]) + 2 or self.line() != b"END":
            raise ConnectionError("closed")
        return line, data[:-2] if words[1] == key.encode() else line, words[4] if len(words) > 4 else b""


def data_of(value: Any) -> bytes:
    return b"%d" % value if isinstance(value, int) else value.encode() + b" " + b"x" * _PADDING


def value_of(data: bytes) -> Any:
    """The value's name, a counter's number, or what there is when it is none of ours."""
    if data.isdigit():
        return int(data)
    name, _, padding = data.partition(b" ")
    return (name if padding == b"x" * _PADDING else data[:200]).decode(errors="replace")


class Client(threading.Thread):
    """One connection at a time to one sidecar of a region; after an error to the next. Each of its values is new.

    An error line and a lost connection leave it unknown whether a write took effect; a connection that could not be made, an error line that says
    that nothing was written, a cas that was answered EXISTS (the entry was another one, though perhaps of the same value) and NOT_FOUND leave no
    doubt: it did not."""

    def __init__(self, name: str, region: str, sidecars: List[Outrigger], keys: List[str], recorder: Recorder, seed: int, stop: threading.Event,
                 mix: Mix = EVENTUAL):
        super().__init__(name=name, daemon=True)
        self.error: Optional[BaseException] = None
        self._region, self._sidecars, self._keys, self._mix = region, sidecars, keys, mix
        self._noted, self._began = recorder.open(), recorder.began
        self._random = random.Random(seed)
        self._stopping = stop
        self._count = 0
        self._at = self._random.randrange(len(sidecars))
        self._connection = Connection()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
                self._stopping.wait(self._random.uniform(0, _PAUSE))
        except BaseException as e:  # whoever waits for us raises it
            self.error = e
        finally:
            self._connection.close()

    def _next(self) -> None:
        self._connection.close()
        self._at = (self._at + 1) % len(self._sidecars)
        self._stopping.wait(_RETRY)

    def _choose(self) -> Tuple[str, str]:
        """A key, and what is done to it."""
        kind = self._random.choices(("k", "n", "a"), self._mix.shares)[0]
        if kind == "k":
            return self._random.choice(self._keys), self._random.choice(self._mix.registers)
        prefix = self._keys[0].partition(":")[0]
        epoch = int((time.monotonic() - self._began) / _EPOCH)
        return f"{prefix}:{kind}{epoch}.{self._random.randrange(_AT_ONCE)}", self._random.choice(self._mix.counters if kind == "n" else self._mix.added)

    def _turn(self) -> None:
        if not self._connection.open(self._sidecars[self._at]):
            self._next()
            return
        key, kind = self._choose()
        try:
            expected, unique = None, b""
            if kind in "rc":
                begin = time.monotonic_ns()
                line, data, unique = self._connection.get(b"gets" if kind == "c" else b"get", key)
                end = time.monotonic_ns()
                if line != b"END" and data is None:
                    return  # an error: nothing was read
                expected = None if data is None else value_of(data)
                self._note("read", key, None, expected, begin, end, OK)
                if kind == "r" or expected is None:
                    return
        except OSError:
            self._next()
            return
        if self._change(key, kind, expected, unique) == b"NOT_FOUND" and kind == "i":
            self._change(key, "a", self._random.randrange(1, 1 << 50), b"")

    def _change(self, key: str, kind: str, expected: Any, unique: bytes) -> bytes:
        """The answer's line; of an add, `expected` is the value if it is a number."""
        self._count += 1
        value = expected if kind == "a" and expected is not None else f"{self.name}.{self._count}"
        data, delta = data_of(value), self._random.randrange(1, 1 << 40)  # sums tell which increments are in them
        name, argument, request = {
            "w": ("write", value, b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(data), data)),
            "a": ("cas", (None, value), b"add %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(data), data)),
            "c": ("cas", (expected, value), b"cas %s 0 0 %d %s\r\n%s\r\n" % (key.encode(), len(data), unique or b"0", data)),
            "i": ("incr", delta, b"incr %s %d\r\n" % (key.encode(), delta)),
            "d": ("delete", None, b"delete %s\r\n" % key.encode())}[kind]
        begin = time.monotonic_ns()
        try:
            answer = self._connection.ask(request)
        except OSError:
            self._note(name, key, argument, None, begin, None, UNKNOWN)
            self._next()
            return b""
        end = time.monotonic_ns()
        outcome, result = outcome_of(kind, answer)
        if outcome == OK and kind == "i" and result is None:  # there is nothing to be added to
            self._note("read", key, None, None, begin, end, OK)
        else:
            self._note(name, key, argument, result, begin, end if outcome != UNKNOWN else None, outcome)
        if b"ERROR" in answer:
            self._stopping.wait(self._random.uniform(0, _BACK_OFF))
        return answer

    def _note(self, kind: str, key: str, argument: Any, result: Any, begin: int, end: Optional[int], outcome: str) -> None:
        self._noted.append(Operation(kind, key, argument, result, begin, end, outcome, self.name, self._region, self._sidecars[self._at].name))


def outcome_of(kind: str, answer: bytes) -> Tuple[str, Any]:
    """The outcome and the result of a change."""
    if answer in (b"STORED", b"DELETED"):
        return OK, True
    if answer == b"NOT_FOUND" and kind in "di":
        return OK, False if kind == "d" else None
    if answer == b"NOT_STORED" and kind == "a":
        return OK, False
    if kind == "i" and answer.isdigit():
        return OK, int(answer)
    if answer in (b"EXISTS", b"NOT_FOUND") or answer.startswith(_REFUSALS):
        return FAILED, None
    return UNKNOWN, None
