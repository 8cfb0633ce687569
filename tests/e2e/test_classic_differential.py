"""The classic text protocol, answer for answer: the same streams to memcached 1.6.38 and to a sidecar in front of another one.

Every case goes in one piece, cut into odd pieces, cut into single bytes, and through a unix socket. What is compared is all that
comes back, and whether the connection is still open then.
"""

import getpass
import random
import re
import socket
from pathlib import Path
from typing import List, NamedTuple, Optional

import pytest

import classic_cases
from local import paths
from local.memcached import Memcached
from local.process import Process
from support import Address, Outrigger, Wire, serves, wait

BYTEWISE_MAX = 3100  #: longer streams are not cut into single bytes
WAIT = 5.0  #: for an answer that memcached has given; only a failure takes so long


class Difference(NamedTuple):
    cases: str  #: a pattern that the cases' names match
    answer: bytes  #: what the sidecar says instead: a pattern that all of it matches
    reason: str


#: All that stays different, on purpose. docs/protocols.md says the same for people.
DIFFERENCES = [
    Difference("meta-me", rb"STORED\r\nME a exp=-1 la=\d+ cas=\d+ fetch=no cls=\d+ size=\d+\r\nVALUE a 1 1\r\nA\r\nEND\r\n",
               "the entry's CAS is a version"),
    Difference("admin-.*", rb"ERROR\r\n", "about one node's memory; a sidecar stands for many nodes"),
    Difference("version.*", rb"VERSION 1\.6\.38-outrigger-\S+\r\n", "the sidecar's version, behind that of the memcached it speaks like"),
    Difference("stats", rb"(STAT \S+ .*\r\n)+END\r\n", "the sidecar's own counters"),
    Difference("too-large-2G|length-214748364[45]", rb"SERVER_ERROR object too large for cache\r\n",
               "memcached says so when it has swallowed the value, the sidecar at once"),
    Difference("gat-refused", rb"STORED\r\nCLIENT_ERROR bad command line format\r\nVALUE a 1 1\r\nA\r\nEND\r\n",
               "memcached touches the keys in front of the one that it refuses the line for, the sidecar none"),
]

CASES = classic_cases.CASES + [
    classic_cases.Case("gat-refused", [classic_cases.A, b"gat -1 a " + classic_cases.K251 + b"\r\n", b"get a\r\n"], "differs: see above"),
]


def difference(case: classic_cases.Case) -> Optional[Difference]:
    return next((d for d in DIFFERENCES if re.fullmatch(d.cases, case.name)), None)


# ---- cutting

def whole(pieces: List[bytes]) -> List[bytes]:
    return pieces


def odd(pieces: List[bytes]) -> List[bytes]:
    """Pieces of lengths that have nothing to do with lines, few enough for long streams."""
    chance = random.Random(b"".join(pieces)[:100])
    cut = []
    for piece in pieces:
        most = max(11, len(piece) // 20)
        while piece:
            length = chance.randint(1, most)
            cut.append(piece[:length])
            piece = piece[length:]
    return cut


def bytewise(pieces: List[bytes]) -> List[bytes]:
    return [bytes([b]) for piece in pieces for b in piece]


# ---- a conversation

class Answer(NamedTuple):
    text: bytes
    is_open: bool


class Talk:
    """One client, and what it has been answered so far."""

    def __init__(self, address: Address):
        self.wire = Wire(address)
        self.text = b""
        self.is_open = True

    def send(self, piece: bytes) -> None:
        try:
            self.wire.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has hung up; receive() will see it

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
        return Answer(classic_cases.normalise(self.text), self.is_open)


class Pings:
    """Round trips on other connections, one after the other. With two, through unix sockets and with one thread at the other end, what was
    sent before has been looked at when they have come back: the first may be taken before it in the same turn of the loop, the second
    not. Otherwise that is only likely, which is good enough for having pieces arrive by themselves."""

    def __init__(self, address: Address, count: int):
        self.wires = [Wire(address) for _ in range(count)]

    def __call__(self) -> None:
        for wire in self.wires:
            assert wire.ask(b"version\r\n").startswith(b"VERSION ")

    def close(self) -> None:
        for wire in self.wires:
            wire.close()


QUIET = 4  #: turns of memcached's only loop without a byte; it takes up to 20 requests of a connection in one


def ask_memcached(path: Path, pings: Pings, pieces: List[bytes]) -> Answer:
    """memcached's answer, which is whole once it says no more in several turns of its loop."""
    talk = Talk(path)
    assert talk.wire.ask(b"version\r\n").startswith(b"VERSION ")  # another thread accepts it: only now the one that serves it has it
    for piece in pieces:
        talk.send(piece)
        pings()
        talk.receive(0)
    quiet = 0
    while talk.is_open and quiet < QUIET:
        pings()
        quiet = 0 if talk.receive(0) else quiet + 1
    talk.wire.close()
    return talk.result()


def ask_outrigger(address: Address, pings: Pings, pieces: List[bytes], expected: Optional[Answer]) -> Answer:
    """The sidecar's answer: what comes until it is the expected one, and whatever comes after that once we send no more."""
    talk = Talk(address)
    for piece in pieces:
        talk.send(piece)
        if len(pieces) > 1:
            pings()
    end = wait.time.monotonic() + WAIT
    while expected is not None and talk.is_open and talk.result() != expected and wait.time.monotonic() < end:
        talk.receive(end - wait.time.monotonic())
    result = talk.result()
    if talk.is_open:
        talk.wire.socket.shutdown(socket.SHUT_WR)
        while talk.is_open and talk.receive(WAIT):
            pass
        result = result._replace(text=talk.result().text)
    talk.wire.close()
    return result


# ---- the tests

@pytest.fixture(scope="module")
def reference(directory):
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


class Pair(NamedTuple):
    """A memcached, and a sidecar in front of another; both as a case wants to find them: having stored something before."""

    reference: Path
    outrigger: Outrigger
    node: Memcached
    to_reference: Pings
    to_outrigger: Pings


@pytest.fixture(scope="module")
def pair(plain, reference):
    for address in (reference, plain.outrigger.port):
        for _ in range(3):
            assert serves(address)
    pair = Pair(reference, plain.outrigger, plain.node, Pings(reference, 2), Pings(plain.outrigger.socket, 2))
    yield pair
    pair.to_reference.close()
    pair.to_outrigger.close()


def flush(pair: Pair) -> None:
    for server in (pair.reference, pair.node.port):
        with Wire(server) as wire:
            assert wire.ask(b"flush_all\r\n") == b"OK\r\n"


TRIES = 4  #: what memcached says to a line of over 2,048 bytes, say, depends on how much of it has arrived when it looks


def compare(pair: Pair, case: classic_cases.Case, pieces: List[bytes], address: Address) -> None:
    """The same answers, in one of a few tries: a real difference is there in all of them."""
    for left in reversed(range(TRIES)):
        try:
            compare_once(pair, case, pieces, address)
            return
        except AssertionError:
            if left == 0:
                raise


def compare_once(pair: Pair, case: classic_cases.Case, pieces: List[bytes], address: Address) -> None:
    different = difference(case)
    if different is not None:
        flush(pair)
        got = ask_outrigger(address, pair.to_outrigger, pieces, None)
        assert re.fullmatch(different.answer, got.text), (got.text[:1000], different.reason)
        return
    # memcached leaves spaces behind a number that has become shorter, but not while its housekeeping has the item in its hands.
    tries = 2 if b"cr n" in b"".join(pieces) else 1
    for _ in range(tries):
        flush(pair)
        expected = ask_memcached(pair.reference, pair.to_reference, pieces)
        got = ask_outrigger(address, pair.to_outrigger, pieces, expected)
        if got == expected:
            return
    assert got == expected, case.notes


def ids(case: classic_cases.Case) -> str:
    return case.name


SHORT = [c for c in CASES if sum(map(len, classic_cases.pieces(c))) <= BYTEWISE_MAX]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_whole(pair, case):
    compare(pair, case, whole(classic_cases.pieces(case)), pair.outrigger.port)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_odd_pieces(pair, case):
    compare(pair, case, odd(classic_cases.pieces(case)), pair.outrigger.port)


@pytest.mark.parametrize("case", SHORT, ids=ids)
def test_single_bytes(pair, case):
    compare(pair, case, bytewise(classic_cases.pieces(case)), pair.outrigger.port)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_unix_socket(pair, case):
    compare(pair, case, whole(classic_cases.pieces(case)), pair.outrigger.socket)


def random_session(seed: int) -> List[bytes]:
    """Requests that follow from each other: a few keys, mostly good grammar. Each is a piece of its own, since memcached forgets the
    answers that it has not sent yet when it refuses a request."""
    chance = random.Random(seed)
    keys = [b"a", b"b", b"n", b"n", b"k" * 250, b"k" * 251, b"get", b"\xc3\xa4", b"a\tb"]
    times = [b"0", b"0", b"0", b"100", b"-1", b"2592001", b"4102444800", b"x"]
    numbers = [b"0", b"1", b"7", b"18446744073709551615", b"-1", b"x"]
    # Numbers never get shorter, since it depends on memcached's housekeeping whether spaces are left behind them then; and no value is
    # b"\r\n", beyond which memcached reads when it is to be incremented.
    values = [b"", b"1", b"10", b"184467440737095516", b"word", b"x\r\ny", b"v" * 3000, b"v" * 70_000]
    ends = [b"\r\n", b"\r\n", b"\r\n", b"\n", b" noreply\r\n", b" \r\n", b" extra\r\n"]

    def one() -> bytes:
        key, end, verb = chance.choice(keys), chance.choice(ends), chance.choice(VERBS)
        if verb in (b"get", b"gets", b"bget"):
            return verb + b"".join(b" " + chance.choice(keys) for _ in range(chance.randint(0, 6))) + b"\r\n"
        if verb in (b"gat", b"gats"):
            return b" ".join([verb, chance.choice(times)] + [chance.choice(keys[:5]) for _ in range(chance.randint(0, 4))]) + b"\r\n"
        if verb in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
            value = chance.choice(values)
            if len(value) > 1000:  # not where it could be taken for a line: memcached hangs up on long ones
                if seed % 2 == 0:
                    return b"get a\r\n"
                return b"%s a 0 0 %d%s\r\n%s\r\n" % (verb, len(value), b" 1" if verb == b"cas" else b"", value)
            length = len(value) + (chance.choice([-1, 1, 3]) if seed % 2 == 0 and chance.random() < 0.05 and value else 0)
            unique = b" " + chance.choice(numbers) if verb == b"cas" else b""
            return b"%s %s %s %s %d%s%s%s\r\n" % (verb, key, chance.choice(numbers), chance.choice(times), length, unique, end, value)
        if verb in (b"incr", b"touch"):
            return b"%s %s %s%s" % (verb, key, chance.choice(times if verb == b"touch" else [b"0", b"1", b"7", b"x"]), end)
        return verb + (b" " + key if verb == b"delete" else b" 1" if verb == b"verbosity" else b"") + end
    return [one() for _ in range(150)]


VERBS = [b"get", b"get", b"gets", b"bget", b"gat", b"gats", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"incr", b"touch",
         b"delete", b"flush_all", b"verbosity", b"nonsense"]


@pytest.mark.parametrize("seed", range(60))
def test_random_session(pair, seed):
    """Request by request."""
    flush(pair)
    memcached, outrigger = Talk(pair.reference), Talk(pair.outrigger.port)
    assert memcached.wire.ask(b"version\r\n").startswith(b"VERSION ")
    for request in random_session(seed):
        memcached.send(request)
        for _ in range(2):
            pair.to_reference()
            memcached.receive(0)
        outrigger.send(request)
        while outrigger.result() != memcached.result() and outrigger.receive(WAIT):
            pass
        assert outrigger.result() == memcached.result(), request[:300]
    memcached.wire.close()
    outrigger.wire.close()


def test_every_difference_is_met():
    """A row that no case needs is out of date; a case that says it differs needs a row."""
    for row in DIFFERENCES:
        assert any(difference(c) is row for c in CASES), row
    for case in CASES:
        if case.notes.startswith(("differs:", "own:")):
            assert difference(case) is not None, case.name
