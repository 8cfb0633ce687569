"""A session: traffic under a schedule of faults, then quiet, in which every region must come to the last row."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from local import wait

from . import faults as faulting
from . import report, scenarios
from .arena import Arena
from .history import History, Violation
from .traffic import Traffic
from .wire import Wire

_CONVERGENCE = 30.0  #: seconds after which a region that still serves something older than the last row has broken the promise
_ROUNDS = 1  #: of a scenario with all guards in force
_ROUNDS_BROKEN = 40  #: of one whose guard is out: each is likely to show it


@dataclass
class Result:
    reports: List[Path] = field(default_factory=list)
    texts: List[str] = field(default_factory=list)
    counts: Dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Session:
    def __init__(self, arena: Arena, directory: Path, options: Dict[str, Any], say: Callable[[str], None]):
        self.arena = arena
        self.directory = directory
        self.options = options
        self.say = say
        self.result = Result()
        self.history = History(list(arena.cluster.regions))

    def _report(self, history: History, steps: List[faulting.Step] = (), faults: Optional[faulting.Faults] = None) -> None:
        violation = history.violations[0]
        found = report.gather(self.arena, history, violation, self.options)
        if faults is not None:
            report.add_schedule(found, list(steps), faults)
        path = report.write(self.directory, found, len(self.result.reports) + 1)
        self.result.reports.append(path)
        self.result.texts.append(report.text(found))
        self.say(self.result.texts[-1])
        self.say(f"  all of it: {path}")

    # ---- scenarios

    def scenario(self, name: str, broken: bool) -> bool:
        """Whether a promise was broken."""
        history = History(list(self.arena.cluster.regions))
        started = time.monotonic()
        run = {**scenarios.BY_GUARD, **scenarios.OTHERS}[name]
        try:
            run(scenarios.Race(self.arena, history), _ROUNDS_BROKEN if broken else _ROUNDS)
        except Violation:
            self._report(history)
        self.say(f"scenario {name}: {'VIOLATED' if history.violations else 'nothing wrong'} ({time.monotonic() - started:.1f} s)")
        return bool(history.violations)

    # ---- traffic under faults

    def traffic(self, seed: int, seconds: float, steps: Optional[List[faulting.Step]] = None) -> bool:
        """Whether a promise was broken."""
        history = self.history = History(list(self.arena.cluster.regions))
        steps = faulting.plan(self.arena, seed, seconds) if steps is None else steps
        self.say(f"seed {seed}, mode {self.arena.mode}, {seconds:g} s, {len(steps)} faults:")
        for step in steps:
            self.say(f"    {step}")
        faults = faulting.Faults(self.arena, steps, self.say)
        traffic = Traffic(self.arena, history, random.Random(seed).getrandbits(32))
        started = time.monotonic()
        try:
            traffic.start()
            faults.start()
            history.failed.wait(seconds)
            if history.violations:
                faults.stop()
                self._report(history, steps, faults)
                traffic.abort()
                faults.heal()
                return True
            faults.heal()
            traffic.end_writers()
            self._converge(history)
            traffic.end_readers()
        finally:
            traffic.abort()
        if history.violations:
            self._report(history, steps, faults)
        self._count(history, time.monotonic() - started)
        return bool(history.violations)

    def _converge(self, history: History) -> None:
        """Everything is acknowledged, nothing is written any more: every sidecar must answer with what MySQL holds."""
        keys = self.arena.keys
        last = self.arena.rows(self.arena.primary, keys)
        began = time.monotonic()
        for region, sidecar in self.arena.sidecars():
            def seen() -> Dict[str, int]:
                with Wire(sidecar.port) as wire:
                    started = time.time()
                    return {key: history.read(key, key.partition(":")[2], value, region, sidecar.name, started, history.floor(region, key))
                            for key, value in zip(keys, wire.get_all(keys)) if not isinstance(value, Exception)}
            try:
                wait.until(lambda: seen() == last, f"{sidecar.name} serving the last rows", _CONVERGENCE)
            except wait.Timeout:
                have = seen()
                for key in keys:
                    if have.get(key) != last[key]:
                        history.violated(Violation(f"{_CONVERGENCE:g} s after the last write, {sidecar.name} answers get {key} with write "
                                                   f"{have.get(key)}; MySQL has write {last[key]}", key, region))
                return
        self.say(f"converged within {time.monotonic() - began:.2f} s")

    def _count(self, history: History, seconds: float) -> None:
        counts = dict(history.counts)
        for name in ("fills", "fills_refused", "tombstones", "lease_waits", "bus_applied", "replica_refused"):
            counts[name] = int(sum(s.metrics().total(f"outrigger_{name}_total") for _, s in self.arena.sidecars()))
        for host in ("primary", "replica"):
            counts[f"loads_{host}"] = int(sum(s.metrics().total("outrigger_loads_by_host_total", host=host) for _, s in self.arena.sidecars()))
        self.result.counts = counts
        self.result.seconds = seconds
        self.say("counts (metrics since the sidecars' last start): " + ", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
        self.say(f"{(counts.get('reads', 0) + counts.get('writes', 0)) / seconds:.0f} operations a second")
