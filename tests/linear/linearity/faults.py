"""What goes wrong, when: a schedule made from a seed, and who carries it out. The races' faults (racing/faults.py), and more."""

import random
from typing import Any, Callable, Dict, List, Tuple

from racing import faults as racing_faults
from racing.faults import Step

from .rig import Rig

Actions = Dict[str, Tuple[float, float, float]]

#: Action: how often, relative to the others; the shortest and the longest time it lasts. Those of the races, but for the bus: it is away for long.
EVENTUAL: Actions = {
    "bus-kill": (4, 0.3, 2.0),
    "sidecar-kill": (3, 0.0, 0.5),
    "sidecar-pause": (3, 0.2, 1.5),
    "node-restart": (2, 0.0, 0.0),
    "replica-delay": (3, 1.0, 2.0),
    "replica-stop": (2, 0.2, 1.0),
    "database-kill": (1, 0.0, 0.0),
}
#: Of strong namespaces: shorter and longer than a lease (1 s), and than a lock (4 s).
STRONG: Actions = {
    "bus-kill": (3, 0.3, 3.0),
    "bus-lose": (2, 0.1, 1.5),
    "bus-pause": (3, 0.3, 3.0),
    "sidecar-kill": (3, 0.0, 1.5),
    "sidecar-pause": (4, 0.2, 2.5),
    "sidecar-pause-long": (1, 4.5, 6.0),
    "node-restart": (2, 0.0, 0.0),
    "node-pause": (2, 0.1, 2.0),
    "database-kill": (1, 0.0, 0.0),
    "database-pause": (1, 0.2, 2.0),
    "database-restart": (1, 0.1, 0.5),
    "database-switch": (2, 0.0, 0.0),
}
#: Where links between regions can be cut (Rig.wan).
WAN: Actions = {"link-cut": (3, 0.5, 4.0), "link-drop": (3, 0.5, 4.0), "region-cut": (4, 0.5, 5.0)}

_EVERY = 1.0  #: seconds between the beginnings of two faults, on average
_EVERY_STRONG = 1.5
_SETTLE = 1.0


def _targets(rig: Rig) -> Dict[str, List[str]]:
    links = [f"{a} {b}" for a in rig.regions for b in rig.regions if a < b]
    return {"bus": list(rig.regions), "sidecar": [s.name for _, s in rig.sidecars()], "node": [n.name for _, n in rig.nodes()], "replica": ["replica"],
            "database": ["primary"], "link": links, "link-drop": links + [" ".join(reversed(link.split())) for link in links], "region": list(rig.regions)}


def _cuts(action: str) -> bool:
    """Whether it takes votes away."""
    return action.partition("-")[0] in ("bus", "link", "region")


def plan(rig: Rig, seed: int, seconds: float) -> List[Step]:
    """The schedule. A target has one fault at a time, and all of them have ended before the end. In strong sessions a majority of the regions is
    connected at almost any time, or there would be nothing to see but refusals."""
    numbers = random.Random(seed)
    actions = {**(STRONG if rig.is_strong else EVENTUAL), **(WAN if rig.wan is not None else {})}
    every = _EVERY_STRONG if rig.is_strong else _EVERY
    at_once = max(1, (len(rig.regions) - 1) // 2) if rig.is_strong else 99
    targets = _targets(rig)
    busy: Dict[str, float] = {}
    cut_until: List[float] = []
    steps: List[Step] = []
    at = 0.5
    while at < seconds - _SETTLE:
        action = numbers.choices(list(actions), [weight for weight, _, _ in actions.values()])[0]
        _, shortest, longest = actions[action]
        target, lasts = numbers.choice(targets.get(action) or targets[action.partition("-")[0]]), round(numbers.uniform(shortest, longest), 2)
        number = numbers.getrandbits(32)
        cut_until = [until for until in cut_until if until > at]
        is_free = busy.get(target, 0.0) <= at and not (_cuts(action) and len(cut_until) >= at_once and number % 8 != 0)
        if is_free and at + lasts < seconds - _SETTLE / 2:
            steps.append(Step(round(at, 2), action, target, lasts, number))
            busy[target] = at + lasts + 0.5
            if _cuts(action):
                cut_until.append(at + lasts)
        at += numbers.expovariate(1 / every)
    return steps


class Faults(racing_faults.Faults):
    """Carries a schedule out; heal() undoes all of it."""

    def __init__(self, rig: Rig, steps: List[Step], say: Callable[[str], None]):
        super().__init__(rig, steps, say)  # type: ignore[arg-type]  # a rig is what it needs of an arena
        self._rig = rig

    def _nats(self, step: Step) -> Any:
        return self._rig.cluster[step.target].nats

    def _bus_kill(self, step: Step) -> None:
        self._nats(step).kill()

    def _end_bus_kill(self, step: Step) -> None:
        self._nats(step).start()

    def _bus_lose(self, step: Step) -> None:
        self._nats(step).lose_store()

    _end_bus_lose = _end_bus_kill

    def _link_cut(self, step: Step) -> None:
        self._rig.wan.cut(*step.target.split())

    def _end_link_cut(self, step: Step) -> None:
        self._rig.wan.heal(*step.target.split())

    def _link_drop(self, step: Step) -> None:
        self._rig.wan.cut_to(*step.target.split())

    _end_link_drop = _end_link_cut

    def _region_cut(self, step: Step) -> None:
        self._rig.wan.cut_off(step.target)

    def _end_region_cut(self, step: Step) -> None:
        for other in self._rig.regions:
            if other != step.target:
                self._rig.wan.heal(step.target, other)

    def _database_restart(self, step: Step) -> None:
        self._rig.primary.kill()

    def _end_database_restart(self, step: Step) -> None:
        self._rig.restart_database()

    def _database_switch(self, step: Step) -> None:
        self._rig.switch_database()

    def heal(self) -> None:
        self.stop()
        rig = self._rig
        if rig.wan is not None:
            rig.wan.heal_all()
        if not rig.primary.process.is_running:
            rig.restart_database()
        rig.primary.query("SET GLOBAL read_only = 0")  # a switch that has failed halfway
        for region in rig.cluster.regions.values():
            if not region.nats.process.is_running:
                region.nats.start()
        super().heal()
