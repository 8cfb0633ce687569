"""Whether a history of registers is linearizable: whether every operation can be given one moment between its begin and its end, so that each
answer is what a single copy, asked at these moments, would have said.

Each key is looked at by itself, which is enough (Herlihy and Wing 1990: linearizability is local; Horn and Kroening 2015 call it
P-compositionality). For a key: the search of J. M. Wing and C. Gong, "Testing and Verifying Concurrent Objects", Journal of Parallel and
Distributed Computing 17, 1993, with just-in-time linearization and the memory of configurations of G. Lowe, "Testing for Linearizability",
Concurrency and Computation: Practice and Experience 29(4), 2017.

    events in the order of time      begin of an operation: it is pending from now on
                                     end of an operation: it must have been linearized by now; only now is anything linearized
    a configuration                  (value, the pending operations that have been linearized already, as bits)
    the end of an operation          every configuration goes on through pending operations until this one is among them; those that can not
                                     are dropped, the same one that is met twice is followed once. None left: not linearizable

What is pending, and not what has been, decides how many configurations there are. Six things keep them few; none loses an answer:

    * a pending read of the value is linearized at once: it changes nothing, so later is no better than now;
    * a write whose value nobody observes and that is pending is put right in front of another write or delete, which hides it (not where something
      observes that the value is any other: a cas that failed, an incr);
    * an operation of unknown outcome whose value is observed has taken effect by the end of the first such observation: it is made one of known
      outcome that ends there; one whose value nobody observes is left out;
    * a value that was written once is not left while somebody who was answered it has not begun yet: it would not come back;
    * of deletes of unknown outcome, which are all alike, the first that is left is used; and of adds that nobody can have seen the value of;
    * of two configurations that differ only in operations of unknown outcome, the one that has used up more of them is dropped.

A delete that was answered "there was nothing" is a read of None; one that was answered "deleted" may have found anything.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from .history import FAILED, OK, UNKNOWN, Operation, Overwrites, Value, by_key, unique_writes

CONFIGURATIONS_MAX = 200_000  #: of one step; beyond it is not decided, and said so
_IMPOSSIBLE = object()
_UNSEEN = "(a value that nobody was answered)"
_OVERWRITES = ("write", "delete")  #: what does not care for the value before it


class Undecided(Exception):
    """The search became too large."""


@dataclass
class Verdict:
    key: str
    is_ok: bool
    operations: int
    undecided: str = ""
    failed: Optional[Operation] = None  #: whose end could not be explained
    core: List[Operation] = field(default_factory=list)  #: as few operations as are not linearizable by themselves
    allowed: List[Value] = field(default_factory=list)  #: what `failed`, a read, could have been answered


def _step(operation: Operation, value: Value) -> Value:
    """The value after it, or _IMPOSSIBLE: it would have been answered something else."""
    kind = operation.kind
    if kind == "write":
        return operation.argument
    if kind == "delete":
        return None
    if kind == "cas":
        if operation.result is False:
            return value if value != operation.argument[0] else _IMPOSSIBLE
        return operation.argument[1] if value == operation.argument[0] else _IMPOSSIBLE
    if kind == "incr":
        if not isinstance(value, int) or (operation.outcome == OK and value + operation.argument != operation.result):
            return _IMPOSSIBLE
        return value + operation.argument
    return value if value == operation.result else _IMPOSSIBLE


def _is_mere_read(operation: Operation) -> bool:
    return operation.kind == "read" or (operation.kind == "delete" and operation.result is False)


def _read_value(operation: Operation) -> Value:
    return operation.result if operation.kind == "read" else None


def _observed(operations: Sequence[Operation]) -> Dict[Value, int]:
    """Values that an answer has shown, and the first end of such an answer."""
    first: Dict[Value, int] = {}
    for o in operations:
        if o.outcome != OK:
            continue
        if _is_mere_read(o):
            value = _read_value(o)
        elif o.kind == "cas" and o.result is not False:
            value = o.argument[0]
        else:
            continue
        if value not in first or o.end < first[value]:
            first[value] = o.end
    return first


class _Prepared:
    """The operations that count, with the second and third thing of above done."""

    def __init__(self, operations: Iterable[Operation], initial: Value):
        known = [o for o in operations if o.outcome != FAILED and not (o.outcome == UNKNOWN and o.kind == "read")]
        observed = _observed(known)
        # An unknown cas that can only be explained by another unknown one shows that one's value, too, but not when: leave both as they are.
        expected = {o.argument[0] for o in known if o.kind == "cas"}
        unique = unique_writes(known, initial)
        is_any_sum = any(o.kind == "incr" for o in known)
        is_any_observed = is_any_sum or any(o.kind == "cas" and o.result is False for o in known)
        self.last: Dict[Value, int] = {}  # of values that do not come back: the last begin of an operation that saw it
        for o in known:
            value = (o.argument[0] if o.kind == "cas" and o.result is not False else o.result if o.kind == "read" else None) if o.outcome == OK else None
            if value in unique:
                self.last[value] = max(o.begin, self.last.get(value, o.begin))
        self.operations: List[Operation] = []
        self.hidden: Set[int] = set()  # places in operations
        for o in known:
            value = o.written if o.kind in ("write", "cas") else None
            is_unique = value is not None and unique.get(value) is o
            if o.outcome == UNKNOWN and is_unique:
                if value in observed:
                    o = o._replace(outcome=OK, end=max(observed[value], o.begin))
                elif not is_any_observed and value not in expected:
                    continue
                elif not is_any_sum and value not in expected:  # something was there: what, makes no difference
                    o = o._replace(argument=(o.argument[0], _UNSEEN) if o.kind == "cas" else _UNSEEN)
            elif o.outcome == OK and is_unique and value in observed and observed[value] < o.end:
                o = o._replace(end=max(observed[value], o.begin))
            if o.kind == "write" and is_unique and not is_any_observed and value not in observed and value not in expected:
                self.hidden.add(len(self.operations))
            self.operations.append(o)

    def events(self) -> List[Tuple[int, int, int]]:
        """(time, 0 begin or 1 end, place), in order; at the same time begins come first, which is what permits most."""
        found = []
        for i, o in enumerate(self.operations):
            found.append((o.begin, 0, i))
            if o.outcome == OK:
                found.append((o.end, 1, i))
        found.sort()
        return found


class _Search:
    """One key. run() tells whether configurations are left at the end."""

    def __init__(self, prepared: _Prepared, initial: Value):
        self.prepared = prepared
        self.configurations: Set[Tuple[Value, int]] = {(initial, 0)}
        self.bits: Dict[int, int] = {}  # of pending operations
        self.free: List[int] = []
        self.bits_used = 0
        self.reads: Dict[Value, int] = {}  # pending reads of a value
        self.changes: Dict[int, Operation] = {}  # pending, by bit
        self.hidden = 0
        self.optional = 0
        self.alike: Dict[Tuple[str, Value], int] = {}  # those of the optional, by what they do

    def run(self) -> bool:
        for time, is_end, place in self.prepared.events():
            if not is_end:
                self._begin(place)
            elif not self._end(place, time):
                return False
        return True

    def _begin(self, place: int) -> None:
        o = self.prepared.operations[place]
        if self.free:
            bit = self.free.pop()
        else:
            bit = 1 << self.bits_used
            self.bits_used += 1
        self.bits[place] = bit
        if _is_mere_read(o):
            value = _read_value(o)
            self.reads[value] = self.reads.get(value, 0) | bit
            return
        self.changes[bit] = o
        if place in self.prepared.hidden:
            self.hidden |= bit
        if o.outcome == UNKNOWN:
            self.optional |= bit
            self.alike[o.kind, o.argument] = self.alike.get((o.kind, o.argument), 0) | bit

    def _end(self, place: int, now: int) -> bool:
        o = self.prepared.operations[place]
        bit = self.bits.pop(place)
        done = self._linearized(bit, now)
        if _is_mere_read(o):
            self.reads[_read_value(o)] &= ~bit
        else:
            del self.changes[bit]
            self.hidden &= ~bit
        self.free.append(bit)
        self.configurations = self._without_wasteful(done) if self.optional else done
        return bool(done)

    def _linearized(self, bit: int, now: int) -> Set[Tuple[Value, int]]:
        """All configurations in which the operation has just been, or was already, linearized; its bit is taken out."""
        reads, changes, hidden, last = self.reads, list(self.changes.items()), self.hidden, self.prepared.last
        done: Set[Tuple[Value, int]] = set()
        todo = [(value, mask | reads.get(value, 0)) for value, mask in self.configurations]
        seen = set(todo)
        while todo:
            value, mask = todo.pop()
            if mask & bit:
                done.add((value, mask & ~bit))
                continue
            stays = last.get(value, now) > now
            for other, o in changes:
                if mask & other:
                    continue
                after = _step(o, value)
                if after is _IMPOSSIBLE or (stays and after != value):
                    continue
                if other & self.optional:
                    left = self.alike[o.kind, o.argument] & ~mask
                    if other != left & -left:
                        continue
                new = (after, mask | other | (hidden if o.kind in _OVERWRITES else 0) | reads.get(after, 0))
                if new not in seen:
                    seen.add(new)
                    todo.append(new)
            if len(seen) > CONFIGURATIONS_MAX:
                raise Undecided(f"more than {CONFIGURATIONS_MAX} configurations with {len(changes)} changes under way")
        return done

    def _without_wasteful(self, configurations: Set[Tuple[Value, int]]) -> Set[Tuple[Value, int]]:
        groups: Dict[Tuple[Value, int], List[int]] = {}
        for value, mask in sorted(configurations, key=lambda c: bin(c[1] & self.optional).count("1")):
            kept = groups.setdefault((value, mask & ~self.optional), [])
            used = mask & self.optional
            if all(k & ~used for k in kept):
                kept.append(used)
        return {(value, mask | used) for (value, mask), kept in groups.items() for used in kept}


def is_linearizable(operations: Iterable[Operation], initial: Value = None) -> bool:
    """Of one key. Fails with Undecided."""
    return _Search(_Prepared(operations, initial), initial).run()


def _until(operations: Sequence[Operation], end: int) -> List[Operation]:
    """What had begun by then; what ended later is of unknown outcome at that moment."""
    found = []
    for o in operations:
        if o.outcome == FAILED or o.begin > end:
            continue
        if o.end is not None and o.end <= end:
            found.append(o)
        elif not _is_mere_read(o) and o.result is not False:
            found.append(o._replace(end=None, outcome=UNKNOWN, result=None))
    return found


def _first_failure(operations: Sequence[Operation], initial: Value) -> Operation:
    """Of a history that is not linearizable: the operation whose answer made it so."""
    ends = sorted((o for o in operations if o.outcome == OK), key=lambda o: o.end)
    good, bad = -1, len(ends) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_linearizable(_until(operations, ends[middle].end), initial):
            good = middle
        else:
            bad = middle
    return ends[bad]


def _unseen_deletes(operations: Sequence[Operation], changes: Iterable[Operation]) -> List[List[Operation]]:
    """Deletes that no read of "nothing there" can have seen: each such read was before, or behind a later write."""
    nothing = [o for o in operations if _is_mere_read(o) and _read_value(o) is None]
    overwrites = Overwrites(o for o in changes if o.outcome == OK)
    found = []
    for o in operations:
        if o.kind == "delete" and o.result is not False:
            newer = overwrites.after(o.end) if o.end is not None else None
            if not any(r.end >= o.begin and (newer is None or r.begin <= newer.end) for r in nothing):
                found.append([o])
    return found


def _groups(operations: Sequence[Operation], initial: Value) -> List[List[Operation]]:
    """What can be left out of a linearizable history and leaves it one: a read by itself, a delete that nobody saw, or a value that exactly one
    operation wrote, with all who saw it, and with what those wrote in turn."""
    unique = unique_writes(operations, initial)
    parts: Dict[Any, List[Operation]] = {value: [o] for value, o in unique.items()}
    next_values: Dict[Any, List[Value]] = {}
    reads: List[List[Operation]] = []
    for o in operations:
        if _is_mere_read(o):
            reads.append([o])
            if _read_value(o) in parts:
                parts[_read_value(o)].append(o)
        elif o.kind == "cas" and unique.get(o.written) is o:
            next_values.setdefault(o.argument[0], []).append(o.written)

    def seen_after(value: Value) -> List[Operation]:
        group: List[Operation] = []
        todo, met = [value], {value}
        while todo:
            v = todo.pop()
            group += parts[v]
            new = [w for w in next_values.get(v, ()) if w not in met]
            met.update(new)
            todo += new
        return group
    if any(o.kind == "incr" or (o.kind == "cas" and (o.result is False or unique.get(o.written) is not o)) for o in operations):
        return reads  # who saw a value is not known of all
    return reads + _unseen_deletes(operations, unique.values()) + [seen_after(v) for v in parts]


def shrink(operations: Sequence[Operation], initial: Value = None) -> List[Operation]:
    """As few of them as are not linearizable by themselves: nothing more can be left out. They are not linearizable as given."""
    left = list(operations)

    def without(groups: List[List[Operation]]) -> bool:
        nonlocal left
        gone = {id(o) for group in groups for o in group}
        rest = [o for o in left if id(o) not in gone]
        if len(rest) == len(left) or is_linearizable(rest, initial):
            return False
        left = rest
        return True
    size = len(left)
    while size >= 1:  # halves, quarters, …, then one by one until nothing changes
        groups = _groups(left, initial)
        is_changed = False
        for i in range(0, len(groups), size):
            is_changed = without(groups[i:i + size]) or is_changed
        if size > 1:
            size //= 2
        elif not is_changed:
            break
    return left


def _allowed(operations: Sequence[Operation], failed: Operation, initial: Value) -> List[Value]:
    """What the read could have been answered, given everything before."""
    if not _is_mere_read(failed):
        return []
    begin, others = failed.begin, [o for o in operations if o != failed]
    candidates: List[Value] = [None]
    for o in sorted(others, key=lambda o: o.begin, reverse=True):
        if o.kind in ("write", "cas") and o.outcome != FAILED and o.result is not False and o.written not in candidates:
            candidates.append(o.written)
            if len(candidates) > 12 and o.end is not None and o.end < begin:
                break
    return [value for value in candidates[:60]
            if is_linearizable([*others, failed._replace(kind="read", result=value)], initial)]


def check_key(key: str, operations: Sequence[Operation], initial: Value = None) -> Verdict:
    count = len(operations)
    verdict = Verdict(key, False, count)
    try:
        if is_linearizable(operations, initial):
            return Verdict(key, True, count)
    except Undecided as e:
        verdict.undecided = str(e)
        return verdict
    try:
        verdict.failed = _first_failure(operations, initial)
        before = _until(operations, verdict.failed.end)
        verdict.core = [verdict.failed]
        verdict.core = sorted(shrink(before, initial), key=lambda o: o.begin)
        verdict.allowed = _allowed(before, verdict.failed, initial)
    except Undecided:  # it is not linearizable all the same
        verdict.core = verdict.core or [o for o in operations if o.outcome != FAILED][-1:]
    return verdict


def check(operations: Iterable[Operation], initial: Optional[Dict[str, Value]] = None) -> List[Verdict]:
    """One verdict for each key; initial: what keys had in the beginning, None if they are not in it."""
    return [check_key(key, own, (initial or {}).get(key)) for key, own in sorted(by_key(operations).items())]


def describe(operation: Operation, zero: int = 0) -> str:
    """One line: times in milliseconds since `zero`."""
    what = {"read": lambda o: f"read -> {o.result!r}", "write": lambda o: f"write {o.argument!r}",
            "delete": lambda o: "delete" + (" -> nothing there" if o.result is False else ""),
            "cas": lambda o: f"cas {o.argument[0]!r} to {o.argument[1]!r}" + (" -> is another" if o.result is False else ""),
            "incr": lambda o: f"incr {o.argument} -> {o.result}"}[operation.kind](operation)
    end = "?" if operation.end is None else f"{(operation.end - zero) / 1e6:.3f}"
    where = "/".join(part for part in (operation.region, operation.server, operation.client) if part)
    return f"{(operation.begin - zero) / 1e6:12.3f} … {end:>12}  {where:<36} {what}" + ("" if operation.outcome == OK else f" ({operation.outcome})")


def tell(verdict: Verdict, zero: int = 0) -> str:
    """A verdict for humans."""
    if verdict.is_ok:
        return f"{verdict.key}: {verdict.operations} operations, linearizable"
    if verdict.undecided:
        return f"{verdict.key}: {verdict.operations} operations, NOT DECIDED: {verdict.undecided}"
    lines = [f"{verdict.key}: NOT LINEARIZABLE. No order of these explains what they were answered (ms):"]
    lines += ["  " + describe(o, zero) for o in verdict.core]
    if verdict.failed is not None:
        lines += ["  the first that can not be explained:", "  " + describe(verdict.failed, zero)]
    if verdict.allowed:
        lines.append("  it could have been answered: " + ", ".join("nothing there" if v is None else repr(v) for v in verdict.allowed))
    return "\n".join(lines)
