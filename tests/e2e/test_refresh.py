"""Values that are loaded anew behind the answer: before they expire (refresh_ahead), and after an invalidation (stale_while_revalidate)."""

import pytest

from support import Growth, Wire, in_threads, sees, until
from through import Asking, NAMESPACES, _namespace, through_region

MORE = [
    _namespace("ahead:", "packages", "name", "version", ttl="100s", refresh_ahead="99s"),
    _namespace("aheadnone:", "packages", "name", "version", negative_ttl="100s", ttl="100s", refresh_ahead="99s"),
    _namespace("stale:", "packages", "name", "version", stale_while_revalidate="30s", tombstone_ttl="60s"),
    _namespace("stalebriefly:", "packages", "name", "version", stale_while_revalidate="1s", tombstone_ttl="60s"),
]


@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, config={"namespaces": NAMESPACES + MORE, "database": {"timeout": "20s", "threads": 8}}) as through:
        yield through


@pytest.fixture
def growth(west):
    return Growth(*west.outriggers)


def _is_due(west, key):
    """Whether less than refresh_ahead is left of an entry."""
    return int(west.item(key)["t"]) < 99


def test_refreshed_before_it_expires(west, growth):
    """The reader who finds it due is not kept waiting: the load is held up, and everybody is answered."""
    name = west.fresh()
    key = "ahead:" + name
    assert sees(west.port, key) == b"old"
    west.update(name)
    until(lambda: _is_due(west, key), "the entry is due")
    with west.frozen() as freeze:
        assert sees(west.port, key) == b"old"
        freeze.holds(1)
        assert in_threads([lambda: sees(west.outriggers[1].port, key)] * 20) == [b"old"] * 20
    growth.becomes(loads=2, fills=2, refreshes=1, lease_wins=1)
    assert sees(west.port, key) == b"new"


def test_entries_that_nobody_reads_are_not_refreshed(west, growth):
    key = "ahead:" + west.fresh()
    assert sees(west.port, key) == b"old"
    until(lambda: _is_due(west, key), "the entry is due")
    growth.becomes(loads=1, refreshes=0)


def test_row_that_has_gone_when_it_is_refreshed(west, growth):
    name = west.fresh()
    key = "aheadnone:" + name
    assert sees(west.port, key) == b"old"
    west.query("DELETE FROM packages WHERE name = %s", (name,))
    until(lambda: _is_due(west, key), "the entry is due")
    assert sees(west.port, key) == b"old"
    growth.becomes(loads=2, fills=2, refreshes=1)
    assert sees(west.port, key) is None  # by the entry, which may be due again by now
    assert growth.of("outrigger_lease_wins_total") == 1


def test_refresh_that_an_invalidation_overtakes(west, growth):
    """What the refresh loaded is older than the delete: it is not stored."""
    name = west.fresh()
    key = "ahead:" + name
    assert sees(west.port, key) == b"old"
    until(lambda: _is_due(west, key), "the entry is due")
    with west.frozen() as freeze:
        assert sees(west.port, key) == b"old"
        freeze.holds(1)
        with Wire(west.port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
    growth.becomes(loads=2, fills=1, fills_refused=1, refreshes=1)
    west.update(name)
    assert sees(west.port, key) == b"new"


def test_stale_while_it_is_loaded(west, growth):
    name = west.fresh()
    key = "stale:" + name
    assert sees(west.port, key) == b"old"
    west.update(name)
    with west.frozen() as freeze:
        with Wire(west.port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
        assert sees(west.outriggers[1].port, key) == b"old"
        freeze.holds(1)
        assert in_threads([lambda: sees(west.port, key)] * 20) == [b"old"] * 20
    growth.becomes(loads=2, fills=2, refreshes=1, stale_hits=21)
    assert sees(west.port, key) == b"new"


def test_load_behind_a_stale_answer_that_fails_is_tried_again(west, growth):
    """The lease is given back: the next reader wins it."""
    name = west.fresh()
    key = "stale:" + name
    assert sees(west.port, key) == b"old"
    west.update(name)
    with Wire(west.port) as wire:
        assert wire.delete(key) == b"DELETED\r\n"
    west.query("RENAME TABLE packages TO packages_away")
    try:
        assert sees(west.port, key) == b"old"
        growth.reaches(1, "outrigger_loads_total", result="failed")
    finally:
        west.query("RENAME TABLE packages_away TO packages")
    until(lambda: sees(west.port, key) == b"new", "the new value")


def test_too_stale_to_serve(west, growth):
    """After stale_while_revalidate the reader waits for the new value."""
    name = west.fresh()
    key = "stalebriefly:" + name
    assert sees(west.port, key) == b"old"
    west.update(name)
    with Wire(west.port) as wire:
        assert wire.delete(key) == b"DELETED\r\n"
    until(lambda: int(west.item(key)["t"]) < 58, "the tombstone is older than a second")
    with west.frozen() as freeze:
        reader = Asking(west.outriggers[0], key)
        freeze.holds(1)
        assert reader.is_waiting()
    assert reader.answer() == b"new"
    growth.becomes(stale_hits=0, refreshes=0)
