"""What clients did and were answered. A history is a list of operations, and can be saved and loaded.

Times are nanoseconds of this host's monotonic clock, taken before the request was sent and after the answer was read: whatever an operation did, it
did between the two. Values are short strings; each is written once (`unique_writes` tells), None is "there is nothing".
"""

import gzip
import json
import os
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

Value = Any

OK = "ok"
FAILED = "failed"  #: it has surely had no effect, and tells nothing
UNKNOWN = "unknown"  #: it takes effect at some time after it began, or never


class Operation(NamedTuple):
    """kind    argument         result (of an operation that is OK)
    read                     the value
    write   value
    delete                   False: there was nothing to delete; else True
    cas     (expected, new)  False: the value was another one; else True. (None, new) is an add
    incr    a number         the sum
    """

    kind: str
    key: str
    argument: Any
    result: Any
    begin: int
    end: Optional[int]  #: None: nobody knows
    outcome: str = OK
    client: str = ""
    region: str = ""
    server: str = ""

    @property
    def written(self) -> Value:
        """What it leaves, if it takes effect; of a write or a cas."""
        return self.argument[1] if self.kind == "cas" else self.argument


def is_acknowledged(operation: Operation) -> bool:
    """Whether it was answered that it has changed the value."""
    return operation.outcome == OK and operation.kind != "read" and operation.result is not False


def by_key(operations: Iterable[Operation]) -> Dict[str, List[Operation]]:
    keys: Dict[str, List[Operation]] = defaultdict(list)
    for operation in operations:
        keys[operation.key].append(operation)
    return dict(keys)


def unique_writes(operations: Iterable[Operation], initial: Value = None) -> Dict[Value, Operation]:
    """Of one key: values, except None and the one in the beginning, that exactly one write or cas may have left."""
    found: Dict[Value, Optional[Operation]] = {}
    for operation in operations:
        if operation.kind in ("write", "cas") and operation.outcome != FAILED and operation.result is not False:
            value = operation.written
            found[value] = None if value in found else operation
    return {value: operation for value, operation in found.items() if operation is not None and value not in (None, initial)}


class Overwrites:
    """Writes of a key that all have an end: which of those that began after a time ended first."""

    def __init__(self, writes: Iterable[Operation]):
        self._first = sorted(writes, key=lambda o: o.begin)
        self._begins = [o.begin for o in self._first]
        for i in range(len(self._first) - 2, -1, -1):
            if self._first[i + 1].end < self._first[i].end:
                self._first[i] = self._first[i + 1]

    def after(self, time: int) -> Optional[Operation]:
        place = bisect_right(self._begins, time)
        return self._first[place] if place < len(self._first) else None


class Recorder:
    """Collects operations of many threads: each has a list of its own."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._lists: List[List[Operation]] = []
        self._lock = threading.Lock()

    def open(self) -> List[Operation]:
        """A list for one thread to append to."""
        mine: List[Operation] = []
        with self._lock:
            self._lists.append(mine)
        return mine

    def operations(self) -> List[Operation]:
        with self._lock:
            return sorted((o for mine in self._lists for o in mine), key=lambda o: o.begin)


def save(path: Path, session: Dict[str, Any], operations: Iterable[Operation]) -> None:
    """One JSON array a line behind the session, compressed; all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    with gzip.open(partial, "wt") as file:
        file.write(json.dumps(session) + "\n")
        for operation in operations:
            file.write(json.dumps(operation, separators=(",", ":")) + "\n")
    os.replace(partial, path)


def load(path: Path) -> Tuple[Dict[str, Any], List[Operation]]:
    """Fails with OSError or ValueError."""
    with gzip.open(path, "rt") as file:
        session = json.loads(file.readline())
        operations = []
        for line in file:
            operation = Operation(*json.loads(line))
            if operation.kind == "cas":
                operation = operation._replace(argument=tuple(operation.argument))
            operations.append(operation)
    return session, operations
