"""One hot key, a thousand readers, four sidecars: one load."""

import pytest

from support import Growth, Wire
from through import Asking, through_region

READERS = 1000


@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, outriggers=4, config={"pool": {"timeout": "10s"}}) as through:
        yield through


def read_by_all(west, key, growth):
    with west.frozen() as freeze:
        readers = [Asking(west.outriggers[i % 4], key) for i in range(READERS)]
        freeze.holds(1)
        growth.reaches(READERS - 1, "outrigger_lease_waits_total")
    return {reader.answer() for reader in readers}


def test_expired(west):
    """The entry has expired when they all come; the database takes its time."""
    key = "hot:" + west.fresh()
    growth = Growth(*west.outriggers)
    assert read_by_all(west, key, growth) == {b"old"}
    growth.becomes(loads=1, lease_wins=1, lease_timeouts=0, fills=1)


def test_invalidated(west):
    name = west.fresh()
    key = "hot:" + name
    with Wire(west.port) as wire:
        assert wire.get(key) == b"old"
        west.update(name)
        assert wire.delete(key) == b"DELETED\r\n"
    growth = Growth(*west.outriggers)
    assert read_by_all(west, key, growth) == {b"new"}
    growth.becomes(loads=1, lease_wins=1, lease_timeouts=0, fills=1)
