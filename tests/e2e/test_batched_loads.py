"""Misses that arrive together are loaded together: counted by the sidecar and by the database itself."""

import pytest

from support import Growth, Wire, in_threads
from through import through_region


@pytest.fixture(scope="module")
def west(directory):
    with through_region(directory, outriggers=1) as through:
        yield through


def statements(west) -> int:
    """How many statements the database has executed for the sidecar's account; ours is another."""
    rows = west.primary.query("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'")
    return int(rows[0]["Value"])


def multi_get(port: int, keys):
    with Wire(port) as wire:
        wire.send(b"get " + b" ".join(k.encode() for k in keys) + b"\r\n")
        values = {}
        while True:
            head = wire.line().split()
            if head[0] != b"VALUE":
                assert head == [b"END"], head
                return values
            values[head[1].decode()] = wire.read(int(head[3]))
            assert wire.read(2) == b"\r\n"


def test_a_multi_get_of_100_missing_keys_is_a_few_statements(west):
    """At most one for each turn of the loop in which a node's replies arrived, which is up to the nodes and the machine."""
    keys = [f"version:p{i}" for i in range(100)]
    growth, before = Growth(west.region.outrigger), statements(west)
    assert multi_get(west.port, keys) == {f"version:p{i}": b"v%d" % i for i in range(100)}
    assert growth.of("outrigger_loads_total", namespace="version", result="found") == 100
    queries = growth.of("outrigger_database_queries_total", result="ok")
    assert 1 <= queries <= 10, queries  # one, unless this machine is slower than the nodes are waited for
    assert growth.of("outrigger_database_query_keys_total") == 100
    assert statements(west) - before == queries
    growth.reaches(100, "outrigger_fills_total", namespace="version")
    assert multi_get(west.port, keys) == {f"version:p{i}": b"v%d" % i for i in range(100)}
    assert growth.of("outrigger_database_queries_total") == queries


def test_present_and_absent_rows_in_one_multi_get(west):
    keys = [f"version:p{i}" for i in range(200, 220)] + [f"version:none{i}" for i in range(20)] + ["version:n\u00f6ne"]
    found = multi_get(west.port, keys)
    assert found == {f"version:p{i}": b"v%d" % i for i in range(200, 220)}


def test_two_tables_in_one_multi_get_do_not_mix(west):
    keys = [f"{prefix}:p{i}" for i in range(300, 330) for prefix in ("version", "hasty")] + ["number:1", "word:p300"]
    growth = Growth(west.region.outrigger)
    found = multi_get(west.port, keys)
    assert {k: v for k, v in found.items() if k.startswith(("version:", "hasty:"))} == \
        {f"{prefix}:p{i}": b"v%d" % i for i in range(300, 330) for prefix in ("version", "hasty")}
    assert growth.of("outrigger_database_queries_total", result="ok") <= 16


def test_clients_that_come_at_once_share_statements(west):
    """While the table is frozen, what arrives waits; let go, it goes in a few pieces."""
    names = [west.fresh() for _ in range(60)]
    growth = Growth(west.region.outrigger)
    with west.frozen() as freeze:
        wires = []
        for name in names:
            wire = Wire(west.port)
            wire.send(b"get version:%s\r\n" % name.encode())
            wires.append(wire)
        freeze.holds()
        growth.reaches(60, "outrigger_lease_wins_total", namespace="version")
    for name, wire in zip(names, wires):
        assert wire.until(b"END\r\n") == b"VALUE version:%s 0 3\r\nold\r\nEND\r\n" % name.encode()
        wire.close()
    assert growth.of("outrigger_database_queries_total", result="ok") <= 20


def test_many_multi_gets_of_the_same_keys(west):
    keys = [f"version:p{i}" for i in range(500, 600)]
    answers = in_threads([lambda: multi_get(west.port, keys) for _ in range(8)])
    assert all(a == {f"version:p{i}": b"v%d" % i for i in range(500, 600)} for a in answers)
