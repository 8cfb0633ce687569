"""Clients of all regions under a schedule of faults made from a seed; what they were answered is the history."""

import random
import threading
import time
from typing import Callable, List, Tuple

from racing import faults as racing_faults
from racing.faults import Step

from .clients import Client
from .history import Operation, Recorder
from .rig import Rig

#: Action: how often, relative to the others; the shortest and the longest time it lasts. Those of the races, but for the bus: it is away for long.
ACTIONS = {
    "bus-kill": (4, 0.3, 2.0),
    "sidecar-kill": (3, 0.0, 0.5),
    "sidecar-pause": (3, 0.2, 1.5),
    "node-restart": (2, 0.0, 0.0),
    "replica-delay": (3, 1.0, 2.0),
    "replica-stop": (2, 0.2, 1.0),
    "database-kill": (1, 0.0, 0.0),
}
#: With links that can be cut (Rig.wan).
WAN_ACTIONS = {"wan-cut": (4, 0.5, 4.0)}
_EVERY = 1.0  #: seconds between the beginnings of two faults, on average
_SETTLE = 1.0


def plan(rig: Rig, seed: int, seconds: float) -> List[Step]:
    """The schedule. A target has one fault at a time, and all of them have ended before the end."""
    numbers = random.Random(seed)
    actions = {**ACTIONS, **(WAN_ACTIONS if rig.wan is not None else {})}
    targets = {"bus": list(rig.regions), "sidecar": [s.name for _, s in rig.sidecars()], "node": [n.name for _, n in rig.nodes()],
               "replica": ["replica"], "database": ["primary"], "wan": [f"{a} {b}" for a in rig.regions for b in rig.regions if a < b]}
    busy: dict = {}
    steps: List[Step] = []
    at = 0.5
    while at < seconds - _SETTLE:
        action = numbers.choices(list(actions), [weight for weight, _, _ in actions.values()])[0]
        _, shortest, longest = actions[action]
        target, lasts = numbers.choice(targets[action.partition("-")[0]]), round(numbers.uniform(shortest, longest), 2)
        number = numbers.getrandbits(32)
        if busy.get(target, 0.0) <= at and at + lasts < seconds - _SETTLE / 2:
            steps.append(Step(round(at, 2), action, target, lasts, number))
            busy[target] = at + lasts + 0.5
        at += numbers.expovariate(1 / _EVERY)
    return steps


class Faults(racing_faults.Faults):
    """The races' faults, and a bus that is away; and links, once there are some to cut."""

    def _bus_kill(self, step: Step) -> None:
        self._arena.cluster[step.target].nats.kill()

    def _end_bus_kill(self, step: Step) -> None:
        self._arena.cluster[step.target].nats.start()

    def _wan_cut(self, step: Step) -> None:
        self._arena.wan.cut(*step.target.split())

    def _end_wan_cut(self, step: Step) -> None:
        self._arena.wan.join(*step.target.split())

    def heal(self) -> None:
        self.stop()
        for region in self._arena.cluster.regions.values():
            if not region.nats.process.is_running:
                region.nats.start()
        super().heal()


def record(rig: Rig, seed: int, seconds: float, clients: int, say: Callable[[str], None]) -> Tuple[List[Operation], List[Step]]:
    """A history of so many seconds, with so many clients in each region; afterwards everything is healed."""
    steps = plan(rig, seed, seconds)
    say(f"seed {seed}, {seconds:g} s, {len(steps)} faults:")
    for step in steps:
        say(f"    {step}")
    numbers, recorder, stop = random.Random(seed), Recorder(), threading.Event()
    threads = [Client(f"{name}{i}", name, region.outriggers, rig.keys, recorder, numbers.getrandbits(32), stop)
               for name, region in rig.cluster.regions.items() for i in range(clients)]
    faults = Faults(rig, steps, say)
    end = time.monotonic() + seconds
    try:
        for thread in [*threads, faults]:
            thread.start()
        stop.wait(max(0.0, end - time.monotonic()))
    finally:
        stop.set()
        faults.heal()
    for thread in threads:
        thread.join(30.0)
        if thread.error is not None:
            raise thread.error
        if thread.is_alive():
            raise AssertionError(f"{thread.name} has not come to an end")
    return recorder.operations(), steps
