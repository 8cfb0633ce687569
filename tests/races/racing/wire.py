"""A pipelining client of the text protocol. Every wait ends, with OSError."""

import socket
from typing import List, Optional, Sequence, Union

Answer = Union[bytes, None, Exception]


class ServerError(Exception):
    """An error line: nothing was promised."""


class Wire:
    def __init__(self, port: int, timeout: float = 3.0):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb", 65536)

    def _line(self) -> bytes:
        line = self._lines.readline(4096)
        if not line.endswith(b"\n"):
            raise ConnectionError("closed")
        return line

    def get_all(self, keys: Sequence[str]) -> List[Answer]:
        """One get for each, all sent at once: values, None for misses, ServerError."""
        self._socket.sendall(b"".join(b"get %s\r\n" % key.encode() for key in keys))
        return [self._got(key) for key in keys]

    def _got(self, key: str) -> Answer:
        line = self._line()
        if line == b"END\r\n":
            return None
        words = line.split()
        if words[0] != b"VALUE":
            return ServerError(line.decode(errors="replace").strip())
        if words[1] != key.encode():
            raise AssertionError(f"get {key} was answered with {line!r}")
        value = self._lines.read(int(words[3]))
        tail = self._lines.read(7)
        if len(tail) != 7:
            raise ConnectionError("closed")
        if tail != b"\r\nEND\r\n":
            raise AssertionError(f"get {key}: after the value came {tail!r}")
        return value

    def get(self, key: str) -> Optional[bytes]:
        answer = self.get_all([key])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def delete(self, key: str) -> str:
        """The answer's line."""
        self._socket.sendall(b"delete %s\r\n" % key.encode())
        return self._line().decode(errors="replace").strip()

    def set(self, key: str, value: bytes) -> str:
        self._socket.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value))
        return self._line().decode(errors="replace").strip()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, key: str) -> Answer:
        """The answer to a get that was sent."""
        return self._got(key)

    def line(self) -> str:
        return self._line().decode(errors="replace").strip()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
