"""Clients that delete keys through a sidecar, pipelined, and one that looks when a deleted key is gone elsewhere."""

import multiprocessing
import resource
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any, List, Sequence, Tuple

KEYS = 100_000  # different ones; each is deleted again and again
BURST = 256     # deletes sent together on a connection
PREFIX = "bench:package:"
POLL_S = 0.0001  # between two looks at whether a key is gone: what it adds to a lag; without it, looking would take a core from what is measured


class _Connection:
    """Bursts of deletes; at most two are under way."""

    def __init__(self, port: int, bursts: Sequence[bytes]):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bursts = bursts
        self._next = 0
        self.sent = self.answered = self.errors = 0
        self._rest = b""

    @property
    def under_way(self) -> int:
        return self.sent - self.answered

    def send(self) -> None:
        self.socket.sendall(self._bursts[self._next % len(self._bursts)])
        self._next += 1
        self.sent += BURST

    def hear(self) -> None:
        data = self._rest + self.socket.recv(1 << 18)
        if len(data) == len(self._rest):
            raise ConnectionError("the sidecar has closed the connection")
        lines, newline, self._rest = data.rpartition(b"\n")
        count = (lines + newline).count(b"\n")
        self.answered += count
        if b"ERROR" in lines:
            self.errors += lines.count(b"ERROR")


@dataclass
class Sent:
    answered: int = 0
    errors: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0  # from the first byte to the last answer


def _run(port: int, connections: int, seconds: float, rate: float) -> Sent:
    """rate: deletes a second; 0: as many as are answered."""
    bursts = [b"".join(b"delete %s%08d\r\n" % (PREFIX.encode(), n) for n in range(first, first + BURST)) for first in range(0, KEYS, BURST)]
    share = len(bursts) // connections
    poll = select.epoll()
    all_of_them = [_Connection(port, bursts[i * share:(i + 1) * share]) for i in range(connections)]
    by_fd = {c.socket.fileno(): c for c in all_of_them}
    for connection in all_of_them:
        poll.register(connection.socket, select.EPOLLIN)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_before = usage.ru_utime + usage.ru_stime
    begin = time.perf_counter()
    sent = 0
    while True:
        now = time.perf_counter() - begin
        is_over = now >= seconds
        due = float("inf") if rate == 0 else rate * now
        ready = [c for c in all_of_them if c.under_way <= BURST]
        for connection in ready if not is_over else ():
            if sent + BURST > due:
                break
            connection.send()
            sent += BURST
        if is_over and not any(c.under_way for c in all_of_them):
            break
        for fd, _ in poll.poll(0.001 if rate else 0.1):
            by_fd[fd].hear()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Sent(sum(c.answered for c in all_of_them), sum(c.errors for c in all_of_them), usage.ru_utime + usage.ru_stime - cpu_before,
                time.perf_counter() - begin)


class Deleter:
    """The clients, in a process of their own."""

    def __init__(self, port: int, connections: int, seconds: float, rate: float = 0.0):
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=self._work, args=(theirs, port, connections, seconds, rate), daemon=True)
        self._process.start()
        theirs.close()

    @staticmethod
    def _work(out: Any, *of: Any) -> None:
        try:
            out.send(_run(*of))
        except Exception as e:  # pylint: disable=broad-except  # told where it can be raised
            out.send(e)

    def finish(self) -> Sent:
        """Waits for the end. Fails with what the clients failed with."""
        result = self._ours.recv()
        self._process.join()
        if isinstance(result, Exception):
            raise result
        return result


@dataclass
class Lags:
    """Seconds from the moment before a delete is sent to the one at which a node of each other region does not have the key any more."""
    all: List[float] = field(default_factory=list)

    def ms(self, share: float) -> float:
        ordered = sorted(self.all)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Line:
    """One connection for one request at a time."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port), 10.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, text: bytes, end: bytes = b"\r\n") -> bytes:
        self._socket.sendall(text)
        reply = b""
        while not reply.endswith(end):
            reply += self._socket.recv(4096)
        return reply


def probe(sidecar: int, nodes: Sequence[Tuple[str, int]], count: int, pause_s: float) -> Lags:
    """Deletes `count` keys, one at a time, that each of `nodes` (one memcached of each other region) has, and asks them until it is gone."""
    lags = Lags()
    client = _Line(sidecar)
    lines = [_Line(port) for _, port in nodes]
    for i in range(count):
        key = b"bench:probe:%08d" % i
        for line in lines:
            line.ask(b"ms %s 1\r\nx\r\n" % key)
        time.sleep(pause_s)
        begin = time.perf_counter()
        client.ask(b"delete %s\r\n" % key)
        for line in lines:
            while line.ask(b"mg %s\r\n" % key) != b"EN\r\n":
                time.sleep(POLL_S)
                if time.perf_counter() - begin > 30.0:
                    raise TimeoutError("a deleted key is still in another region after 30 s")
        lags.all.append(time.perf_counter() - begin)
    return lags
