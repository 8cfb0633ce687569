"""One sidecar."""

import copy
import http.client
import json
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Tuple

from . import metrics, paths, ports, wait, yaml_text
from .process import Process, can_connect

_SOCKET_PATH_MAX = 107  # of the kernel


class Outrigger:
    """An outrigger on 127.0.0.1, with its configuration, log and unix socket in `directory`.

    config: what its configuration file shall say, as deploy/outrigger.yaml has it. `listen` and `admin` are added where
            they are missing; the ports in them are those of `port` and `admin_port`. It may be changed until start(), or
            be changed and written again with write_config().
    binary: another than paths.outrigger(), built with sanitizers for example. env: added to its environment.
    socket: the path of its unix socket, or None when that would be too long for the kernel.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], *, name: str = "outrigger", port: Optional[int] = None,
                 admin_port: Optional[int] = None, binary: Optional[Path] = None, env: Optional[Mapping[str, str]] = None,
                 arguments: Sequence[object] = ()):
        self.name = name
        self.directory = Path(directory)
        self.port = port or ports.pick()
        self.admin_port = admin_port or ports.pick()
        path = self.directory.resolve() / f"{name}.sock"
        self.socket: Optional[Path] = path if len(str(path)) <= _SOCKET_PATH_MAX else None
        self.config_file = self.directory / f"{name}.yaml"
        self.config = copy.deepcopy(dict(config))
        self.config.setdefault("listen", [f"127.0.0.1:{self.port}"] + ([f"unix:{self.socket}"] if self.socket else []))
        self.config.setdefault("admin", {"listen": f"127.0.0.1:{self.admin_port}"})
        self.process = Process(name, [binary or paths.outrigger(), "--config", self.config_file, *arguments],
                               self.directory / f"{name}.log", env=env)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def write_config(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(yaml_text.dump(self.config))

    def start(self, until: Optional[str] = "ready", deadline: float = wait.DEADLINE) -> "Outrigger":
        """Writes the configuration file and starts it, then waits until it is "ready" (/readyz says so), until it
        accepts clients ("listening"), or not at all (None). Fails with ProcessError."""
        self.write_config()
        self.process.start()
        if until is not None:
            self.wait(until, deadline)
        return self

    def wait(self, until: str = "ready", deadline: float = wait.DEADLINE) -> None:
        """Waits as start() does."""
        checks = {"ready": (self._is_ready, "ready by /readyz"),
                  "listening": (self._is_listening, f"listening on port {self.port}")}
        check, what = checks[until]
        self.process.wait_until(check, what, deadline)

    def _is_listening(self) -> bool:
        with self.process.inside():
            return can_connect(self.port)

    def _is_ready(self) -> bool:
        status, text = self.http("GET", "/readyz")
        if status != 200:
            raise RuntimeError(f"{status} {text.strip()}")
        return True

    def http(self, method: str, path: str, timeout: float = 5.0, body: object = None) -> Tuple[int, str]:
        """A request to its admin port, with `body` as JSON: status and body. Fails with OSError."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=timeout)
        try:
            with self.process.inside():
                connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def metrics(self) -> metrics.Samples:
        """All its metrics. Fails with OSError or ValueError."""
        status, text = self.http("GET", "/metrics")
        if status != 200:
            raise OSError(f"{self.name}: /metrics answered {status}: {text}")
        return metrics.parse(text)

    def stop(self, deadline: float = 30.0) -> Optional[int]:
        """SIGTERM, by which it drains; its exit status."""
        return self.process.stop(deadline)

    def kill(self) -> None:
        self.process.kill()

    def restart(self, until: Optional[str] = "ready") -> None:
        """A new process on the same ports, after kill() or instead of the running one."""
        self.process.kill()
        self.start(until)

    def close(self) -> Optional[int]:
        """Ends it for good by SIGTERM; its exit status, so that a sanitizer's findings are not lost."""
        return self.process.close(deadline=30.0)
