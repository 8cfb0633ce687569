"""Clients of the plain text protocol that note what they did and were answered."""

import random
import socket
import threading
import time
from typing import Any, List, Optional, Tuple

from local.outrigger import Outrigger

from .history import FAILED, OK, UNKNOWN, Operation, Recorder

_TIMEOUT = 3.0
_RETRY = 0.02
_PAUSE = 0.01  #: between two operations, at most
_KINDS = "rrrrrrrwwwccd"
_PADDING = 300


class Client(threading.Thread):
    """One connection at a time to one sidecar of a region; after an error to the next. Each of its values is new.

    An error line and a lost connection leave it unknown whether a write took effect; a connection that could not be made, a cas that was answered
    EXISTS (the entry was another one, though perhaps of the same value) and NOT_FOUND leave no doubt: it did not."""

    def __init__(self, name: str, region: str, sidecars: List[Outrigger], keys: List[str], recorder: Recorder, seed: int, stop: threading.Event):
        super().__init__(name=name, daemon=True)
        self.error: Optional[BaseException] = None
        self._region, self._sidecars, self._keys = region, sidecars, keys
        self._noted = recorder.open()
        self._random = random.Random(seed)
        self._stopping = stop
        self._count = 0
        self._at = self._random.randrange(len(sidecars))
        self._socket: Optional[socket.socket] = None
        self._lines: Any = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
                self._stopping.wait(self._random.uniform(0, _PAUSE))
        except BaseException as e:  # whoever waits for us raises it
            self.error = e
        finally:
            self._disconnect()

    def _connect(self) -> bool:
        if self._socket is None:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self._sidecars[self._at].port), _TIMEOUT)
            except OSError:
                self._disconnect()
                return False
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lines = self._socket.makefile("rb")
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._lines.close()
            self._socket.close()
            self._socket = None
        self._at = (self._at + 1) % len(self._sidecars)
        self._stopping.wait(_RETRY)

    def _line(self) -> bytes:
        line = self._lines.readline(4096)
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed")
        return line[:-2]

    def _value(self, verb: bytes, key: str) -> Tuple[bytes, Optional[str], bytes]:
        """Its first line, the value's name, or all of it when it is none of ours, and its CAS."""
        self._socket.sendall(b"%s %s\r\n" % (verb, key.encode()))
        line = self._line()
        if not line.startswith(b"VALUE "):
            return line, None, b""
        words = line.split()
        data = self._lines.read(int(words[3]) + 2)
        if len(data) != int(words[3]) + 2 or self._line() != b"END":
            raise ConnectionError("closed")
        name, _, padding = data[:-2].partition(b" ")
        is_whole = padding == b"x" * _PADDING and words[1] == key.encode()
        return line, (name if is_whole else data[:200]).decode(errors="replace"), words[4] if len(words) > 4 else b""

    def _turn(self) -> None:
        if not self._connect():
            return
        key, kind = self._random.choice(self._keys), self._random.choice(_KINDS)
        try:
            expected, unique = None, b""
            if kind in "rc":
                begin = time.monotonic_ns()
                line, expected, unique = self._value(b"gets" if kind == "c" else b"get", key)
                end = time.monotonic_ns()
                if line != b"END" and not line.startswith(b"VALUE "):
                    return  # an error: nothing was read
                self._note("read", key, None, expected, begin, end, OK)
                if kind == "r" or expected is None:
                    return
        except OSError:
            self._disconnect()
            return
        self._change(key, kind, expected, unique)

    def _change(self, key: str, kind: str, expected: Optional[str], unique: bytes) -> None:
        self._count += 1
        value = f"{self.name}.{self._count}"
        data = value.encode() + b" " + b"x" * _PADDING
        name, argument, request = {
            "w": ("write", value, b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(data), data)),
            "c": ("cas", (expected, value), b"cas %s 0 0 %d %s\r\n%s\r\n" % (key.encode(), len(data), unique or b"0", data)),
            "d": ("delete", None, b"delete %s\r\n" % key.encode())}[kind]
        begin = time.monotonic_ns()
        try:
            self._socket.sendall(request)
            answer = self._line()
        except OSError:
            self._note(name, key, argument, None, begin, None, UNKNOWN)
            self._disconnect()
            return
        end = time.monotonic_ns()
        if answer in (b"STORED", b"DELETED") or (answer == b"NOT_FOUND" and kind == "d"):
            self._note(name, key, argument, answer != b"NOT_FOUND", begin, end, OK)
        elif kind == "c" and answer in (b"EXISTS", b"NOT_FOUND"):
            self._note(name, key, argument, None, begin, end, FAILED)
        else:
            self._note(name, key, argument, None, begin, None, UNKNOWN)

    def _note(self, kind: str, key: str, argument: Any, result: Any, begin: int, end: Optional[int], outcome: str) -> None:
        self._noted.append(Operation(kind, key, argument, result, begin, end, outcome, self.name, self._region, self._sidecars[self._at].name))
