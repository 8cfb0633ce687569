"""Clients that go on whatever happens, and note when they asked and when they were answered what."""

import socket
import threading
import time
from typing import Any, List, NamedTuple, Optional, Sequence

from local.outrigger import Outrigger

_PAUSE = 0.02
_RETRY = 0.05
_TIMEOUT = 8.0  #: longer than a write waits for a region that has to be suspended


class Asked(NamedTuple):
    begin: float  #: monotonic
    end: float
    is_good: bool
    answer: str  #: its first line, or what became of the connection


class Span(NamedTuple):
    """A time that is looked at."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def longest_gap(asked: Sequence[Asked], span: Span) -> float:
    """Seconds without a good answer: between two that came, or until the end. An answer before or after it counts, so that its edges are no gap."""
    ends = [a.end for a in asked if a.is_good]
    before = max((end for end in ends if end <= span.begin), default=span.begin)
    inside = sorted(end for end in ends if span.begin < end <= span.end)
    points = [before, *inside, span.end]
    return max(b - a for a, b in zip(points, points[1:]))


def failures(asked: Sequence[Asked], span: Span) -> int:
    """Answers that were errors. A connection that was lost is none: the client tries again elsewhere."""
    return sum(not a.is_good and "ERROR" in a.answer for a in within(asked, span))


def slowest(asked: Sequence[Asked], span: Span) -> float:
    return max((a.end - a.begin for a in within(asked, span)), default=0.0)


def within(asked: Sequence[Asked], span: Span) -> List[Asked]:
    return [a for a in asked if span.begin < a.end and a.begin < span.end]


class Probe(threading.Thread):
    """One client in one region. It is connected to the sidecar `at` for as long as that answers, else to the next one."""

    def __init__(self, region: str, kind: str, sidecars: List[Outrigger], stop: threading.Event):
        super().__init__(name=f"{region}-{kind}", daemon=True)
        self.region = region
        self.kind = kind
        self.asked: List[Asked] = []
        self.error: Optional[BaseException] = None
        self._sidecars = sidecars
        self._stopping = stop
        self._at = 0
        self._count = 0
        self._socket: Optional[socket.socket] = None
        self._lines: Any = None
        self._wanted = 0

    def move(self, at: int) -> None:
        """To this sidecar, from the next operation on."""
        self._wanted = at

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._wanted != self._at:
                    self._close()
                    self._at = self._wanted
                self._ask()
                self._stopping.wait(_PAUSE)
        except BaseException as e:  # whoever waits for us raises it
            self.error = e
        finally:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._lines.close()
            self._socket.close()
            self._socket = None

    def _ask(self) -> None:
        begin, answer = time.monotonic(), ""
        try:
            if self._socket is None:
                sidecar = self._sidecars[self._at]
                with sidecar.process.inside():
                    self._socket = socket.create_connection(("127.0.0.1", sidecar.port), _TIMEOUT)
                self._lines = self._socket.makefile("rb")
            self._socket.sendall(self._request())
            answer = self._answer()
            is_good = "ERROR" not in answer
        except OSError as e:
            is_good, answer = False, type(e).__name__
            self._close()
            self._at = self._wanted = (self._at + 1) % len(self._sidecars)
        self.asked.append(Asked(begin, time.monotonic(), is_good, answer))
        if not is_good:
            self._stopping.wait(_RETRY)

    def _request(self) -> bytes:
        self._count += 1
        value = b"%d" % self._count
        if self.kind == "strong-write":
            return b"set strong:%s 0 0 %d\r\n%s\r\n" % (self.region.encode(), len(value), value)
        if self.kind == "strong-read":
            return b"get strong:%d\r\n" % (self._count % KEYS)
        if self.kind == "eventual-read":
            return b"get eventual:%d\r\n" % (self._count % KEYS)
        key = b"cached:%s" % self.region.encode()
        return b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value) if self._count % 2 else b"delete %s\r\n" % key

    def _answer(self) -> str:
        """The first word, or the error line; of a value all is read."""
        line = self._lines.readline(4096)
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed")
        words = line.split()
        if words[0] == b"VALUE":
            data = self._lines.read(int(words[3]) + 7)
            if not data.endswith(b"\r\nEND\r\n"):
                raise ConnectionError("closed")
        return (line if words[0].endswith(b"ERROR") else words[0]).decode(errors="replace").strip()


KINDS = ("strong-write", "strong-read", "eventual-read", "eventual-write")
KEYS = 20  #: that are read, of each namespace


class Sampler(threading.Thread):
    """Whether each sidecar serves strong hits from its region's pool, looked at every now and then."""

    def __init__(self, region: str, sidecar: Outrigger, stop: threading.Event):
        super().__init__(name=f"{sidecar.name}-sampler", daemon=True)
        self.region = region
        self.sidecar = sidecar
        self.seen: List[tuple] = []  #: (monotonic, True, False, or None: it does not answer)
        self._stopping = stop

    def run(self) -> None:
        while not self._stopping.wait(0.1):
            serves: Optional[bool] = None
            try:
                status, text = self.sidecar.http("GET", "/metrics", 1.0)
                serves = "\noutrigger_strong_serves 1\n" in text if status == 200 else None
            except OSError:
                pass
            self.seen.append((time.monotonic(), serves))

    def away(self, span: Span) -> float:
        """Seconds in which it answered that it does not serve."""
        inside = [s for s in self.seen if span.begin <= s[0] <= span.end]
        return sum(b[0] - a[0] for a, b in zip(inside, inside[1:]) if a[1] is False)
