"""The checker itself: histories that are linearizable, and such as are not."""

import random
import sys
from pathlib import Path
from typing import Any, Callable, List, Optional

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from linearity import history as histories  # noqa: E402
from linearity import linearizability  # noqa: E402
from linearity.history import FAILED, UNKNOWN, Operation  # noqa: E402


def op(kind: str, begin: int, end: Optional[int], argument: Any = None, result: Any = None, outcome: str = "ok") -> Operation:
    return Operation(kind, "k", argument, result, begin, end, outcome)


def read(begin, end, value):
    return op("read", begin, end, None, value)


def write(begin, end, value, outcome="ok"):
    return op("write", begin, end, value, None, outcome)


def delete(begin, end, result=True, outcome="ok"):
    return op("delete", begin, end, None, result, outcome)


def cas(begin, end, expected, new, result=True, outcome="ok"):
    return op("cas", begin, end, (expected, new), result, outcome)


def incr(begin, end, delta, result, outcome="ok"):
    return op("incr", begin, end, delta, result, outcome)


LINEARIZABLE = {
    "nothing": [],
    "reads of nothing": [read(0, 1, None), read(2, 3, None)],
    "one after the other": [write(0, 1, "a"), read(2, 3, "a"), write(4, 5, "b"), read(6, 7, "b"), delete(8, 9), read(10, 11, None)],
    "a read during a write may see it": [write(0, 10, "a"), read(1, 2, "a"), read(3, 4, "a")],
    "a read during a write may not see it": [write(0, 10, "a"), read(1, 2, None), read(3, 12, "a")],
    "two writes at the same time, in either order": [write(0, 10, "a"), write(0, 10, "b"), read(11, 12, "a"), read(13, 14, "a")],
    "and the other": [write(0, 10, "a"), write(0, 10, "b"), read(11, 12, "b"), read(13, 14, "b")],
    "both are seen": [write(0, 10, "a"), write(0, 10, "b"), read(1, 2, "b"), read(3, 4, "a"), read(11, 12, "a")],
    "an unknown write that took effect late": [write(0, 1, "a"), write(2, None, "b", UNKNOWN), read(3, 4, "a"), read(5, 6, "b"), read(7, 8, "b")],
    "an unknown write that never did": [write(0, 1, "a"), write(2, None, "b", UNKNOWN), read(3, 4, "a"), read(5, 6, "a")],
    "an unknown write over a later one": [write(0, None, "b", UNKNOWN), write(2, 3, "a"), read(4, 5, "a"), read(6, 7, "b")],
    "an unknown delete": [write(0, 1, "a"), delete(2, None, None, UNKNOWN), read(3, 4, "a"), read(5, 6, None), read(7, 8, None)],
    "an unknown cas that took effect": [write(0, 1, "a"), cas(2, None, "a", "b", None, UNKNOWN), read(3, 4, "a"), read(5, 6, "b")],
    "an unknown cas of an unknown write": [write(0, None, "a", UNKNOWN), cas(0, None, "a", "b", None, UNKNOWN), read(5, 6, "b")],
    "a cas": [write(0, 1, "a"), cas(2, 3, "a", "b"), cas(4, 5, "a", "c", False), read(6, 7, "b")],
    "a cas that failed since something unknown came": [write(0, 1, "a"), write(2, None, "b", UNKNOWN), cas(4, 5, "a", "c", False)],
    "two cas, either first": [write(0, 1, "a"), cas(2, 9, "a", "b"), cas(2, 9, "b", "c"), read(10, 11, "c")],
    "what has failed counts for nothing": [write(0, 1, "a"), write(2, 3, "b", FAILED), read(4, 5, "a")],
    "nothing there to delete": [delete(0, 1, False), write(2, 9, "a"), delete(3, 4, False), read(10, 11, "a")],
    "sums": [write(0, 1, 5), incr(2, 9, 1, 7), incr(2, 9, 1, 6), read(10, 11, 7)],
    "an unknown sum": [write(0, 1, 5), incr(2, None, 1, None, UNKNOWN), read(3, 4, 5), incr(5, 6, 1, 7)],
    "the same value twice": [write(0, 1, "a"), write(2, 3, "b"), write(4, 9, "a"), read(5, 6, "b"), read(7, 8, "a"), read(10, 11, "a")],
    "an end at the same time as a begin": [write(0, 1, "a"), read(1, 2, None)],
}

NOT_LINEARIZABLE = {
    "a stale read": [write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")],
    "a lost write": [write(0, 1, "a"), read(2, 3, None)],
    "back and forth": [write(0, 1, "a"), write(2, 9, "b"), read(3, 4, "b"), read(5, 6, "a")],
    "two writes at the same time seen in both orders": [write(0, 10, "a"), write(0, 10, "b"), read(11, 12, "a"), read(13, 14, "b")],
    "a read of what nobody wrote": [write(0, 1, "a"), read(2, 3, "x")],
    "a read of what comes later": [read(0, 1, "a"), write(2, 3, "a")],
    "a read of a failed write": [write(0, 1, "a"), write(2, 3, "b", FAILED), read(4, 5, "b")],
    "a deleted value": [write(0, 1, "a"), delete(2, 3), read(4, 5, "a")],
    "an unknown write that took effect twice": [write(0, None, "b", UNKNOWN), read(1, 2, "b"), write(3, 4, "a"), read(5, 6, "a"), read(7, 8, "b")],
    "an unknown write that was seen and undone": [write(0, 1, "a"), write(2, None, "b", UNKNOWN), read(3, 4, "b"), read(5, 6, "a")],
    "an unknown delete seen and undone": [write(0, 1, "a"), delete(2, None, None, UNKNOWN), read(3, 4, None), read(5, 6, "a")],
    "a cas of an old value": [write(0, 1, "a"), write(2, 3, "b"), cas(4, 5, "a", "c")],
    "two cas of one value": [write(0, 1, "a"), cas(2, 9, "a", "b"), cas(2, 9, "a", "c")],
    "a write that nobody saw, and no place for it beside a cas": [write(0, 1, "a"), write(2, 3, "w"), cas(2, 4, "a", "b"), read(5, 6, "b")],
    "a cas that failed for no reason": [write(0, 1, "a"), cas(2, 3, "a", "b", False)],
    "nothing to delete where something was": [write(0, 1, "a"), delete(2, 3, False)],
    "a lost sum": [write(0, 1, 5), incr(2, 9, 1, 6), incr(2, 9, 1, 6)],
    "an unknown sum that took effect twice": [write(0, 1, 5), incr(2, None, 1, None, UNKNOWN), incr(3, 4, 1, 8)],
    "the same value twice, but not that often": [write(0, 1, "a"), write(2, 3, "b"), write(4, 5, "a"), read(6, 7, "b")],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_what_is_linearizable(name):
    for verdict in linearizability.check(LINEARIZABLE[name]):
        assert verdict.is_ok, linearizability.tell(verdict)


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_what_is_not(name):
    verdict, = linearizability.check(NOT_LINEARIZABLE[name])
    assert not verdict.is_ok and not verdict.undecided
    assert verdict.core and not linearizability.check_key("k", verdict.core).is_ok, "the part that is shown is not linearizable by itself"


def test_many_adds_that_nobody_saw():
    """Which of them it was makes no difference, so they are not all tried."""
    lost = [cas(10 * i, None, None, f"lost{i}", None, UNKNOWN) for i in range(40)]
    refused = [cas(500 + 10 * i, 500 + 10 * i + 5, None, f"n{i}", False) for i in range(20)]
    verdict = linearizability.check_key("k", [*lost, *refused, delete(900, 901), cas(902, 903, None, "a"), read(904, 905, "a")])
    assert verdict.is_ok, linearizability.tell(verdict)
    verdict = linearizability.check_key("k", [*refused, *[o._replace(begin=o.begin + 2000) for o in lost]])
    assert not verdict.is_ok and not verdict.undecided, "refused before any of them had begun"


def test_what_the_key_had_before():
    assert linearizability.check_key("k", [read(0, 1, "a"), write(2, 3, "b"), read(4, 5, "b")], "a").is_ok
    assert not linearizability.check_key("k", [write(2, 3, "b"), read(4, 5, "a")], "a").is_ok
    assert linearizability.check_key("k", [write(2, 3, "b"), write(4, 5, "a"), read(6, 7, "a")], "a").is_ok


def test_each_key_by_itself():
    verdicts = linearizability.check([write(0, 1, "a"), read(2, 3, "a"), write(0, 1, "b")._replace(key="j"), read(2, 3, None)._replace(key="j")])
    assert [(v.key, v.is_ok) for v in verdicts] == [("j", False), ("k", True)]


def test_what_is_shown_of_a_failure():
    noise = [o for i in range(100) for o in (write(10 * i, 10 * i + 3, f"n{i}"), read(10 * i + 4, 10 * i + 6, f"n{i}"))]
    late = [write(2000, 2001, "a"), write(2002, 2010, "b"), write(2002, 2020, "c"), read(2011, 2012, "a"), read(2013, 2014, "c")]
    verdict, = linearizability.check([*noise, *late])
    assert verdict.failed == read(2011, 2012, "a") and sorted(o.begin for o in verdict.core) == [2000, 2002, 2011]
    assert set(verdict.allowed) == {"b", "c"}
    text = linearizability.tell(verdict, zero=2000)
    assert "write 'a'" in text and "read -> 'a'" in text and "could have been answered: 'b', 'c'" in text, text


# ---- a register that is simulated

class _Simulated:
    """Clients that ask one register; each operation is carried out at a moment of its own between begin and end."""

    def __init__(self, seed: int, count: int, clients: int, keys: int, kinds: str = "rrrrwwdc", unknown: float = 0.05):
        numbers = random.Random(seed)
        moments = []
        for client in range(clients):
            now = numbers.randrange(1000)
            for i in range(count // clients):
                now += numbers.randint(1, 400)
                begin, now = now, now + numbers.randint(1, numbers.choice((100, 500, 3000)))
                moments.append((numbers.uniform(begin, now), begin, now, client, i))
        self.operations: List[Operation] = []
        values: dict = {}
        for _, begin, end, client, i in sorted(moments):
            key = f"k{numbers.randrange(keys)}"
            self.operations.append(self._act(numbers, values, key, begin, end, f"c{client}", i, numbers.choice(kinds), unknown))
        self.operations.sort(key=lambda o: o.begin)

    @staticmethod
    def _act(numbers, values, key, begin, end, client, i, kind, unknown):
        before, new = values.get(key), f"{client}.{i}"
        is_unknown, took_effect = numbers.random() < unknown, numbers.random() < 0.5
        if kind == "r":
            return Operation("read", key, None, before, begin, end, client=client)
        if kind == "w":
            done = Operation("write", key, new, None, begin, end, client=client)
        elif kind == "d":
            done = Operation("delete", key, None, before is not None, begin, end, client=client)
            new = None
        elif kind == "i":
            done = Operation("incr", key, 3, (before or 0) + 3, begin, end, client=client) if before is not None else \
                Operation("write", key, 1, None, begin, end, client=client)
            new = done.result or 1
        else:
            expected = before if numbers.random() < 0.7 else "another"
            done = Operation("cas", key, (expected, new), expected == before, begin, end, client=client)
            new = new if done.result else before
            if kind == "c" and not done.result:  # as memcached's: it may fail for no reason, so it tells nothing
                return done._replace(outcome=FAILED)
        if not is_unknown or took_effect:
            values[key] = new
        return done._replace(outcome=UNKNOWN, result=None, end=None) if is_unknown else done


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kinds", ["rrrrwwdc", "rwwwww", "rrwC", "rii"])
def test_a_real_register_is_linearizable(seed, kinds):
    clients, unknown = (20, 0.05) if kinds[-1] in "cw" else (4, 0.01)  # what observes without showing a value takes more of a search
    simulated = _Simulated(seed, 2000, clients, 3, kinds, unknown)
    for verdict in linearizability.check(simulated.operations):
        assert verdict.is_ok, linearizability.tell(verdict)


def _stale(operations: List[Operation], numbers: random.Random) -> Optional[List[Operation]]:
    """One read with a value that was surely overwritten when it began."""
    for place in numbers.sample(range(len(operations)), len(operations)):
        o = operations[place]
        if o.kind != "read":
            continue
        surely = [w for w in operations if w.key == o.key and w.kind == "write" and w.outcome == "ok"]
        old = next((w for w in surely if any(w.end < n.begin and n.end < o.begin for n in surely)), None)
        if old is not None:
            return [*operations[:place], o._replace(result=old.argument), *operations[place + 1:]]
    return None


@pytest.mark.parametrize("seed", range(8))
def test_a_stale_read_is_found(seed):
    numbers = random.Random(seed)
    mutated = _stale(_Simulated(seed, 2000, 20, 3).operations, numbers)
    assert mutated is not None
    verdicts = [v for v in linearizability.check(mutated) if not v.is_ok]
    assert len(verdicts) == 1 and not verdicts[0].undecided
    assert len(verdicts[0].core) <= 8, linearizability.tell(verdicts[0])


# ---- a search that takes no thought

def _by_trying(operations: List[Operation]) -> bool:
    """Every order, by the definition alone."""
    step = linearizability._step

    def go(value: Any, left: List[Operation]) -> bool:
        if all(o.outcome == UNKNOWN for o in left):
            return True
        earliest = min((o.end for o in left if o.outcome == "ok"), default=None)
        for i, o in enumerate(left):
            if earliest is not None and o.begin > earliest:
                continue
            is_nothing = o.kind == "delete" and o.result is False
            after = (value if value is None else linearizability._IMPOSSIBLE) if is_nothing else step(o, value)
            if after is not linearizability._IMPOSSIBLE and go(after, left[:i] + left[i + 1:]):
                return True
        return False
    return go(None, [o for o in operations if o.outcome != FAILED and not (o.outcome == UNKNOWN and o.kind == "read")])


def _small(numbers: random.Random, make_value: Callable[[int], Any]) -> List[Operation]:
    """A few operations with answers that were thrown, which some register might have given."""
    found = []
    for i in range(numbers.randint(3, 7)):
        begin = numbers.randrange(20)
        end, kind, is_unknown = begin + numbers.randint(1, 12), numbers.choice("rrrwwdcC"), numbers.random() < 0.25
        value, seen = make_value(i), numbers.choice([None, *[make_value(j) for j in range(4)]])
        o = {"r": read(begin, end, seen), "w": write(begin, end, value), "d": delete(begin, end, numbers.random() < 0.7),
             "c": cas(begin, end, seen, value), "C": cas(begin, end, seen, value, False)}[kind]
        found.append(o._replace(outcome=UNKNOWN, end=None, result=None) if is_unknown and kind not in "rC" else o)
    return found


@pytest.mark.parametrize("make_value", [lambda i: f"v{i}", lambda i: f"v{i % 2}"], ids=["unique", "repeated"])
def test_the_same_as_by_trying_every_order(make_value):
    numbers = random.Random(7)
    results = {True: 0, False: 0}
    for _ in range(1500):
        operations = _small(numbers, make_value)
        expected = _by_trying(operations)
        verdict = linearizability.check_key("k", operations)
        assert verdict.is_ok == expected and not verdict.undecided, "\n".join(map(linearizability.describe, operations))
        if not expected:
            assert not _by_trying(verdict.core), "what is shown can be explained"
        results[expected] += 1
    assert min(results.values()) > 150, results


def test_a_history_is_saved_and_loaded(tmp_path):
    operations = _Simulated(1, 200, 5, 2).operations
    histories.save(tmp_path / "h", {"seed": 1}, operations)
    assert histories.load(tmp_path / "h") == ({"seed": 1}, operations)
