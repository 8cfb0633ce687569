"""One run of the load generator (tests/bench/load.c)."""

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List

from . import machine, workloads
from .machine import Cpus
from .servers import Nodes, Target
from .workloads import Workload


class LoadError(Exception):
    """It saw something else than what it asked for; the text is what it said."""


@dataclass(frozen=True)
class Load:
    program: Path
    cpus: Cpus

    def _large_argv(self, address: str, *more: object) -> List[str]:
        return ["taskset", "-c", str(self.cpus.load), str(self.program), address, "--keys", str(workloads.LARGE_KEYS), "--value-size",
                str(workloads.LARGE_SIZE), "--prefix", "large:", *map(str, more)]

    def _argv(self, address: str, prefix: str, *more: object) -> List[str]:
        return ["taskset", "-c", str(self.cpus.load), str(self.program), address, "--keys", str(workloads.KEYS), "--key-size",
                str(workloads.KEY_SIZE), "--value-size", str(workloads.VALUE_SIZE), "--prefix", prefix, *map(str, more)]

    def preload(self, nodes: Nodes) -> None:
        """Stores every key in every node, so that each is a hit wherever a proxy looks for it."""
        for address in nodes.stored:
            if nodes.has_large:
                _run(self._large_argv(address, "--preload", "--duration", 0), f"storing large values in {address}")
            for prefix in nodes.prefixes:
                _run(self._argv(address, prefix, "--preload", "--duration", 0), f"storing keys in {address}")

    def check(self, workload: Workload, target: Target) -> None:
        """A few requests. Fails with LoadError when the target gives anything but their answers within seconds."""
        _run(self._argv(target.address, target.prefix, "--protocol", target.protocol, "--multi-get", workload.multi_get, "--set-ratio",
                        workload.set_ratio, "--rate", 100, "--schedule", "uniform", "--duration", 0.1, "--warm-up", 0),
             f"{workload.name}: {target.name} does not answer the {target.protocol} protocol as it should")

    @contextmanager
    def _beside(self, target: Target, seconds: float) -> Iterator[Dict[str, Any]]:
        """Another client moves large values meanwhile, if the target is to have that. Filled in at the end: what it did."""
        result: Dict[str, Any] = {}
        if not target.beside_large:
            yield result
            return
        argv = self._large_argv(target.address, "--set-ratio", 0.5, "--rate", workloads.LARGE_RATE, "--duration", seconds, "--warm-up", 0)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield result
                out, complaint = process.communicate()
            finally:
                process.kill()
        if process.returncode != 0:
            raise LoadError(f"large values through {target.name}: {complaint.strip()} (exit status {process.returncode} of: {' '.join(argv)})")
        result.update(json.loads(out))

    def run(self, workload: Workload, target: Target, nodes: Nodes, *, duration: float, warm_up: float, rate: float = 0,
            seed: int = 1) -> Dict[str, Any]:
        """Closed loop, or open loop when there is a rate. What it printed, and what the machine did meanwhile."""
        argv = self._argv(target.address, target.prefix, "--protocol", target.protocol, "--connections", workload.connections, "--pipeline", workload.pipeline,
                          "--multi-get", workload.multi_get, "--set-ratio", workload.set_ratio, "--duration", duration,
                          "--warm-up", warm_up, "--watch-pid", target.pid, "--seed", seed)
        if rate:
            argv += ["--rate", str(rate)]
        proxy = {target.pid} - set(nodes.pids)
        cpus = {self.cpus.proxy, self.cpus.load, self.cpus.nodes}
        before, nodes_before, proxy_before = machine.busy(cpus), machine.cpu_seconds(nodes.pids), machine.cpu_seconds(proxy)
        with self._beside(target, warm_up + duration) as large:
            result = json.loads(_run(argv, f"{workload.name} through {target.name}"))
        after, nodes_used = machine.busy(cpus), machine.cpu_seconds(nodes.pids) - nodes_before
        # These cover the warm-up too, but the generator's own figure does not, and it has ended.
        with_warm_up = 1 + warm_up / duration
        ours = nodes_used + machine.cpu_seconds(proxy) - proxy_before + result["load_cpu"]["total_s"] * with_warm_up
        if large:
            ours += large["load_cpu"]["total_s"]
            result["large_rps"] = large["rps"]
        result["nodes_cpu_s"] = nodes_used / with_warm_up
        result["others_cpu_s"] = max(0.0, after.used - before.used - ours)
        result["stolen_s"] = after.stolen - before.stolen
        return result

    @contextmanager
    def idle(self, target: Target, count: int, is_used: bool) -> Iterator[None]:
        """Holds so many idle connections; is_used: each has had one GET answered."""
        argv = self._argv(target.address, target.prefix, "--idle-used" if is_used else "--idle", count)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            if process.stdout.readline().strip() != "ready":
                raise LoadError(f"{count} idle connections through {target.name}: {process.stderr.read().strip()}")
            yield
            process.stdin.close()


def _run(argv: List[str], what: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LoadError(f"{what}: {done.stderr.strip()} (exit status {done.returncode} of: {' '.join(argv)})")
    return done.stdout
