"""The staleness meter and the regional promise, over histories made by hand (times in milliseconds)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from linearity import staleness  # noqa: E402
from linearity.history import FAILED, UNKNOWN, Operation  # noqa: E402

MS = 1_000_000


def op(kind, region, begin, end, argument=None, result=None, outcome="ok"):
    return Operation(kind, "k", argument, result, begin * MS, None if end is None else end * MS, outcome, region=region)


def read(region, begin, end, value):
    return op("read", region, begin, end, None, value)


def write(region, begin, end, value, outcome="ok"):
    return op("write", region, begin, end, value, None, outcome)


def ages(*operations, initial=None):
    """Of all reads, in milliseconds, in no order."""
    return sorted(age / MS for found in staleness.staleness(operations, {"k": initial}).values() for age in found)


def broken(*operations, initial=None):
    return [v.read.begin // MS for v in staleness.regional(operations, {"k": initial})]


def test_a_read_is_as_old_as_the_first_write_over_it():
    written = [write("east", 0, 1, "a"), write("east", 10, 20, "b"), write("east", 30, 40, "c")]
    assert ages(*written, read("west", 45, 46, "a")) == [25]
    assert ages(*written, read("west", 45, 46, "b")) == [5]
    assert ages(*written, read("west", 45, 46, "c")) == [0]
    assert ages(*written, read("west", 20, 21, "a")) == [0]
    assert ages(*written, read("west", 15, 16, "b")) == [0], "of a write that is under way"


def test_writes_at_the_same_time_are_not_held_against_each_other():
    assert ages(write("east", 0, 10, "a"), write("west", 5, 8, "b"), read("east", 50, 51, "a"), read("east", 50, 51, "b")) == [0, 0]


def test_the_write_that_ended_first_counts():
    assert ages(write("east", 0, 1, "a"), write("east", 2, 30, "b"), write("west", 5, 10, "c"), read("east", 50, 51, "a")) == [40]


def test_only_what_was_acknowledged_counts():
    assert ages(write("east", 0, 1, "a"), write("east", 2, None, "b", UNKNOWN), write("east", 3, 4, "c", FAILED), read("east", 9, 10, "a")) == [0]


def test_an_unknown_write_is_there_once_it_was_seen():
    unknown = [write("east", 0, None, "a", UNKNOWN), write("east", 20, 21, "b")]
    assert ages(*unknown, read("east", 30, 31, "a")) == [0], "it may have come late"
    assert ages(*unknown, read("west", 10, 11, "a"), read("east", 30, 31, "a")) == [0, 9]


def test_nothing_there_is_the_latest_delete():
    deleted = [op("delete", "east", 0, 1, result=True), write("east", 2, 3, "a"), op("delete", "east", 5, 6, result=True), write("east", 10, 11, "b")]
    assert ages(*deleted, read("east", 20, 21, None)) == [9]
    assert ages(*deleted, read("east", 4, 4, None)) == [1]
    assert ages(*deleted, op("delete", "west", 19, None, None, None, UNKNOWN), read("east", 20, 21, None)) == [0]
    assert ages(write("east", 2, 3, "a"), read("east", 20, 21, None)) == [17], "from the beginning"
    assert ages(write("east", 2, 3, "b"), read("east", 20, 21, "a"), initial="a") == [17]


def test_a_cas_is_a_write():
    swapped = [write("east", 0, 1, "a"), op("cas", "east", 5, 6, ("a", "b"), True), op("cas", "east", 7, 8, ("a", "c"), False)]
    assert ages(*swapped, read("west", 10, 11, "a"), read("west", 10, 11, "b")) == [0, 4]


def test_the_regional_promise():
    a, b, c = write("east", 0, 1, "a"), write("east", 10, 20, "b"), write("west", 30, 40, "c")
    assert broken(a, b, read("east", 21, 22, "a")) == [21]
    assert broken(a, b, read("east", 19, 22, "a")) == [], "it began before the answer"
    assert broken(a, b, read("west", 21, 22, "a")) == [], "the other region may not know yet"
    assert broken(a, b, c, read("east", 45, 46, "b"), read("west", 45, 46, "c")) == []
    assert broken(a, b, c, read("west", 45, 46, "a"), read("west", 47, 48, "b")) == [45, 47], "older than its own last write"
    assert broken(a, op("delete", "east", 5, 6, result=True), read("east", 7, 8, "a")) == [7]
    assert broken(a, op("delete", "east", 5, 6, result=False), read("east", 7, 8, "a")) == [], "nothing was deleted, nothing was promised"


def test_what_nobody_had_written():
    assert broken(read("east", 0, 1, "x")) == [0]
    assert broken(read("east", 0, 1, "a"), write("east", 2, 3, "a")) == [0]
    assert broken(read("east", 5, 6, "a"), write("east", 2, 3, "a", FAILED)) == [5]
    assert broken(read("east", 5, 6, None), initial="a") == [5]


def test_a_violation_is_told():
    text = staleness.regional([write("east", 0, 1, "a"), write("east", 2, 3, "b"), read("east", 5, 6, "a")])[0].tell()
    assert "2.000 ms before" in text and "write 'a'" in text and "write 'b'" in text and "read -> 'a'" in text, text


def test_figures():
    reads = [read("east", 21 + i, 22 + i, "a") for i in range(100)] + [read("east", 30, 31, "b")] * 100 + [read("west", 30, 31, "b")]
    rows = staleness.figures([write("west", 0, 1, "a"), write("west", 10, 20, "b"), *reads])
    assert staleness.as_json(rows) == [
        {"region": "east", "reads": 200, "stale": 100, "share": 0.5, "p50_ms": 50, "p99_ms": 99, "max_ms": 100},
        {"region": "west", "reads": 1, "stale": 0, "share": 0, "p50_ms": 0, "p99_ms": 0, "max_ms": 0}]
    assert "50.000%" in staleness.table(rows)
