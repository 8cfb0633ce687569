"""One memcached node."""

import getpass
import socket
from pathlib import Path
from typing import Optional, Sequence

from . import paths, ports
from .process import Process


class Memcached:
    """A memcached on 127.0.0.1. `arguments` are passed on to it. Its only file is its log, `directory`/`name`.log."""

    def __init__(self, directory: Path, *, name: str = "memcached", port: Optional[int] = None, memory_mb: int = 64,
                 threads: int = 1, arguments: Sequence[object] = (), binary: Optional[Path] = None):
        self.name = name
        self.port = port or ports.pick()
        self.process = Process(name, [
            binary or paths.MEMCACHED, "-u", getpass.getuser(), "-l", "127.0.0.1", "-p", self.port, "-U", 0,
            "-m", memory_mb, "-t", threads, "-c", 4096, *arguments], Path(directory) / f"{name}.log")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Memcached":
        """Starts it and waits until it answers. Fails with ProcessError."""
        self.process.start()
        self.process.wait_until(self._answers, f"answering on port {self.port}")
        return self

    def _answers(self) -> bool:
        # The pid, because another process may have taken the port.
        return f"STAT pid {self.process.pid}\r\n".encode() in self.command(b"stats\r\n")

    def command(self, text: bytes, timeout: float = 5.0) -> bytes:
        """Sends raw bytes on a connection of their own, and returns the first piece of the answer."""
        with self.process.inside():
            s = socket.create_connection(("127.0.0.1", self.port), timeout)
        with s:
            s.sendall(text)
            return s.recv(65536)

    def kill(self) -> None:
        """kill -9; everything it held is lost."""
        self.process.kill()

    def restart(self) -> None:
        """A new, empty process on the same port, after kill() or instead of the running one."""
        self.process.kill()
        self.start()

    def close(self) -> None:
        self.process.close()
