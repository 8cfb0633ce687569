"""One child process: its log, its life and its end."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, ContextManager, Mapping, Optional, Sequence

from . import netns, wait

# The kernel sends a child its parent-death signal when the *thread* that started it ends, so one thread that lives as long
# as this process starts them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class ProcessError(Exception):
    """A process could not be started, died, or did not become ready; the text has the tail of its log."""


class Process:
    """A child process in a session of its own (so Ctrl-C does not reach it), killed by the kernel if we die.

    Owns the process, not its files. stdout and stderr are appended to `log`. `prefix` are options of setpriv(1), to
    change to another account for example; it, `argv` and `namespace` may be changed before start(). `namespace` is the path of a
    network namespace to be in, and inside() is that for the calling thread, to reach the process. Any method may be called from any thread.
    start/stop/kill may be repeated; after close() it can not be started again.
    """

    def __init__(self, name: str, argv: Sequence[object], log: Path, *, cwd: Optional[Path] = None,
                 env: Optional[Mapping[str, str]] = None, prefix: Sequence[str] = ()):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log = Path(log)
        self._cwd = cwd
        self._env = dict(env) if env else None
        self.prefix = list(prefix)
        self.namespace: Optional[str] = None
        self._popen: Optional[subprocess.Popen] = None
        self._lock = threading.RLock()
        self._closed = False
        self._ended_by_us = False

    # ---- state

    @property
    def pid(self) -> Optional[int]:
        return self._popen.pid if self._popen else None

    @property
    def returncode(self) -> Optional[int]:
        """None while it runs or has not been started; negative: the signal that ended it."""
        return self._popen.poll() if self._popen else None

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def is_expected(self) -> bool:
        """True from start() until we end it ourselves: if it does not run meanwhile, it has died."""
        return self._popen is not None and not self._ended_by_us

    def tail(self, lines: int = 20) -> str:
        """The end of the log."""
        try:
            with open(self.log, "rb") as f:
                f.seek(max(0, f.seek(0, os.SEEK_END) - 32768))
                text = f.read().decode(errors="replace")
        except OSError as e:
            return f"(no log: {e})"
        return "\n".join(text.splitlines()[-lines:])

    def describe_end(self) -> str:
        """How it ended, with the end of its log."""
        code = self.returncode
        how = "still runs" if code is None else f"exited with status {code}" if code >= 0 else \
            f"was ended by {signal.Signals(-code).name}"
        return f"{self.name} (pid {self.pid}) {how}; its log, {self.log}, ends:\n{self.tail()}"

    # ---- life

    def start(self) -> "Process":
        _spawner.submit(self._spawn).result()
        return self

    def _spawn(self) -> None:
        with self._lock:
            if self._closed:
                raise ProcessError(f"{self.name}: closed")
            if self.is_running:
                raise ProcessError(f"{self.name}: runs already")
            program = self.argv[0]
            if shutil.which(program) is None:
                raise ProcessError(f"{self.name}: {program} is not there (deploy/local/setup, or a build, makes it)")
            self.log.parent.mkdir(parents=True, exist_ok=True)
            enter = ["nsenter", f"--net={self.namespace}", "--"] if self.namespace else []
            with open(self.log, "ab") as log:
                self._popen = subprocess.Popen(
                    [*enter, "setpriv", "--pdeathsig", "KILL", *self.prefix, "--", *self.argv], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, cwd=self._cwd, env={**os.environ, **self._env} if self._env else None,
                    start_new_session=True)
            self._ended_by_us = False

    def inside(self) -> ContextManager[None]:
        """Where it can be reached."""
        return netns.inside(self.namespace)

    def wait_until(self, check: Callable[[], object], what: str, deadline: float = wait.DEADLINE) -> None:
        """Waits for check() to be true. Fails with ProcessError, at once when the process dies."""
        def idle(seconds: float) -> None:
            if self._popen is None or self._closed:
                raise ProcessError(f"{self.name}: ended while it was waited for")
            try:
                self._popen.wait(seconds)
            except subprocess.TimeoutExpired:
                return
            raise ProcessError(f"{self.describe_end()}")
        try:
            wait.until(check, f"{self.name}: {what}", deadline, idle=idle)
        except wait.Timeout as e:
            raise ProcessError(f"{e}\nits log, {self.log}, ends:\n{self.tail()}") from None

    def wait_for_port(self, port: int, deadline: float = wait.DEADLINE) -> None:
        """Waits until it accepts connections at 127.0.0.1:port."""
        self.wait_until(lambda: can_connect(port), f"listening on port {port}", deadline)

    def wait(self, deadline: float = wait.DEADLINE) -> int:
        """Waits for its end by itself; the exit status. Fails with ProcessError."""
        try:
            code = self._popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} (pid {self.pid}) has not ended within {deadline:g} s") from None
        self._ended_by_us = True
        return code

    # ---- end

    def stop(self, deadline: float = 10.0, sig: int = signal.SIGTERM) -> Optional[int]:
        """Asks it to end, and kills it when it has not within `deadline` seconds. Returns the exit status (-SIGKILL
        tells of the latter), or None when it had not been started."""
        with self._lock:
            if self._popen is None:
                return None
            self._ended_by_us = True
            if self._popen.poll() is None:
                self._popen.send_signal(sig)
                self._popen.send_signal(signal.SIGCONT)
                try:
                    self._popen.wait(deadline)
                except subprocess.TimeoutExpired:
                    self._popen.kill()
                    self._popen.wait()
            return self._popen.returncode

    def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        with self._lock:
            if self._popen is not None:
                self._ended_by_us = True
                self._popen.kill()
                self._popen.wait()

    def close(self, deadline: float = 0.0) -> Optional[int]:
        """Ends it for good: stop(deadline), or at once when that is 0. It can not be started again; this may be called
        before start(), and twice."""
        self._closed = True
        if deadline > 0:
            return self.stop(deadline)
        self.kill()
        return self.returncode

    # ---- faults

    def signal(self, sig: int) -> None:
        with self._lock:
            if self._popen is None or self._popen.poll() is not None:
                raise ProcessError(f"{self.name}: does not run")
            self._popen.send_signal(sig)

    def pause(self) -> None:
        """SIGSTOP, and waits until it has stopped: its sockets stay, nothing answers."""
        self.signal(signal.SIGSTOP)
        self.wait_until(lambda: self._kernel_state() in "Tt", "stopping at SIGSTOP")

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def _kernel_state(self) -> str:
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat[stat.rindex(")") + 2]


def can_connect(port: int, timeout: float = 1.0) -> bool:
    """Whether something accepts connections at 127.0.0.1:port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout).close()
    except OSError:
        return False
    return True
