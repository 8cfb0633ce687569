"""A wide area network between regions, of network namespaces and tests/support/wan.c. Needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN."""

import subprocess
import threading
from pathlib import Path
from typing import Dict, Sequence

_SOURCE = Path(__file__).resolve().parent / "wan.c"
_SKIP = 77


class Unavailable(Exception):
    """Namespaces or TUN devices can not be made here; the text says why."""


class Wan:
    """A namespace for each of `names`, which reach each other at once until told otherwise. All ends with close(), or with this process."""

    def __init__(self, directory: Path, names: Sequence[str]):
        program = Path(directory) / "wan"
        subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", str(_SOURCE), "-o", str(program)], check=True)
        self._numbers = {name: i for i, name in enumerate(names)}
        self._lock = threading.Lock()
        self._process = subprocess.Popen([str(program), str(len(self._numbers))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True, bufsize=1)
        self._descriptors: Dict[int, int] = {}
        for line in self._process.stdout:
            if line == "ready\n":
                return
            _, number, descriptor = line.split()
            self._descriptors[int(number)] = int(descriptor)
        _, complaint = self._process.communicate()
        if self._process.returncode == _SKIP:
            raise Unavailable(complaint.strip())
        raise RuntimeError(f"tests/support/wan.c ended with status {self._process.returncode}: {complaint}")

    def address(self, name: str) -> str:
        return f"10.99.0.{self._numbers[name] + 1}"

    def namespace(self, name: str) -> str:
        """Its path, for Process.namespace."""
        return f"/proc/{self._process.pid}/fd/{self._descriptors[self._numbers[name]]}"

    def _tell(self, verb: str, a: str, b: str, *more: object) -> None:
        with self._lock:
            self._process.stdin.write(" ".join(map(str, (verb, self._numbers[a], self._numbers[b], *more))) + "\n")
            answer = self._process.stdout.readline()
        if answer != "ok\n":
            raise RuntimeError(f"tests/support/wan.c: {verb} {a} {b}: {answer!r}")

    def _each(self, a: Sequence[str]) -> Sequence["tuple[str, str]"]:
        return [(one, other) for one in a for other in self._numbers if other != one]

    def delay_all(self, ms: int) -> None:
        """What each packet takes, one way."""
        for a, b in self._each(list(self._numbers)):
            self._tell("delay", a, b, ms)

    def delay_to(self, a: str, b: str, ms: int) -> None:
        """Only what `a` sends to `b`."""
        self._tell("delay-to", a, b, ms)

    def cut(self, a: str, b: str) -> None:
        self._tell("cut", a, b)

    def cut_to(self, a: str, b: str) -> None:
        """Only what `a` sends to `b`: whoever is connected either way still notices."""
        self._tell("cut-to", a, b)

    def heal(self, a: str, b: str) -> None:
        self._tell("heal", a, b)

    def cut_off(self, name: str) -> None:
        """From everybody."""
        for a, b in self._each([name]):
            self._tell("cut", a, b)

    def heal_all(self) -> None:
        for a, b in self._each(list(self._numbers)):
            self._tell("heal", a, b)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.stderr.close()
        self._process.wait()
