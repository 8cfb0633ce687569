"""Clients that ask for keys which no node has yet: through Outrigger, or as an application that reads the database by itself."""

import multiprocessing
import resource
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import pymysql
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

PREFIX = "load:"


def row_name(number: int) -> str:
    return f"k{number:08}"


@dataclass(frozen=True)
class Aim:
    """What the clients of one run do. `kind`: raw (prepared requests on sockets, cheap), pymemcache (through Outrigger), in or each
    (pymemcache with the nodes, and with the database one SELECT … IN a multi-get, or one SELECT a key)."""
    kind: str
    sidecar: Tuple[str, int]
    nodes: Sequence[Tuple[str, int]]
    database: Dict[str, Any]  # of pymysql.connect
    clients: int
    per_request: int
    seconds: float
    rows: int  # of the table; each client has its own share, and reads each of it once


@dataclass
class Tally:
    keys: int = 0
    errors: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    latencies: List[float] = field(default_factory=list)  # of requests, in seconds


def _requests(aim: Aim, client: int) -> Iterator[List[str]]:
    share = aim.rows // aim.clients
    for first in range(client * share, (client + 1) * share - aim.per_request + 1, aim.per_request):
        yield [PREFIX + row_name(n) for n in range(first, first + aim.per_request)]


class _Raw:
    """One connection, with one request under way."""

    def __init__(self, aim: Aim, client: int):
        self._requests = ["get " + " ".join(keys) + "\r\n" for keys in _requests(aim, client)]
        self._requests.reverse()
        self._received: List[bytes] = []
        self.socket = socket.create_connection(aim.sidecar)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0

    def ask(self) -> bool:
        """False: there are no keys left."""
        if not self._requests:
            return False
        self.began = time.perf_counter()
        self.socket.sendall(self._requests.pop().encode())
        return True

    def hear(self, per_request: int) -> Tuple[bool, int]:
        """Whether the reply is complete, and how many values it has."""
        piece = self.socket.recv(1 << 18)
        self._received.append(piece)
        if not piece:
            raise ConnectionError("the sidecar has closed the connection")
        if not piece.endswith(b"\r\n"):
            return False, 0
        reply = b"".join(self._received)
        if not reply.endswith(b"END\r\n") and not reply.startswith(b"SERVER_ERROR"):
            return False, 0
        self._received.clear()
        return True, reply.count(b"VALUE ") if per_request > 1 else int(reply.startswith(b"VALUE "))


def _run_raw(aim: Aim, numbers: Sequence[int], ready: Callable[[], None]) -> Tally:
    tally = Tally()
    poll = select.epoll()
    by_fd = {}
    for number in numbers:
        raw = _Raw(aim, number)
        by_fd[raw.socket.fileno()] = raw
        poll.register(raw.socket, select.EPOLLIN)
    ready()
    begin = time.perf_counter()
    active = sum(raw.ask() for raw in by_fd.values())
    while active > 0:
        for fd, _ in poll.poll():
            raw = by_fd[fd]
            is_complete, values = raw.hear(aim.per_request)
            if not is_complete:
                continue
            now = time.perf_counter()
            tally.latencies.append(now - raw.began)
            tally.keys += values
            tally.errors += values != aim.per_request
            if now - begin >= aim.seconds or not raw.ask():
                active -= 1
    tally.seconds = time.perf_counter() - begin
    return tally


def _through(aim: Aim) -> Callable[[List[str]], int]:
    cache = Client(aim.sidecar, no_delay=True)
    return lambda keys: len(cache.get_many(keys))


def _by_itself(aim: Aim) -> Callable[[List[str]], int]:
    cache = HashClient(list(aim.nodes), no_delay=True)
    database = pymysql.connect(**aim.database)
    cursor = database.cursor()

    def read(keys: List[str]) -> int:
        found = cache.get_many(keys)
        missing = [key[len(PREFIX):] for key in keys if key not in found]
        if aim.kind == "in":
            cursor.execute(f"SELECT name, value FROM items WHERE name IN ({','.join(['%s'] * len(missing))})", missing)
            rows = cursor.fetchall()
        else:
            rows = []
            for name in missing:
                cursor.execute("SELECT name, value FROM items WHERE name = %s", (name,))
                rows += cursor.fetchall()
        cache.set_many({PREFIX + name: value for name, value in rows}, expire=3600)
        return len(found) + len(rows)
    return read


def _run_blocking(aim: Aim, number: int, ready: Callable[[], None]) -> Tally:
    tally = Tally()
    read = _through(aim) if aim.kind == "pymemcache" else _by_itself(aim)
    ready()
    begin = time.perf_counter()
    for keys in _requests(aim, number):
        began = time.perf_counter()
        if began - begin >= aim.seconds:
            break
        got = read(keys)
        tally.latencies.append(time.perf_counter() - began)
        tally.keys += got
        tally.errors += got != len(keys)
    tally.seconds = time.perf_counter() - begin
    return tally


def _work(aim: Aim, numbers: Sequence[int], start: Any, out: Any) -> None:
    before = [0.0]

    def ready() -> None:
        start.wait()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        before[0] = usage.ru_utime + usage.ru_stime
    try:
        tally = _run_raw(aim, numbers, ready) if aim.kind == "raw" else _run_blocking(aim, numbers[0], ready)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        tally.cpu_s = usage.ru_utime + usage.ru_stime - before[0]
        out.send(tally)
    except Exception as e:  # pylint: disable=broad-except  # told where it can be raised
        start.abort()
        out.send(e)


def run(aim: Aim, on_start: Callable[[], None]) -> Tally:
    """All clients together; on_start is called when they are connected, just before the first request. Fails with what a client failed with."""
    context = multiprocessing.get_context("fork")
    count = min(2, aim.clients) if aim.kind == "raw" else aim.clients
    start = context.Barrier(count + 1, timeout=60)
    pipes, workers = [], []
    for i in range(count):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(aim, range(aim.clients)[i::count], start, theirs), daemon=True)
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    while start.n_waiting < count and not start.broken:
        time.sleep(0.005)
    on_start()
    if not start.broken:
        start.wait()
    results = [pipe.recv() for pipe in pipes]
    for worker in workers:
        worker.join()
    total = Tally()
    for result in results:
        if isinstance(result, Exception):
            raise result
        total.keys += result.keys
        total.errors += result.errors
        total.cpu_s += result.cpu_s
        total.seconds = max(total.seconds, result.seconds)
        total.latencies += result.latencies
    total.latencies.sort()
    return total
