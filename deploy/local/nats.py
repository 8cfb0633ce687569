"""One nats-server with JetStream: the bus of one region."""

import json
import shutil
import socket
from pathlib import Path
from typing import List, Optional

from . import ports, wait
from .parallel import in_parallel
from .process import Process

_PROGRAM = shutil.which("nats-server") or "/usr/sbin/nats-server"


class Nats:
    """A nats-server on 127.0.0.1, or the address `host` of its network namespace, with its configuration, store and log in `directory`.

    http: also serve its monitoring pages, on `http_port`. extra: more lines for its configuration file.
    """

    def __init__(self, directory: Path, *, name: str = "nats", port: Optional[int] = None, http: bool = False,
                 extra: str = "", host: str = "127.0.0.1"):
        self.name = name
        self.directory = Path(directory)
        self.host = host
        self.port = port or ports.pick()
        self.http_port = ports.pick() if http else None
        self._extra = extra
        self._config = self.directory / "nats.conf"
        self.process = Process(name, [_PROGRAM, "-c", self._config], self.directory / "nats.log")

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def http_url(self) -> Optional[str]:
        return f"http://127.0.0.1:{self.http_port}" if self.http_port else None

    def start(self) -> "Nats":
        """Starts it and waits until it offers JetStream to a client. Fails with ProcessError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        http = f"http: 127.0.0.1:{self.http_port}\n" if self.http_port else ""
        self._config.write_text(
            f"server_name: {json.dumps(self.name)}\n"
            f"listen: {self.host}:{self.port}\n{http}"
            f"jetstream {{ store_dir: {json.dumps(str(self.store))}, max_file_store: 2G, "
            f"max_memory_store: 64M }}\n{self._extra}")
        self.process.start()
        self.process.wait_until(self._offers_jetstream, f"offering JetStream on port {self.port}")
        return self

    def _offers_jetstream(self) -> bool:
        with self.process.inside():
            s = socket.create_connection((self.host, self.port), 5.0)
        with s, s.makefile("rb") as lines:
            verb, _, info = lines.readline().partition(b" ")
        return verb == b"INFO" and bool(json.loads(info).get("jetstream"))

    def kill(self) -> None:
        """kill -9; the store stays."""
        self.process.kill()

    def restart(self) -> None:
        """A new process on the same port and store, after kill() or instead of the running one."""
        self.process.kill()
        self.start()

    def lose_store(self) -> None:
        """Kills it and removes its store, as a lost disk would."""
        self.process.kill()
        shutil.rmtree(self.store, ignore_errors=True)

    def close(self) -> None:
        self.process.close()


class NatsCluster:
    """Several nats-servers as one, for streams with replicas; used like one Nats, whose clients know all of them."""

    def __init__(self, directory: Path, *, name: str = "nats", size: int = 3):
        self.name = name
        routes = [ports.pick() for _ in range(size)]
        urls = json.dumps([f"nats://127.0.0.1:{port}" for port in routes])
        self.servers: List[Nats] = [
            Nats(Path(directory) / f"{name}-{i + 1}", name=f"{name}-{i + 1}",
                 extra=f"cluster {{ name: {json.dumps(name)}, listen: 127.0.0.1:{port}, routes: {urls} }}\n")
            for i, port in enumerate(routes)]

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    def start(self) -> "NatsCluster":
        """Starts all of them, and waits until they have a leader. Fails with ProcessError or wait.Timeout."""
        in_parallel([server.start for server in self.servers], self.close)
        wait.until(lambda: all(self._answers(server) for server in self.servers), f"{self.name}: all having a leader")
        return self

    @staticmethod
    def _answers(server: Nats) -> bool:
        """Whether JetStream's API does, which takes a leader."""
        with socket.create_connection(("127.0.0.1", server.port), 5.0) as s, s.makefile("rb") as lines:
            lines.readline()
            s.sendall(b'CONNECT {"verbose":false}\r\nSUB _INBOX.any 1\r\nPUB $JS.API.INFO _INBOX.any 0\r\n\r\nPING\r\n')
            while True:
                line = lines.readline()
                if line.startswith(b"MSG "):
                    return b'"error"' not in lines.read(int(line.split()[-1]))
                if not line:
                    return False

    def close(self) -> None:
        for server in self.servers:
            server.close()
