"""Clients of all regions under a schedule of faults made from a seed; what they were answered is the history."""

import random
import threading
import time
from typing import Any, Callable, List, NamedTuple

from racing import history as racing_history
from racing.faults import Step
from racing.traffic import Reader, Writer

from . import clients, faults
from .history import Operation, Recorder
from .rig import ASIDE_KEYS, Rig

_EVERYWHERE = "all regions"


class Session(NamedTuple):
    operations: List[Operation]
    steps: List[Step]
    stale: List[str]  #: reads of the strong write: aside namespace that were older than a write that some region had acknowledged, in words


class _Application:
    """The databases as those see them who may not write to one that is read only."""

    def __init__(self, rig: Rig):
        self._rig = rig

    @property
    def primary(self) -> "_Application":
        return self

    def connect(self, database: str, **options: Any) -> Any:
        cluster = self._rig.cluster
        return self._rig.primary.connect(database, user=cluster.user, password=cluster.password, **options)


class _Aside:
    """Writers that update rows and then delete the keys, and readers, in each region. The races' promise, but of all regions: they are one here."""

    def __init__(self, rig: Rig, numbers: random.Random, stop: threading.Event):
        self.history = racing_history.History([_EVERYWHERE])
        regions = [[(_EVERYWHERE, sidecar) for sidecar in region.outriggers] for region in rig.cluster.regions.values()]
        self.threads = [Reader(ASIDE_KEYS, f"aside-reader-{i}", self.history, sidecars, numbers.getrandbits(32), stop) for i, sidecars in enumerate(regions)]
        self.threads += [Writer(_Application(rig), ASIDE_KEYS, f"aside-writer-{i}", self.history, sidecars, numbers.getrandbits(32), stop)
                         for i, sidecars in enumerate(regions)]


def record(rig: Rig, seed: int, seconds: float, client_count: int, say: Callable[[str], None], with_faults: bool = True) -> Session:
    """A history of so many seconds, with so many clients in each region; afterwards everything is healed."""
    steps = faults.plan(rig, seed, seconds) if with_faults else []
    say(f"seed {seed}, {seconds:g} s, {len(steps)} faults:")
    for step in steps:
        say(f"    {step}")
    numbers, recorder, stop = random.Random(seed), Recorder(), threading.Event()
    mix = clients.STRONG if rig.is_strong else clients.EVENTUAL
    threads: List[Any] = [clients.Client(f"{name}{i}", name, region.outriggers, rig.keys, recorder, numbers.getrandbits(32), stop, mix)
                          for name, region in rig.cluster.regions.items() for i in range(client_count)]
    aside = _Aside(rig, numbers, stop) if rig.is_strong else None
    threads += aside.threads if aside is not None else []
    wrong = faults.Faults(rig, steps, say)
    end = time.monotonic() + seconds
    try:
        for thread in [*threads, wrong]:
            thread.start()
        stop.wait(max(0.0, end - time.monotonic()))
    finally:
        stop.set()
        wrong.heal()
    for thread in threads:
        thread.join(60.0)
        if thread.error is not None:
            raise thread.error
        if thread.is_alive():
            raise AssertionError(f"{thread.name} has not come to an end")
    return Session(recorder.operations(), steps, [str(v) for v in aside.history.violations] if aside is not None else [])
