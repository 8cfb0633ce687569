"""What the end-to-end tests share: raw connections, a watch over every sidecar, and how much metrics have grown."""

import os
import re
import socket
import sys
import threading
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Union

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy"), str(ROOT / "tests/support")]

from local import metrics, wait  # noqa: E402
from local.outrigger import Outrigger  # noqa: E402

DEADLINE = 20.0  #: for anything that is only ever waited for; nothing here measures time

_SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")

Address = Union[int, str, os.PathLike]  #: a port of 127.0.0.1, or the path of a unix socket


class Wire:
    """A connection on which bytes are sent and received. Every wait ends at `timeout`, with socket.timeout."""

    def __init__(self, address: Address, timeout: float = DEADLINE, receive_buffer: Optional[int] = None):
        family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", address) if isinstance(address, int) else str(address))
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._have = bytearray()

    def send(self, data: bytes) -> "Wire":
        self.socket.sendall(data)
        return self

    def _more(self) -> bool:
        piece = self.socket.recv(1 << 20)
        self._have += piece
        return bool(piece)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._have[:count])
        del self._have[:count]
        return taken

    def read(self, count: int) -> bytes:
        """So many bytes, or less at the end of the connection."""
        while len(self._have) < count and self._more():
            pass
        return self._take(count)

    def until(self, end: bytes) -> bytes:
        """Everything up to `end`, and that too; or up to the end of the connection."""
        looked = 0
        while True:
            at = self._have.find(end, max(0, looked - len(end)))
            if at >= 0:
                return self._take(at + len(end))
            looked = len(self._have)
            if not self._more():
                return self._take(len(self._have))

    def line(self) -> bytes:
        return self.until(b"\n")

    def rest(self) -> bytes:
        """Everything up to the end of the connection. A reset is an end, too."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        return self._take(len(self._have))

    def ask(self, request: bytes, end: bytes = b"\r\n") -> bytes:
        """Sends, and reads up to `end`."""
        return self.send(request).until(end)

    def get(self, key: str) -> Optional[bytes]:
        """The value, or None for a miss. An error line is a RuntimeError."""
        head = self.ask(b"get %s\r\n" % key.encode())
        if head == b"END\r\n":
            return None
        if not head.startswith(b"VALUE "):
            raise RuntimeError(head.decode(errors="replace").strip())
        value = self.read(int(head.split()[3]))
        tail = self.read(7)
        assert tail == b"\r\nEND\r\n", tail
        return value

    def gets(self, key: str) -> "tuple[bytes, int, int]":
        """Value, flags and CAS unique of a key that must be there."""
        words = self.ask(b"gets %s\r\n" % key.encode()).split()
        assert words[0] == b"VALUE", words
        value = self.read(int(words[3]))
        assert self.read(7) == b"\r\nEND\r\n"
        return value, int(words[2]), int(words[4])

    def set(self, key: str, value: bytes, flags: int = 0, exptime: int = 0) -> bytes:
        return self.ask(b"set %s %d %d %d\r\n%s\r\n" % (key.encode(), flags, exptime, len(value), value))

    def delete(self, key: str) -> bytes:
        return self.ask(b"delete %s\r\n" % key.encode())

    def reset(self) -> None:
        """Ends the connection with an RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sees(address: Address, key: str) -> Optional[bytes]:
    """What a get on a connection of its own finds."""
    with Wire(address) as wire:
        return wire.get(key)


def sets(address: Address, key: str, value: bytes) -> bytes:
    """What a set on a connection of its own is answered."""
    with Wire(address) as wire:
        return wire.set(key, value)


def serves(address: Address, key: str = "does-it-serve") -> bool:
    """Whether a set and a get on a new connection do what they should."""
    value = os.urandom(8).hex().encode()
    with Wire(address) as wire:
        assert wire.set(key, value) == b"STORED\r\n"
        assert wire.get(key) == value
    return True


def until(check: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    return wait.until(check, what, deadline)


def heal(cluster: Any) -> None:
    """All that a test has killed or paused runs again, and every sidecar has found that out by itself."""
    for region in cluster.regions.values():
        for server in (region.nats, *region.nodes):
            if not server.process.is_running:
                server.start()
            server.process.resume()
        for sidecar in region.outriggers:
            if not sidecar.process.is_running:
                sidecar.start("listening")
            sidecar.process.resume()
    for region in cluster.regions.values():
        for sidecar in region.outriggers:
            sidecar.wait("ready")
        for node in region.nodes:
            connected(node, *region.outriggers)


def workers(sidecar: Outrigger) -> int:
    with Wire(sidecar.port) as wire:
        return int(re.search(rb"STAT threads (\d+)\r\n", wire.ask(b"stats\r\n", b"END\r\n")).group(1))


def connected(node: Any, *sidecars: Outrigger) -> None:
    """Waits until every worker of these sidecars has its connection to a node: one that was away is not back for all of them at once."""
    until(lambda: all(s.metrics().total("outrigger_node_connections", node=node.address) == workers(s) for s in sidecars), f"all connected to {node.address}")


def in_threads(calls: Iterable[Callable[[], Any]]) -> List[Any]:
    """Makes the calls at the same time, as nearly as threads can; their results. Who fails is not held up by others that wait for it: they
    are left behind."""
    calls = list(calls)
    gate = threading.Barrier(len(calls))
    futures: List[Future] = [Future() for _ in calls]

    def one(call: Callable[[], Any], future: Future) -> None:
        gate.wait()
        try:
            future.set_result(call())
        except BaseException as error:  # pylint: disable=broad-except
            future.set_exception(error)
    for pair in zip(calls, futures):
        threading.Thread(target=one, args=pair, daemon=True).start()
    done, _ = wait_for(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()  # raises what was raised there
    return [future.result() for future in futures]


def settled(sidecar: Outrigger) -> metrics.Samples:
    """The metrics once nothing is under way any more: a fill, for one, is counted after the reader has had its answer. A sidecar that has lost
    replies for good (its node was stopped, say) is not waited for longer than a second."""
    def sample() -> Optional[metrics.Samples]:
        samples = sidecar.metrics()
        sent = samples.total("outrigger_node_requests_total")
        return samples if sent == samples.total("outrigger_node_duration_seconds_count") else None
    try:
        return until(sample, "", 1.0)
    except wait.Timeout:
        return sidecar.metrics()


class Growth:
    """How much the metrics of some sidecars have grown, all together, since this was made."""

    def __init__(self, *sidecars: Outrigger):
        self._sidecars = sidecars
        self._before = [settled(s) for s in sidecars]

    def of(self, name: str, **labels: str) -> float:
        return sum(s.metrics().since(b).total(name, **labels) for s, b in zip(self._sidecars, self._before))

    def reaches(self, count: float, name: str, **labels: str) -> None:
        """Waits until a metric has grown by at least so much."""
        try:
            until(lambda: self.of(name, **labels) >= count, "")
        except wait.Timeout:
            raise AssertionError(f"{name}{labels} has grown by {self.of(name, **labels):g}, not by {count:g}") from None

    def becomes(self, **wanted: float) -> None:
        """Waits until metrics, by their names without "outrigger_" and "_total", have grown by exactly so much."""
        def grown() -> Dict[str, float]:
            return {name: self.of(f"outrigger_{name}_total") for name in wanted}
        try:
            until(lambda: grown() == wanted, "")
        except wait.Timeout:
            assert grown() == wanted


class Watch:
    """Every sidecar that was started, whoever started it. A sidecar must live until it is told to end, then end with status 0,
    and its log must never have anything of a sanitizer's in it."""

    def __init__(self) -> None:
        self._sidecars: List[Outrigger] = []
        self._seen: Set[str] = set()
        self._new: List[str] = []  # of those, what no test has failed for yet
        self._lock = threading.Lock()

    def install(self, patch: Any) -> None:
        """Makes Outrigger report to this watch, for as long as `patch`, a pytest.MonkeyPatch, is in force."""
        init, stop, close = Outrigger.__init__, Outrigger.stop, Outrigger.close

        def watched_init(sidecar: Outrigger, *arguments: Any, **options: Any) -> None:
            init(sidecar, *arguments, **options)
            with self._lock:
                self._sidecars.append(sidecar)

        def watched(end: Callable) -> Callable:
            def call(sidecar: Outrigger, *arguments: Any, **options: Any) -> Optional[int]:
                self._look(sidecar)
                was_running = sidecar.process.is_running
                code = end(sidecar, *arguments, **options)
                if was_running and code != 0:
                    self._add(f"after SIGTERM: {sidecar.process.describe_end()}")
                return code
            return call

        patch.setattr(Outrigger, "__init__", watched_init)
        patch.setattr(Outrigger, "stop", watched(stop))
        patch.setattr(Outrigger, "close", watched(close))

    def _add(self, problem: str) -> None:
        with self._lock:
            if problem not in self._seen:
                self._seen.add(problem)
                self._new.append(problem)

    def _look(self, sidecar: Outrigger) -> None:
        process = sidecar.process
        if process.is_expected and not process.is_running:
            self._add(f"died: {process.describe_end()}")
        try:
            log = process.log.read_text(errors="replace")
        except OSError:
            return
        found = _SANITIZER.search(log)
        if found:
            self._add(f"{process.log}:\n{log[found.start():found.start() + 6000]}")

    def check(self) -> None:
        """Fails when there is something wrong that has not been told before."""
        for sidecar in list(self._sidecars):
            self._look(sidecar)
        with self._lock:
            new, self._new = self._new, []
        assert not new, "\n\n".join(new)

    def check_ended(self) -> None:
        self.check()
        running = [s.process.name for s in self._sidecars if s.process.is_running]
        assert not running, f"still running: {running}"


def log_of(sidecar: Outrigger) -> str:
    return sidecar.process.log.read_text(errors="replace")


def rss_bytes(sidecar: Outrigger) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{sidecar.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


__all__ = ["Address", "DEADLINE", "Growth", "Outrigger", "ROOT", "Watch", "Wire", "in_threads", "log_of", "metrics", "rss_bytes", "sees",
           "serves", "sets", "until", "wait"]
