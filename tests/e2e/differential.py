"""The same streams to memcached 1.6.38 and to a sidecar in front of another one, and what both answer.

Every case goes in one piece, cut into odd pieces, cut into single bytes, and through a unix socket. What is compared is all that
comes back, and whether the connection is still open then.
"""

import getpass
import random
import re
import select
import socket
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import pytest

from support import Address, DEADLINE, Wire, serves  # first: it makes the others importable
import streams
from local import paths
from local.process import Process
from streams import Case

WAIT = 5.0  #: for an answer that memcached has given; only a failure takes so long
BYTEWISE_MAX = 3100  #: longer streams are not cut into single bytes
QUIET = 4  #: turns of memcached's only loop without a byte; it takes up to 20 requests of a connection in one
TRIES = 4  #: what memcached says to a line of over 2,048 bytes, say, depends on how much of it has arrived when it looks


class Difference(NamedTuple):
    """What stays different on purpose."""

    cases: str  #: a pattern that the cases' names match
    answer: bytes  #: what the sidecar says instead: a pattern that all of it matches
    reason: str


def difference(table: Sequence[Difference], case: Case) -> Optional[Difference]:
    return next((d for d in table if re.fullmatch(d.cases, case.name)), None)


# ---- cutting

def whole(piece: bytes) -> List[bytes]:
    return [piece]


def odd(piece: bytes) -> List[bytes]:
    """Pieces of lengths that have nothing to do with lines, few enough for long streams."""
    chance = random.Random(piece[:100])
    most = max(11, len(piece) // 20)
    cut = []
    while piece:
        length = chance.randint(1, most)
        cut.append(piece[:length])
        piece = piece[length:]
    return cut


def bytewise(piece: bytes) -> List[bytes]:
    return [piece[i:i + 1] for i in range(len(piece))]


Cut = Callable[[bytes], List[bytes]]
HOWS = {"whole": whole, "odd": odd, "bytes": bytewise, "unix": whole}


def runs(cases: Sequence[Case], every: int = 1) -> List[Any]:
    """Parameters "case, how" of a test, one for each way to send each case; but only every so many of what can be cut into single bytes is
    also cut into odd pieces, and of all of them sent through a unix socket."""
    chosen = []
    for how in HOWS:
        for i, case in enumerate(cases):
            short = sum(map(len, case.pieces)) <= BYTEWISE_MAX
            if how == "whole" or (how == "bytes" and short) or (how == "odd" and not short) or (how != "bytes" and i % every == 0):
                chosen.append(pytest.param(case, how, id=f"{how}-{case.name}"))
    return chosen


# ---- a conversation

class Answer(NamedTuple):
    text: bytes
    is_open: bool


class Talk:
    """One client, and what it has been answered so far."""

    def __init__(self, address: Address, dialect: Any = streams.Text, sent: bytes = b""):
        self.wire = Wire(address, WAIT)
        self.dialect = dialect
        self.sent = sent  #: all that will be: for normalise()
        self.text = b""
        self.is_open = True

    def send(self, piece: bytes) -> None:
        """Takes answers meanwhile: neither side reads while it can not write."""
        left = memoryview(piece)
        self.wire.socket.settimeout(0)
        try:
            while left and self.is_open:
                readable, writable, _ = select.select([self.wire.socket], [self.wire.socket], [], DEADLINE)
                assert readable or writable, "neither reads nor writes"
                if writable:
                    left = left[self.wire.socket.send(left):]
                elif self.receive(0):
                    self.wire.socket.settimeout(0)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has hung up; receive() will see it
        finally:
            self.wire.socket.settimeout(WAIT)

    def receive(self, seconds: float) -> bool:
        """Waits for something, for so long; 0: takes what is there. False if there was nothing."""
        self.wire.socket.settimeout(seconds)
        try:
            piece = self.wire.socket.recv(1 << 20)
        except (socket.timeout, BlockingIOError):
            return False
        except ConnectionResetError:
            piece = b""
        finally:
            self.wire.socket.settimeout(WAIT)
        self.text += piece
        self.is_open = self.is_open and bool(piece)
        return bool(piece)

    def result(self) -> Answer:
        return Answer(self.dialect.normalise(self.text, self.sent), self.is_open)

    def until(self, expected: Answer, seconds: float = WAIT) -> bool:
        """Receives until that is all that has been answered; False if it does not come to that."""
        end = time.monotonic() + seconds
        while True:
            result = self.result()
            lines = result.text[:result.text.rfind(b"\n") + 1]
            if result == expected or not (self.is_open and expected.text.startswith(lines) and time.monotonic() < end):
                return result == expected
            self.receive(max(0.0, end - time.monotonic()))


class Pings:
    """Round trips on other connections, one after the other. With two, through unix sockets and with one thread at the other end, what was
    sent before has been looked at when they have come back: the first may be taken before it in the same turn of the loop, the second
    not. Otherwise that is only likely, which is good enough for having pieces arrive by themselves."""

    def __init__(self, address: Address, count: int = 2):
        self.wires = [Wire(address) for _ in range(count)]

    def __call__(self) -> None:
        for wire in self.wires:
            assert wire.ask(b"version\r\n").startswith(b"VERSION ")

    def close(self) -> None:
        for wire in self.wires:
            wire.close()


def needs_answers(piece: bytes) -> bool:
    return streams.CAS in piece or streams.CAS_BINARY in piece


class Expected(NamedTuple):
    answer: Answer
    so_far: List[Answer]  #: in front of every piece that needs what was answered before it


def ask_memcached(path: Address, pings: Pings, pieces: Sequence[bytes], cut: Cut = whole, dialect: Any = streams.Text) -> Expected:
    """memcached's answer, which is whole once it says no more in several turns of its loop."""
    talk = Talk(path, dialect, b"".join(pieces))
    talk.wire.ask(dialect.hello, dialect.hello_end)  # another thread accepts it: only now the one that serves it has it
    so_far = []

    def settle() -> None:
        quiet = 0
        while talk.is_open and quiet < QUIET:
            pings()
            quiet = 0 if talk.receive(0) else quiet + 1
    for piece in pieces:
        if needs_answers(piece):
            settle()
            so_far.append(talk.result())
        for part in cut(dialect.substitute(piece, talk.text)):
            talk.send(part)
            pings()
            talk.receive(0)
    settle()
    talk.wire.close()
    return Expected(talk.result(), so_far)


def ask_outrigger(address: Address, pings: Optional[Pings], pieces: Sequence[bytes], expected: Optional[Expected], cut: Cut = whole,
                  dialect: Any = streams.Text, seconds: float = WAIT) -> Answer:
    """The sidecar's answer: what comes until it is the expected one, and whatever comes after that once we send no more. What is cut
    arrives in pieces if there are `pings`. An answer that does not come is waited for for so many seconds."""
    talk = Talk(address, dialect, b"".join(pieces))
    so_far = iter(expected.so_far if expected else ())
    try:
        for piece in pieces:
            if needs_answers(piece) and expected and not talk.until(next(so_far), seconds):
                return talk.result()
            parts = cut(dialect.substitute(piece, talk.text))
            for part in parts:
                talk.send(part)
                if pings and len(parts) * len(pieces) > 1:
                    pings()
        if expected:
            talk.until(expected.answer, seconds)
        result = talk.result()
        if talk.is_open:
            try:
                talk.wire.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has hung up
            while talk.is_open and talk.receive(WAIT):
                pass
            result = result._replace(text=talk.result().text)
        return result
    finally:
        talk.wire.close()


# ---- the two

class Pair:
    """A memcached, and a sidecar in front of another (or, while tests are written, only that other); both as a case wants to find them:
    having stored something before."""

    def __init__(self, reference: Address, sidecar: Address, sidecar_socket: Address, node: Address):
        self.reference, self.sidecar, self.sidecar_socket = reference, sidecar, sidecar_socket
        self.is_stand_in = sidecar == node
        for address in (reference, sidecar):
            for _ in range(3):
                assert serves(address)
        self.to_reference, self.to_sidecar = Pings(reference), Pings(sidecar_socket)
        self._stores = [Wire(reference), Wire(node)]
        self._known: Dict[str, Expected] = {}  # by the cases' names

    def flush(self) -> None:
        for wire in self._stores:
            assert wire.ask(b"flush_all\r\n") == b"OK\r\n"

    def compare(self, case: Case, how: str, differences: Sequence[Difference] = (), dialect: Any = streams.Text) -> None:
        """The same answers, in one of a few tries: a real difference is there in all of them. What memcached has said to the whole case is
        asked for in pieces only if the sidecar says something else to those. Where a difference is listed, it must be one."""
        address, cut = self.sidecar_socket if how == "unix" else self.sidecar, HOWS[how]
        different = difference(differences, case)
        for left in reversed(range(TRIES)):
            self.flush()
            expected = None if different else self._known.pop(case.name, None) if how != "whole" else None
            if expected is None and not different:
                expected = ask_memcached(self.reference, self.to_reference, case.pieces, cut, dialect)
            got = ask_outrigger(address, self.to_sidecar, case.pieces, expected, cut, dialect)
            if expected.answer == got if expected else re.fullmatch(different.answer, got.text):
                if expected:
                    self._known[case.name] = expected
                elif how == "whole":
                    self.flush()
                    assert ask_memcached(self.reference, self.to_reference, case.pieces, cut, dialect).answer != got, f"no difference any more: {different}"
                return
            if left == 0:
                raise AssertionError(f"{case.notes}\nsidecar:   {got!r:.4000}\nmemcached: {expected.answer if expected else different.reason!r:.4000}")

    def close(self) -> None:
        self.to_reference.close()
        self.to_sidecar.close()
        for wire in self._stores:
            wire.close()


def reference(directory: Path) -> Iterator[Path]:
    """The path of a memcached's unix socket: over TCP a request could overtake one on another connection. A ping would then come
    back too early, and memcached forgets what it has not sent yet when it refuses the next request."""
    path = directory / "memcached.sock"
    process = Process("reference", [paths.MEMCACHED, "-u", getpass.getuser(), "-s", path, "-m", 64, "-t", 1], directory / "memcached.log")
    process.start()
    try:
        process.wait_until(lambda: serves(path), "answering")
        yield path
    finally:
        process.close()


def check_table(cases: Sequence[Case], differences: Sequence[Difference]) -> None:
    """A row that no case needs is out of date; a case that says it differs needs a row."""
    for row in differences:
        assert any(difference(differences, c) is row for c in cases), row
    for case in cases:
        if case.notes.startswith(("differs:", "own:")):
            assert difference(differences, case) is not None, case.name
