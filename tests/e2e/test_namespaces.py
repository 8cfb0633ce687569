"""Which namespace a key belongs to, and which node: longest prefix, and where libmemcached's weighted ketama puts it."""

import pylibmc
import pytest

from local.memcached import Memcached
from support import Growth, Wire, sees
from through import through_region

PREFIXES = ["", "a", "a:", "a:b:", "a:b:c", "abc", "b", "é:", "x" * 249]


@pytest.fixture(scope="module")
def nodes(directory):
    nodes = [Memcached(directory, name=f"node-{i}").start() for i in range(3)]
    yield nodes
    for node in nodes:
        node.close()


def longest(key: str) -> str:
    return max((p for p in PREFIXES if key.startswith(p)), key=len)


def test_longest_prefix(start, nodes):
    sidecar = start({"pool": {"nodes": [nodes[0].address]}, "namespaces": [{"prefix": p, "name": f"n{i}"} for i, p in enumerate(PREFIXES)]})
    keys = ["q", "a", "a:", "a:x", "a:b", "a:b:", "a:b:d", "a:b:c", "a:b:cd", "ab", "abc", "abcd", "abd", "b", "b:", "ba", "c", "é", "é:1", "A",
            "x" * 248, "x" * 249, "x" * 250, "\x7f", "~"]
    with Wire(sidecar.port) as wire:
        for key in keys:
            growth = Growth(sidecar)
            assert wire.get(key) is None and wire.set(key, b"1") == b"STORED\r\n" and wire.get(key) == b"1" and wire.delete(key) == b"DELETED\r\n"
            name = f"n{PREFIXES.index(longest(key))}"
            assert growth.of("outrigger_requests_total", namespace=name) == growth.of("outrigger_requests_total") == 4, key
            assert growth.of("outrigger_requests_total", namespace=name, command="get") == 2
            assert growth.of("outrigger_hits_total", namespace=name) == growth.of("outrigger_misses_total", namespace=name) == 1


def test_without_a_default_namespace_there_is_one(start, nodes):
    sidecar = start({"pool": {"nodes": [nodes[0].address]}, "namespaces": [{"prefix": "only:"}]})
    growth = Growth(sidecar)
    with Wire(sidecar.port) as wire:
        assert wire.set("other", b"1") == b"STORED\r\n" and wire.set("only:this", b"1") == b"STORED\r\n"
    assert growth.of("outrigger_requests_total", namespace="only") == 1
    assert growth.of("outrigger_requests_total") == 2


def test_default_name_is_the_prefix_without_punctuation(start, nodes):
    sidecar = start({"pool": {"nodes": [nodes[0].address]}, "namespaces": [{"prefix": "user:v2:"}, {"prefix": "cart/"}]})
    growth = Growth(sidecar)
    with Wire(sidecar.port) as wire:
        wire.get("user:v2:1")
        wire.get("cart/1")
    assert growth.of("outrigger_misses_total", namespace="user:v2") == growth.of("outrigger_misses_total", namespace="cart") == 1


def test_aside_and_through_beside_each_other(watch, directory):
    """A through namespace within an aside one, and an aside one within a through one."""
    with through_region(directory / "nested", outriggers=1, config={"namespaces": [
            {"prefix": "version:", "read": "through", "source": {"table": "packages", "key_column": "name", "value_column": "version"}},
            {"prefix": "version:draft:"}]}) as west:
        with Wire(west.port) as wire:
            assert wire.get("version:p1") == b"v1"
            assert wire.set("version:p1", b"x") == b"STORED\r\n" and wire.get("version:p1") == b"v1"
            assert wire.get("version:draft:p1") is None
            assert wire.set("version:draft:p1", b"x") == b"STORED\r\n" and wire.get("version:draft:p1") == b"x"
            assert wire.get("versions") is None and wire.set("versions", b"y") == b"STORED\r\n" and wire.get("versions") == b"y"


@pytest.mark.parametrize("weights", [[1], [1, 1], [1, 1, 1], [1, 3], [5, 1, 2]], ids=str)
def test_keys_lie_where_libmemcached_puts_them(start, nodes, weights):
    """Stored through the sidecar, found by pylibmc, and the other way round; so a fleet can be moved over without a cold cache."""
    pool = nodes[: len(weights)]
    for node in pool:
        assert node.command(b"flush_all\r\n") == b"OK\r\n"
    sidecar = start({"pool": {"nodes": [{"address": n.address, "weight": w} for n, w in zip(pool, weights)]}})
    reference = pylibmc.Client([f"{n.address}:{w}" for n, w in zip(pool, weights)], behaviors={"ketama_weighted": True})
    keys = [f"key:{i}" for i in range(1000)]
    with Wire(sidecar.port) as wire:
        wire.send(b"".join(b"set %s 0 0 4 noreply\r\nours\r\n" % k.encode() for k in keys))
        assert wire.get(keys[-1]) == b"ours"
        assert reference.get_multi(keys) == dict.fromkeys(keys, b"ours")
        assert reference.set_multi(dict.fromkeys(keys, "theirs")) == []
        answer = wire.ask(b"get " + " ".join(keys).encode() + b"\r\n", b"END\r\n")
        assert answer.count(b"\r\ntheirs\r\n") == len(keys)
    held = [sum(n.command(b"get " + k.encode() + b"\r\n") != b"END\r\n" for k in keys[:100]) for n in pool]
    assert sum(held) == 100 and min(held) > 0  # each key in exactly one node, and every node has some
    reference.disconnect_all()


def test_order_of_nodes_does_not_matter_but_addresses_do(start, nodes):
    """Two sidecars with the nodes in different order agree on where keys are."""
    a, b = (start({"pool": {"nodes": [n.address for n in order]}}) for order in (nodes, nodes[::-1]))
    with Wire(a.port) as wire:
        for i in range(200):
            assert wire.set(f"order{i}", str(i).encode()) == b"STORED\r\n"
    for i in range(200):
        assert sees(b.port, f"order{i}") == str(i).encode()


def test_flush_all_reaches_every_node(start, nodes):
    sidecar = start({"pool": {"nodes": [n.address for n in nodes]}})
    with Wire(sidecar.port) as wire:
        for i in range(60):
            wire.set(f"flush{i}", b"1")
        assert wire.ask(b"flush_all\r\n") == b"OK\r\n"
        assert wire.ask(b"get " + b" ".join(b"flush%d" % i for i in range(60)) + b"\r\n") == b"END\r\n"
