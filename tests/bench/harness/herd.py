"""Readers of cold keys, and one of hot keys, while the database is away and when it is back."""

import multiprocessing
import random
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

RETRY_S = 0.1  # after an error, as an application might
HOT_PAUSE_S = 0.002


@dataclass
class Seen:
    """`events`: when a request had been answered (time.monotonic), in how many seconds, and with what: value, miss, error."""
    events: List[Tuple[float, float, str]] = field(default_factory=list)

    def between(self, begin: float, end: float) -> "Seen":
        return Seen([e for e in self.events if begin <= e[0] < end])

    def count(self, what: str) -> int:
        return sum(e[2] == what for e in self.events)

    def latency_ms(self, share: float, *what: str) -> float:
        times = sorted(e[1] for e in self.events if e[2] in what)
        return 1000 * times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


def _what(reply: bytes) -> str:
    return "value" if reply.startswith(b"VALUE ") else "miss" if reply.startswith(b"END") else "error"


def _is_complete(reply: bytes) -> bool:
    return reply.endswith(b"END\r\n") or (reply.startswith(b"SERVER_ERROR") and reply.endswith(b"\r\n"))


def _read_cold(ports: Sequence[int], keys: Sequence[str], stop: Any, out: Any) -> None:
    """One connection a port given; each reads one key at random after the other."""
    pick = random.Random(ports[0] + len(ports))
    seen = Seen()
    poll = select.epoll()
    sockets = {}
    for port in ports:
        s = socket.create_connection(("127.0.0.1", port))
        sockets[s.fileno()] = s
        poll.register(s, select.EPOLLIN)
    began: Dict[int, float] = {}
    due = {fd: time.monotonic() for fd in sockets}
    replies = {fd: b"" for fd in sockets}
    while not stop.is_set() or began:
        now = time.monotonic()
        for fd in [fd for fd, at in due.items() if at <= now]:
            del due[fd]
            if not stop.is_set():
                began[fd] = time.monotonic()
                sockets[fd].sendall(f"get {pick.choice(keys)}\r\n".encode())
        for fd, _ in poll.poll(0.01):
            replies[fd] += sockets[fd].recv(65536)
            if _is_complete(replies[fd]):
                what = _what(replies[fd])
                now = time.monotonic()
                seen.events.append((now, now - began.pop(fd), what))
                replies[fd] = b""
                due[fd] = now + (RETRY_S if what == "error" else 0.01)
    out.send(seen)


def _read_hot(port: int, keys: Sequence[str], stop: Any, out: Any) -> None:
    seen = Seen()
    with socket.create_connection(("127.0.0.1", port)) as s:
        for i in range(1 << 30):
            if stop.is_set():
                break
            began = time.monotonic()
            s.sendall(f"get {keys[i % len(keys)]}\r\n".encode())
            reply = s.recv(65536)
            while not _is_complete(reply):
                reply += s.recv(65536)
            now = time.monotonic()
            seen.events.append((now, now - began, _what(reply)))
            time.sleep(HOT_PAUSE_S)
    out.send(seen)


class Readers:
    """Processes that read until finish()."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._stop = self._context.Event()
        self._started: List[Tuple[Any, Any]] = []

    def _start(self, target: Any, *arguments: Any) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=target, args=(*arguments, self._stop, theirs), daemon=True)
        process.start()
        theirs.close()
        self._started.append((process, ours))

    def cold(self, ports: Sequence[int], keys: Sequence[str]) -> None:
        self._start(_read_cold, ports, keys)

    def hot(self, port: int, keys: Sequence[str]) -> None:
        self._start(_read_hot, port, keys)

    def finish(self) -> Seen:
        self._stop.set()
        seen = Seen()
        for process, pipe in self._started:
            seen.events += pipe.recv().events
            process.join()
        seen.events.sort()
        return seen
