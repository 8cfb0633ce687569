"""What goes wrong, when: a schedule made from a seed, and the one who carries it out.

A fault is an action on a target for some time; its end is part of it. At the end of a session everything is healed, whatever the schedule says.
"""

import base64
import json
import random
import socket
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from local import wait
from local.process import ProcessError

from . import arena as arenas
from .arena import Arena

import raw_nats

#: Action: how often, relative to the others; the shortest and the longest time it lasts.
ACTIONS: Dict[str, Tuple[int, float, float]] = {
    "sidecar-kill": (4, 0.0, 0.5),  # -9, and started again after that time
    "sidecar-pause": (3, 1.2 * arenas.LEASE_TTL_S, 2.0 * arenas.LEASE_TTL_S),  # longer than a lease
    "sidecar-pause-long": (1, 1.2 * arenas.TOMBSTONE_TTL_S, 1.3 * arenas.TOMBSTONE_TTL_S),  # longer than a tombstone
    "node-restart": (3, 0.0, 0.0),  # empty
    "node-pause": (3, 0.05, 1.0),
    "node-evict": (3, 0.0, 0.0),  # filler as large as the values, so that it is them that go
    "replica-delay": (3, 1.0, 3.0),  # MASTER_DELAY of a second or two
    "replica-stop": (3, 0.2, 2.5),
    "replica-pause": (1, 0.2, 1.0),
    "database-kill": (3, 0.0, 0.0),  # all connections of sidecars and writers
    "database-pause": (1, 0.2, 1.0),
    "bus-repeat": (4, 0.0, 0.0),  # earlier messages again, in any order
    "bus-pause": (2, 0.2, 1.5),
    "bus-restart": (1, 0.0, 0.0),
}
#: A session goes through phases, of which each has some of them. While sidecars and nodes come and go everything is loaded from the primary, so
#: there is a phase without.
PHASES = [
    ("replica-", "database-", "bus-", "node-pause", "sidecar-pause"),
    ("sidecar-", "node-", "bus-repeat", "replica-stop"),
    ("",),
]
_PHASE = 10.0  #: seconds
_EVERY = 0.6  #: seconds between the beginnings of two faults, on average
_SETTLE = 1.5  #: seconds without new faults at the end


class Step(NamedTuple):
    at: float  #: seconds since the session began
    action: str
    target: str
    seconds: float
    number: int  #: a seed of its own

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.action:<18} {self.target:<18}" + (f" for {self.seconds:.2f} s" if self.seconds else "")


def _targets(arena: Arena) -> Dict[str, List[str]]:
    """By the first word of an action, or all of it. West reads a replica, and would notice up to a second late that something young was evicted:
    docs/consistency.md has that as an exception."""
    return {"node-evict": [n.name for region, n in arena.nodes() if region == "east"], "sidecar": [s.name for _, s in arena.sidecars()],
            "node": [n.name for _, n in arena.nodes()], "replica": ["replica"], "database": ["primary"], "bus": list(arenas.REGIONS)}


def plan(arena: Arena, seed: int, seconds: float) -> List[Step]:
    """The schedule of a session. A target has one fault at a time."""
    numbers = random.Random(seed)
    busy: Dict[str, float] = {}
    steps: List[Step] = []
    targets = _targets(arena)
    at = 0.5
    while at < seconds - _SETTLE:
        phase = PHASES[int(at / _PHASE) % len(PHASES)]
        possible = [action for action in ACTIONS if action.startswith(phase)]
        action = numbers.choices(possible, [ACTIONS[action][0] for action in possible])[0]
        _, shortest, longest = ACTIONS[action]
        target = numbers.choice(targets.get(action) or targets[action.partition("-")[0]])
        lasts = round(numbers.uniform(shortest, longest), 2)
        number = numbers.getrandbits(32)
        if busy.get(target, 0.0) <= at and at + lasts < seconds - _SETTLE / 2:
            steps.append(Step(round(at, 2), action, target, lasts, number))
            busy[target] = at + lasts + 0.5
            at += numbers.expovariate(1 / _EVERY)
    return steps


class Faults(threading.Thread):
    """Carries a schedule out, and says so. heal() ends it."""

    def __init__(self, arena: Arena, steps: List[Step], say: Callable[[str], None]):
        super().__init__(name="faults", daemon=True)
        self._arena = arena
        self._say = say
        self._ending = threading.Event()
        self.done: List[Dict[str, Any]] = []
        self.error: Optional[BaseException] = None
        self._sidecars = {s.name: s for _, s in arena.sidecars()}
        self._nodes = {n.name: n for _, n in arena.nodes()}
        self._began = 0.0
        self._queue: List[Tuple[float, int, Step, bool]] = []
        for i, step in enumerate(steps):
            self._queue.append((step.at, 2 * i, step, True))
            if step.seconds > 0 or step.action == "sidecar-kill":
                self._queue.append((step.at + step.seconds, 2 * i + 1, step, False))
        self._queue.sort()

    def run(self) -> None:
        self._began = time.monotonic()
        try:
            for at, _, step, begins in self._queue:
                if self._ending.wait(max(0.0, self._began + at - time.monotonic())):
                    return
                self._act(step, begins)
        except BaseException as e:
            self.error = e

    def _act(self, step: Step, begins: bool) -> None:
        method = getattr(self, ("_" if begins else "_end_") + step.action.replace("-", "_"))
        started = time.monotonic() - self._began
        outcome = "done"
        try:
            outcome = method(step) or outcome
        except (OSError, ProcessError, wait.Timeout) as e:  # an API of a server that is down, say
            outcome = f"failed: {type(e).__name__}: {str(e)[:200]}"
        except Exception as e:
            if type(e).__module__.split(".")[0] != "pymysql":
                raise
            outcome = f"failed: {type(e).__name__}: {e}"
        self.done.append({"at": round(started, 3), "took": round(time.monotonic() - self._began - started, 3), "action": step.action,
                          "target": step.target, "begins": begins, "outcome": outcome})
        if outcome != "done":
            self._say(f"    {started:7.2f} s  {step.action} {step.target}: {outcome}")

    # ---- sidecars

    def _sidecar_kill(self, step: Step) -> None:
        self._sidecars[step.target].kill()

    def _end_sidecar_kill(self, step: Step) -> None:
        self._sidecars[step.target].start(None)

    def _sidecar_pause(self, step: Step) -> None:
        self._sidecars[step.target].process.pause()

    def _end_sidecar_pause(self, step: Step) -> None:
        self._sidecars[step.target].process.resume()

    _sidecar_pause_long, _end_sidecar_pause_long = _sidecar_pause, _end_sidecar_pause

    # ---- nodes

    def _node_restart(self, step: Step) -> None:
        self._nodes[step.target].restart()

    def _node_pause(self, step: Step) -> None:
        self._nodes[step.target].process.pause()

    def _end_node_pause(self, step: Step) -> None:
        self._nodes[step.target].process.resume()

    def _node_evict(self, step: Step) -> str:
        """Values of every size class that ours are in, until the node throws something out. Tombstones and leases are smaller."""
        numbers = random.Random(step.number)
        port = self._nodes[step.target].port
        filler = b"".join(b"ms filler%d %d T30 q\r\n%s\r\n" % (i, size, b"x" * size)
                          for i in range(12000) for size in [numbers.randint(200, 900)])
        with socket.create_connection(("127.0.0.1", port), 2.0) as s:
            s.sendall(filler + b"mn\r\n")
            s.recv(100)
            s.sendall(b"stats\r\n")
            text = s.recv(65536).decode(errors="replace")
        return "done, evictions: " + next((line.split()[2] for line in text.splitlines() if line.startswith("STAT evictions ")), "?")

    # ---- the databases

    def _replica_delayed(self, seconds: int) -> None:
        for statement in ("STOP SLAVE", f"CHANGE MASTER TO MASTER_DELAY={seconds}", "START SLAVE"):
            self._arena.replica.query(statement)

    def _replica_delay(self, step: Step) -> None:
        self._replica_delayed(1 + step.number % 2)

    def _end_replica_delay(self, step: Step) -> None:
        self._replica_delayed(0)

    def _replica_stop(self, step: Step) -> None:
        self._arena.replica.query("STOP SLAVE SQL_THREAD")

    def _end_replica_stop(self, step: Step) -> None:
        self._arena.replica.query("START SLAVE SQL_THREAD")

    def _replica_pause(self, step: Step) -> None:
        self._arena.replica.process.pause()

    def _end_replica_pause(self, step: Step) -> None:
        self._arena.replica.process.resume()

    def _database_kill(self, step: Step) -> str:
        killed = 0
        connection = self._arena.primary.connect()
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()", (arenas.SCHEMA,))
            for row in cursor.fetchall():
                try:
                    cursor.execute(f"KILL {row['id']}")
                    killed += 1
                except Exception:  # gone by itself
                    pass
        return f"done, {killed} killed"

    def _database_pause(self, step: Step) -> None:
        self._arena.primary.process.pause()

    def _end_database_pause(self, step: Step) -> None:
        self._arena.primary.process.resume()

    # ---- the bus

    def _bus_repeat(self, step: Step) -> str:
        port = self._arena.cluster[step.target].nats.port
        stream = f"INVAL_{step.target}"
        state = raw_nats.request(port, f"$JS.API.STREAM.INFO.{stream}").get("state", {})
        first, last = state.get("first_seq", 0), state.get("last_seq", 0)
        if last < max(first, 1):
            return "done, nothing to repeat"
        numbers = random.Random(step.number)
        chosen = [max(first, last - numbers.randrange(200)) for _ in range(20)] + [numbers.randint(first, last) for _ in range(20)]
        messages = []
        for seq in chosen:
            message = raw_nats.message(port, stream, {"seq": seq})
            if message:
                messages.append((message["subject"], base64.b64decode(message["data"])))
        raw_nats.publish(port, *messages)
        return f"done, {len(messages)} messages, {sum(len(json.loads(m)['events']) for _, m in messages)} events"

    def _bus_pause(self, step: Step) -> None:
        self._arena.cluster[step.target].nats.process.pause()

    def _end_bus_pause(self, step: Step) -> None:
        self._arena.cluster[step.target].nats.process.resume()

    def _bus_restart(self, step: Step) -> None:
        self._arena.cluster[step.target].nats.restart()

    # ---- the end

    def stop(self) -> None:
        self._ending.set()
        self.join()
        if self.error is not None:
            raise self.error

    def heal(self) -> None:
        """No more faults; everything runs, and the replica follows."""
        self.stop()
        arena = self._arena
        for process in arena.cluster.processes():
            if process.is_running:
                process.resume()
        for sidecar in self._sidecars.values():
            if not sidecar.process.is_running and not sidecar.process.is_expected:
                sidecar.start(None)
        self._replica_delayed(0)
        for sidecar in self._sidecars.values():
            sidecar.wait("ready")
        arena.replica.wait_for_gtid(arena.primary.gtid())
