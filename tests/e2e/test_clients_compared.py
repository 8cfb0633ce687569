"""The same script of a foreign client against memcached and against sidecars: every answer, and every exception, must be the same.

`sides` are the ports of two memcacheds, and of two sidecars in front of one pool; a client of one server takes the first.
"""

import json
import os
import random
import re
import string
import subprocess
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Sequence, Tuple

import pylibmc
import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from conftest import plain_outrigger
from local.memcached import Memcached
from support import ROOT, in_threads

NODE_MODULES = ROOT / "build/node/node_modules"
STEPS = Path(__file__).parent / "node"


class Sides(NamedTuple):
    memcached: List[int]
    sidecar: List[int]
    nodes: List[Memcached]


@pytest.fixture(scope="module")
def all_sides(plain, watch, directory):
    others = [Memcached(directory, name=name) for name in ("node-2", "reference-2")]
    sidecars = [plain_outrigger(directory, f"{plain.node.address},{others[0].address}", name=f"outrigger-{i}") for i in (1, 2)]
    try:
        for server in others:
            server.start()
        if os.environ.get("OUTRIGGER_STAND_IN") == "memcached":
            ports = [plain.node.port, others[0].port]
        else:
            ports = [sidecar.start("listening").port for sidecar in sidecars]
        yield Sides([plain.reference.port, others[1].port], ports, [plain.node, plain.reference, *others])
    finally:
        for server in sidecars + others:
            server.close()


@pytest.fixture
def sides(all_sides):
    for node in all_sides.nodes:
        assert node.command(b"flush_all\r\n") == b"OK\r\n"
    return all_sides


def attempt(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except Exception as e:  # the client's answer, too
        return type(e).__name__, re.sub(r"\(0x[0-9a-f]+\)|:\d{4,5}\b|host: .*", "", str(e))


def answers(steps: Sequence[Tuple[str, Callable[[], Any]]]) -> List[Tuple[str, Any]]:
    return [(name, attempt(step)) for name, step in steps]


def compare(sides: Sides, script: Callable[[List[int]], List[Any]]) -> List[Any]:
    expected, got = in_threads([lambda: script(sides.memcached), lambda: script(sides.sidecar)])
    for one, other in zip(expected, got):
        assert other == one
    assert len(got) == len(expected)
    return got


# ---- pylibmc

VALUES = {f"key{i}": i for i in range(500)}
TEXT = "".join(random.Random(1).choice(string.printable) for _ in range(300_000))


def pylibmc_script(binary: bool, behaviors: dict, count: int) -> Callable[[List[int]], List[Any]]:
    def script(ports: List[int]) -> List[Any]:
        client = pylibmc.Client([f"127.0.0.1:{port}" for port in ports[:count]], binary=binary, behaviors=behaviors)
        seen = {}

        def gets(key: str) -> Any:
            value, seen[key] = client.gets(key)
            return value
        steps = [
            ("miss", lambda: client.get("a")), ("default", lambda: client.get("a", 5)), ("set", lambda: client.set("a", "one", time=100)), ("get", lambda: client.get("a")),
            ("object", lambda: (client.set("object", {"a": [1, 2.5, None]}), client.get("object"))), ("bytes", lambda: (client.set("bytes", bytes(range(256))), client.get("bytes"))),
            ("add", lambda: (client.add("a", "x"), client.add("b", "two"))), ("replace", lambda: (client.replace("b", "three"), client.replace("none", "x"))),
            ("append", lambda: (client.append("b", ">"), client.prepend("b", "<"), client.get("b"))), ("append to nothing", lambda: client.append("none", ">")),
            ("prepend to nothing", lambda: client.prepend("none", ">")), ("touch", lambda: client.touch("a", 100)), ("touch nothing", lambda: client.touch("none", 100)),
            ("number", lambda: (client.set("n", 41), client.incr("n"), client.incr("n", 10), client.decr("n", 2), client.get("n"))), ("incr nothing", lambda: client.incr("none")),
            ("decr nothing", lambda: client.decr("none")), ("incr a word", lambda: client.incr("a")), ("decr below zero", lambda: client.decr("n", 1000)),
            ("gets", lambda: gets("b")), ("cas", lambda: client.cas("b", "four", seen["b"])), ("cas again", lambda: client.cas("b", "five", seen["b"])), ("cas get", lambda: client.get("b")),
            ("gets nothing", lambda: client.gets("none")), ("cas nothing", lambda: client.cas("none", "x", 5)),
            ("delete", lambda: (client.delete("b"), client.delete("b"), client.get("b"))), ("set_multi", lambda: client.set_multi(VALUES)),
            ("get_multi", lambda: client.get_multi([*VALUES, "none"])), ("prefix", lambda: client.get_multi(["1", "2"], key_prefix="key")),
            ("add_multi", lambda: sorted(client.add_multi({"key1": 5, "new": 6}))), ("delete_multi", lambda: (client.delete_multi(list(VALUES)[:400]), client.get_multi(list(VALUES)))),
            ("incr_multi", lambda: (client.incr_multi(["key450", "key451"]), client.get_multi(["key450", "key451"]))), ("compressed", lambda: (client.set("big", TEXT, min_compress_len=100), client.get("big") == TEXT)),
            ("large", lambda: (client.set("large", "x" * 1_000_000), len(client.get("large")))), ("too large", lambda: client.set("large", b"x" * 1_048_577)), ("after too large", lambda: client.get("large") is None),
            ("long key", lambda: (client.set("k" * 250, "x"), client.get("k" * 250))), ("too long key", lambda: client.get("k" * 251)),
            # In text that is two words, and what becomes of the connection then is libmemcached's affair.
            ("key with a space", lambda: binary and (client.set("a b", "x"), client.get("a b"))),
            ("past", lambda: (client.set("past", "x", time=2592001), client.get("past"))), ("stats", lambda: [{"pid", "uptime", "version", "cmd_get"} <= set(s) for _, s in client.get_stats()]),
            ("flush", lambda: (client.flush_all(), client.get("a"))),
        ]
        try:
            return answers(steps)
        finally:
            client.disconnect_all()
    return script


BEHAVIORS = {"plain": {}, "cas": {"cas": True}, "ketama": {"ketama": True, "cas": True}, "ketama_weighted": {"ketama_weighted": True}, "consistent": {"distribution": "consistent", "hash": "md5"},
             "no_block": {"no_block": True, "tcp_nodelay": True}}


@pytest.mark.parametrize("behaviors", BEHAVIORS.values(), ids=BEHAVIORS)
@pytest.mark.parametrize("is_binary", [False, True], ids=["text", "binary"])
def test_pylibmc(sides, is_binary, behaviors):
    compare(sides, pylibmc_script(is_binary, behaviors, 2 if "ketama" in str(behaviors) or "distribution" in behaviors else 1))


def test_pylibmc_sasl_where_it_is_off(sides):
    assert pylibmc.support_sasl

    def script(ports: List[int]) -> List[Any]:
        client = pylibmc.Client([f"127.0.0.1:{ports[0]}"], binary=True, username="user", password="secret")
        try:
            return answers([("get", lambda: client.get("a"))])
        finally:
            client.disconnect_all()
    (_, answer), = compare(sides, script)
    assert answer[0] == "UnknownReadFailure"


# ---- pymemcache

def pymemcache_script(make: Callable[[List[int]], Any]) -> Callable[[List[int]], List[Any]]:
    def script(ports: List[int]) -> List[Any]:
        client = make(ports)
        seen = {}

        def gets(key: str) -> Any:
            value, seen[key] = client.gets(key)
            return value
        many = {f"key{i}": b"%d" % i for i in range(500)}
        steps = [
            ("miss", lambda: (client.get("a"), client.get("a", 5))), ("set", lambda: (client.set("a", b"one", expire=100), client.get("a"))), ("flags", lambda: client.set("f", b"x", flags=4294967295)),
            ("add", lambda: (client.add("a", b"x"), client.add("b", b"two"))), ("replace", lambda: (client.replace("b", b"three"), client.replace("none", b"x"))),
            ("append", lambda: (client.append("b", b">"), client.prepend("b", b"<"), client.get("b"), client.append("none", b"x"))), ("gets", lambda: gets("b")), ("cas", lambda: client.cas("b", b"four", seen["b"])),
            ("cas again", lambda: client.cas("b", b"five", seen["b"])), ("cas nothing", lambda: client.cas("none", b"x", b"5")), ("touch", lambda: (client.touch("a", 100), client.touch("none", 100))),
            ("numbers", lambda: (client.set("n", b"7"), client.incr("n", 5), client.decr("n", 2), client.decr("n", 100), client.incr("none", 1))), ("incr a word", lambda: client.incr("a", 1)),
            ("set_many", lambda: client.set_many(many)), ("get_many", lambda: client.get_many([*many, "none"])), ("gets_many", lambda: sorted(client.gets_many(["key1", "none"]))),
            ("delete", lambda: (client.delete("b"), client.delete("b"), client.get("b"))), ("delete_many", lambda: (client.delete_many(list(many)[:400]), len(client.get_many(list(many))))),
            ("noreply", lambda: (client.set("q", b"1", noreply=True), client.incr("q", 1, noreply=True), client.append("q", b"!", noreply=True), client.get("q"))),
            ("large", lambda: (client.set("large", b"x" * 1_000_000), len(client.get("large")))), ("too large", lambda: client.set("large", b"x" * 1_048_577)), ("after too large", lambda: client.get("large")),
            ("bad key", lambda: client.get("a b")), ("past", lambda: (client.set("past", b"x", expire=-1), client.get("past"))), ("flush", lambda: (client.flush_all(), client.get("a"))),
        ]
        try:
            return answers(steps)
        finally:
            client.close()
    return script


OPTIONS = {"timeout": 20, "connect_timeout": 20, "default_noreply": False}
PYMEMCACHE = {
    "Client": lambda ports: Client(("127.0.0.1", ports[0]), **OPTIONS),
    "PooledClient": lambda ports: PooledClient(("127.0.0.1", ports[0]), max_pool_size=4, **OPTIONS),
    "HashClient": lambda ports: HashClient([("127.0.0.1", port) for port in ports], **OPTIONS),
    "HashClient-pooled": lambda ports: HashClient([("127.0.0.1", port) for port in ports], use_pooling=True, **OPTIONS),
}


@pytest.mark.parametrize("make", PYMEMCACHE.values(), ids=PYMEMCACHE)
def test_pymemcache(sides, make):
    compare(sides, pymemcache_script(make))


# ---- Node.js

@pytest.mark.parametrize("count", [1, 2], ids=["one", "several"])
@pytest.mark.parametrize("client", ["memjs", "memcached"])
def test_node(sides, client, count):
    """memjs speaks binary, memcached text."""
    assert (NODE_MODULES / client).is_dir(), "deploy/local/setup test installs it"

    def script(ports: List[int]) -> List[Any]:
        done = subprocess.run(["node", STEPS / f"{client}_steps.js", ",".join(f"127.0.0.1:{port}" for port in ports[:count])], env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=120, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line.replace(str(ports[0]), "PORT").replace(str(ports[-1]), "PORT")) for line in done.stdout.splitlines()
                if line.startswith("[")]
    assert len(compare(sides, script)) > 25
