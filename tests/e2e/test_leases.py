"""Many readers, one load; and no load that an invalidation has overtaken ends up in the cache. Two sidecars share the pool."""

import time

import pytest

from support import Growth, Wire, in_threads, sees, until
from through import Asking, through_region


@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, config={"database": {"timeout": "20s", "threads": 8}}) as through:
        yield through


@pytest.fixture
def growth(west):
    return Growth(*west.outriggers)


@pytest.fixture(autouse=True)
def all_running(west):
    yield
    for sidecar in west.outriggers:
        if not sidecar.process.is_running:
            sidecar.start()


# ---- herds

def test_herd(west, growth):
    """100 readers of one key, over both sidecars, while the load takes its time: one load."""
    key = "version:" + west.fresh()
    with west.frozen() as freeze:
        readers = [Asking(west.outriggers[i % 2], key) for i in range(100)]
        freeze.holds(1)
        growth.reaches(99, "outrigger_lease_waits_total")
    assert [reader.answer() for reader in readers] == [b"old"] * 100
    growth.becomes(loads=1, lease_wins=1, lease_waits=99, lease_timeouts=0, fills=1, fills_refused=0)


def test_herds_on_many_keys(west, growth):
    """Without anything held up, and all at once: about one load for each key, exactly the right rows for everybody."""
    names = [west.fresh() for _ in range(20)]

    def read(i: int):
        with Wire(west.outriggers[i % 2].port) as wire:
            return [wire.get("version:" + name) for name in names]
    assert in_threads([lambda i=i: read(i) for i in range(40)]) == [[b"old"] * 20] * 40
    growth.becomes(loads=20, lease_wins=20, fills=20, fills_refused=0)


def test_herd_on_a_row_that_is_not_there(west, growth):
    with west.frozen() as freeze:
        readers = [Asking(west.outriggers[i % 2], "version:herd-on-nothing") for i in range(40)]
        freeze.holds(1)
        growth.reaches(39, "outrigger_lease_waits_total")
    assert [reader.answer() for reader in readers] == [None] * 40
    growth.becomes(loads=1, lease_wins=1)


def test_herd_after_a_delete(west, growth):
    key = "version:" + west.fresh()
    assert sees(west.port, key) == b"old"
    west.update(key.split(":")[1])
    with west.frozen() as freeze:
        with Wire(west.outriggers[1].port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
        readers = [Asking(west.outriggers[i % 2], key) for i in range(50)]
        freeze.holds(1)
        growth.reaches(49, "outrigger_lease_waits_total")
    assert [reader.answer() for reader in readers] == [b"new"] * 50
    growth.becomes(loads=2, lease_wins=2, fills=2)


def test_clients_that_go_away_while_they_wait(west, growth):
    key = "version:" + west.fresh()
    with west.frozen() as freeze:
        readers = [Asking(west.outriggers[i % 2], key) for i in range(30)]
        freeze.holds(1)
        growth.reaches(29, "outrigger_lease_waits_total")
        for reader in readers[:-1]:
            reader.wire.reset()
    assert readers[-1].answer() == b"old"
    growth.becomes(loads=1, fills=1)


# ---- loads that are overtaken

@pytest.mark.parametrize("by", [0, 1], ids=["same-sidecar", "other-sidecar"])
def test_a_row_that_was_read_before_the_change_is_not_stored(west, growth, by):
    """The load has read the old row; the row is changed and the key deleted; then the load comes back. Its reader, who asked before the
    change, may have the old row, but nobody after it."""
    name = west.fresh()
    key = "gated:" + name
    with west.gate_closed() as gate:
        early = Asking(west.outriggers[0], key)
        gate.holds()
        west.update(name)
        with Wire(west.outriggers[by].port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
    assert early.answer() == b"old"
    growth.becomes(fills_refused=1, fills=0, loads=1)
    for sidecar in west.outriggers:
        assert sees(sidecar.port, key) == b"new"
    growth.becomes(fills_refused=1, fills=1, loads=2)


def test_a_reader_after_the_change_does_not_join_the_load_before_it(west, growth):
    """An overtaken load is still under way in one sidecar when the other one's reader wins the new lease. A second reader of the first
    sidecar waits for that, and does not take the result of the old load, which is of its own process."""
    name = west.fresh()
    key = "gated:" + name
    first, second = west.outriggers
    with west.gate_closed() as gate:
        early = Asking(first, key)
        gate.holds(1)
        west.update(name)
        with Wire(west.port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
        winner = Asking(second, key)
        gate.holds(2)
        waiter = Asking(first, key)
        growth.reaches(1, "outrigger_lease_waits_total")
    assert early.answer() == b"old"
    assert winner.answer() == waiter.answer() == b"new"
    growth.becomes(loads=2, fills=1, fills_refused=1)
    assert sees(west.port, key) == b"new"


def test_frozen_by_a_table_lock(west, growth):
    name = west.fresh()
    key = "version:" + name
    with west.frozen() as freeze:
        reader = Asking(west.outriggers[0], key)
        freeze.holds()
        with Wire(west.outriggers[1].port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
    assert reader.answer() == b"old"
    growth.becomes(fills_refused=1, fills=0)
    west.update(name)  # nothing was stored, so not even a delete is needed
    assert sees(west.port, key) == b"new"


def test_flushed_during_the_load(west, growth):
    key = "version:" + west.fresh()
    with west.frozen() as freeze:
        reader = Asking(west.outriggers[0], key)
        freeze.holds()
        with Wire(west.port) as wire:
            assert wire.ask(b"flush_all\r\n") == b"OK\r\n"
    assert reader.answer() == b"old"
    growth.becomes(fills_refused=1, fills=0)


def test_changes_and_reads_at_once(west):
    """Writers that update the row and then delete the key; readers everywhere. Once a delete was answered, nobody sees anything older."""
    name = west.fresh()
    key = "version:" + name
    west.update(name, "0")
    done = []

    def write():
        with Wire(west.outriggers[0].port) as wire:
            for i in range(1, 61):
                west.update(name, str(i))
                assert wire.delete(key) == b"DELETED\r\n"
                done.append(i)

    def read(sidecar):
        with Wire(sidecar.port) as wire:
            while len(done) < 60:
                least = done[-1] if done else 0
                got = int(wire.get(key))
                assert got >= least, (got, least)
    in_threads([write, *[lambda s=s: read(s) for s in west.outriggers * 4]])
    for sidecar in west.outriggers:
        assert sees(sidecar.port, key) == b"60"


# ---- leases that are not used

def test_lease_wait_is_over(west, growth):
    """A reader that has waited long enough loads by itself, and does not store what it found."""
    name = west.fresh()
    key = "hasty:" + name
    with west.frozen() as freeze:
        first = Asking(west.outriggers[0], key)
        freeze.holds(1)
        second = Asking(west.outriggers[1], key)
        freeze.holds(2)
        growth.reaches(1, "outrigger_lease_timeouts_total")
    assert first.answer() == second.answer() == b"old"
    assert growth.of("outrigger_loads_total") == 2 and growth.of("outrigger_lease_wins_total") == 1


def test_the_holder_of_a_lease_is_killed(west):
    """Others wait for it no longer than lease_wait, and its key is cached again once the lease has run out."""
    name = west.fresh()
    key = "brief:" + name
    holder, survivor = west.outriggers
    with west.frozen() as freeze:
        Asking(holder, key)
        freeze.holds(1)
        holder.kill()
        reader = Asking(survivor, key)
    assert reader.answer() == b"old"

    def is_cached_again() -> bool:
        assert sees(survivor.port, key) == b"old"
        return west.is_cached(key)
    until(is_cached_again, "the key being cached again")
    holder.start()
    assert sees(holder.port, key) == b"old"


def test_the_holder_of_a_tombstones_lease_is_killed(west):
    """The same when what it held was the lease on a tombstone: the next winner comes when the tombstone has gone, and never with old data."""
    name = west.fresh()
    key = "brief:" + name
    holder, survivor = west.outriggers
    assert sees(survivor.port, key) == b"old"
    west.update(name)
    with west.frozen() as freeze:
        with Wire(survivor.port) as wire:
            assert wire.delete(key) == b"DELETED\r\n"
        Asking(holder, key)
        freeze.holds(1)
        holder.kill()
    assert sees(survivor.port, key) == b"new"
    west.update(name, "newer")
    with Wire(survivor.port) as wire:
        assert wire.delete(key) == b"DELETED\r\n" and wire.get(key) == b"newer"
    holder.start()
    assert sees(holder.port, key) == b"newer"


def test_sigterm_during_a_load(west):
    """A request under way is answered before the sidecar ends; its lease is used."""
    key = "version:" + west.fresh()
    leaving = west.outriggers[0]
    with west.frozen() as freeze:
        reader = Asking(leaving, key)
        freeze.holds(1)
        leaving.process.signal(15)
        until(lambda: "finishing what is under way" in leaving.process.tail(), "draining")
    assert reader.answer() == b"old"
    assert leaving.process.wait() == 0
    assert west.is_cached(key)
    leaving.start()


# ---- clocks

def test_delete_by_a_clock_that_is_behind(west):
    """A lease that a sidecar with a faster clock has won is void after a delete through one with a slower clock: its fill is refused."""
    name = west.fresh()
    key = ("version:" + name).encode()
    lease = (int(time.time() * 1000) + 300) << 21  # within max_clock_skew
    for node in west.nodes:  # the key's home is one of them
        assert b"W" in node.command(b"mg %s c N30 E%d\r\n" % (key, lease))
    west.update(name)
    with Wire(west.port) as wire:
        assert wire.delete(key.decode()) == b"DELETED\r\n"
    fills = [node.command(b"ms %s 3 C%d E%d T60\r\nold\r\n" % (key, lease, lease + 1)) for node in west.nodes]
    assert sorted(fills) == [b"EX\r\n", b"HD\r\n"]
    assert sees(west.port, key.decode()) == b"new"
