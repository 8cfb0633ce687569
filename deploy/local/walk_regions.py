"""The part of the demo's walk that is about regions hearing of each other; each step is checked in all of them.

East changes something, everybody else has to follow: one key, a pattern, and while east's NATS is away.
"""

import json
import time
import urllib.request
from typing import Any, Callable, Dict, List

from pymemcache.client.base import Client

from . import catalogue, wait
from .cluster import Cluster
from .console import Console

_DEADLINE = 20.0
_PREFIX = "package:"
_KEY = _PREFIX + "bash"
_PATTERN = _PREFIX + "bash*"


class Wrong(Exception):
    """A step showed something that is not right."""


class RegionsWalk:
    """Steps of Walk, with its clients: one of each region. The first region is the one that changes things."""

    def __init__(self, cluster: Cluster, console: Console, clients: Dict[str, Client]):
        self._cluster = cluster
        self._console = console
        self._clients = clients
        self._first, *self._others = clients
        self._changes = 0

    def parts(self) -> List[Any]:
        """Titles and steps."""
        first, others = self._first, len(self._others)
        everywhere = f"the {others} other regions" if others > 1 else self._others[0]
        return [(f"One delete through {first}, and {everywhere}", self._delete),
                (f"An invalidation by pattern in {first}, and {everywhere}", self._pattern),
                (f"The NATS of {first} is killed, and comes back", self._nats_killed)]

    # ---- what the steps are made of

    def _described(self, region: str) -> str:
        return json.loads(self._clients[region].get(_KEY) or b"{}").get("description", "")

    def _everybody_has(self, description: str) -> None:
        """Reads it into every region's cache."""
        for region in self._clients:
            got = self._described(region)
            if got != description:
                raise Wrong(f"{region} serves {got!r}, and MySQL has {description!r}")

    def _update(self) -> str:
        self._changes += 1
        description = f"GNU Bourne Again SHell, change {self._changes} for all regions at {time.strftime('%H:%M:%S')}"
        self._cluster.primary.query(f"UPDATE {catalogue.TABLE} SET description = %s WHERE name = 'bash'", (description,), self._cluster.schema)
        return description

    def _now(self) -> str:
        rows = self._cluster.primary.query(f"SELECT description FROM {catalogue.TABLE} WHERE name = 'bash'", database=self._cluster.schema)
        return rows[0]["description"]

    def _follow(self, description: str, start: float, what: str) -> None:
        """Waits until every other region serves it; a line for each."""
        waiting = list(self._others)

        def all_have_it() -> bool:
            for region in list(waiting):
                if self._described(region) == description:
                    waiting.remove(region)
                    self._console.ok(f"{region} serves the new row", time.perf_counter() - start, what)
            return not waiting
        try:
            wait.until(all_have_it, "", _DEADLINE, pause=0.0005, longest_pause=0.005)
        except wait.Timeout:
            raise Wrong(f"{', '.join(waiting)}: still the old row after {_DEADLINE:g} s") from None

    def _change(self, how: Callable[[], str]) -> None:
        self._everybody_has(self._now())
        description = self._update()
        start = time.perf_counter()
        detail = how()
        self._console.ok(f"answered by {self._first}", time.perf_counter() - start, detail)
        self._follow(description, start, "since it was sent")

    def _delete_key(self) -> str:
        if not self._clients[self._first].delete(_KEY):
            raise Wrong(f"delete {_KEY} through {self._first}: not DELETED")
        return f"delete {_KEY}: DELETED"

    # ---- steps

    def _delete(self) -> None:
        self._change(self._delete_key)

    def _pattern(self) -> None:
        def invalidate() -> str:
            request = urllib.request.Request(self._cluster[self._first].outrigger.admin_url + "/invalidate", method="POST",
                                             data=json.dumps({"patterns": [_PATTERN]}).encode(), headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as response:
                return f"POST /invalidate {_PATTERN}: {response.status}"
        self._change(invalidate)

    def _nats_killed(self) -> None:
        nats = self._cluster[self._first].nats
        self._everybody_has(self._now())
        old = self._now()
        nats.kill()
        try:
            description = self._update()
            start = time.perf_counter()
            self._delete_key()
            self._console.ok(f"{nats.name} killed; delete through {self._first}", time.perf_counter() - start, "answered: it is in the spool on the disk")
            mine, theirs = self._described(self._first), {region: self._described(region) for region in self._others}
            if mine != description or set(theirs.values()) != {old}:
                raise Wrong(f"expected the new row in {self._first} only: {mine!r}, {theirs!r}")
            self._console.ok(f"{self._first} serves the new row, nobody else", None, "they can not know")
        finally:
            nats.start()
        self._follow(description, time.perf_counter(), "since that NATS is back")
