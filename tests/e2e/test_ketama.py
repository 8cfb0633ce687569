"""The hash ring against libmemcached itself: key for key the same node.

Once through libmemcached's own functions, which need no servers, for many pools; once the way an application would see it, with
pylibmc and real memcached processes.
"""

import ctypes
import ctypes.util
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KETAMA_WEIGHTED = 16  # MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED
KEYS = 10_000


@pytest.fixture(scope="module")
def pick(tmp_path_factory):
    """A function: nodes [(host, port, weight)] and keys to the indices that our ring gives."""
    tool = tmp_path_factory.mktemp("ketama") / "ketama_pick"
    sources = [ROOT / "tests/support/ketama_pick.c", ROOT / "common/ketama.c", ROOT / "common/md5_lanes.c", ROOT / "common/err.c"]
    subprocess.run(
        [os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O2", f"-I{ROOT}", "-o", tool, *sources, "-lcrypto"], check=True
    )

    def run(nodes, keys):
        arguments = [f"{host}:{port}:{weight}" for host, port, weight in nodes]
        text = "".join(f"{key}\n" for key in keys)
        done = subprocess.run([tool, *arguments], input=text, capture_output=True, text=True, check=True)
        return [int(line) for line in done.stdout.split()]

    return run


def make_keys(seed, count=KEYS):
    """Keys of all lengths, from one byte to 250, of all bytes that a line may have in it."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.{}/%$!"
    keys = {f"package:{i}" for i in range(count // 4)} | {f"{rng.getrandbits(64):x}" for _ in range(count // 4)}
    while len(keys) < count:
        keys.add("".join(rng.choices(letters, k=rng.randint(1, 250))))
    return sorted(keys)


class Libmemcached:
    def __init__(self, nodes):
        self.lib = ctypes.CDLL("libmemcached.so.11")
        self.lib.memcached_create.restype = ctypes.c_void_p
        self.lib.memcached_create.argtypes = [ctypes.c_void_p]
        self.lib.memcached_free.argtypes = [ctypes.c_void_p]
        self.lib.memcached_behavior_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64]
        self.lib.memcached_server_add_with_weight.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint16, ctypes.c_uint32]
        self.lib.memcached_server_add_unix_socket_with_weight.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
        self.lib.memcached_generate_hash.restype = ctypes.c_uint32
        self.lib.memcached_generate_hash.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self.memc = self.lib.memcached_create(None)
        assert self.lib.memcached_behavior_set(self.memc, KETAMA_WEIGHTED, 1) == 0
        for host, port, weight in nodes:
            if host.startswith("/"):
                code = self.lib.memcached_server_add_unix_socket_with_weight(self.memc, host.encode(), weight)
            else:
                code = self.lib.memcached_server_add_with_weight(self.memc, host.encode(), port, weight)
            assert code == 0

    def pick(self, keys):
        encoded = [key.encode() for key in keys]
        return [self.lib.memcached_generate_hash(self.memc, key, len(key)) for key in encoded]

    def close(self):
        self.lib.memcached_free(self.memc)


def random_pool(seed, count):
    rng = random.Random(seed)
    ports = [11211, 11212, 11311, 1, 65535, 22122]
    return [(f"10.{rng.randrange(256)}.{i}.{rng.randrange(256)}", rng.choice(ports), rng.choice([1, 1, 2, 3, 7, 10, 33, 100, 1000])) for i in range(count)]


POOLS = {
    "one": [("127.0.0.1", 11211, 1)],
    "two": [("10.0.0.1", 11211, 1), ("10.0.0.2", 11211, 1)],
    "two, other ports": [("10.0.0.1", 11311, 1), ("10.0.0.1", 11312, 1)],
    "two, weighted": [("10.0.0.1", 11211, 1), ("10.0.0.2", 11211, 2)],
    "two, one of them without a point": [("10.0.0.1", 11211, 1), ("10.0.0.2", 11211, 1000)],
    "three (a third is not a float)": [(f"10.0.0.{i}", 11211, 1) for i in range(3)],
    "five": [(f"10.0.0.{i}", 11211, 1) for i in range(1, 6)],
    "five, weighted": [(f"cache-{i}.example", 11210 + i, w) for i, w in enumerate([1, 2, 3, 5, 10])],
    "seven, equal weights of nine": [(f"10.1.0.{i}", 22122, 9) for i in range(7)],
    "twenty": [(f"10.0.{i}.1", 11211, 1) for i in range(20)],
    "twenty, weighted": [(f"10.0.{i}.1", 11211 + i % 3, 1 + i * i) for i in range(20)],
    "names, v6, unix": [("localhost", 11211, 1), ("::1", 11311, 2), ("2001:db8::1", 11211, 1), ("/run/memcached.sock", 0, 3)],
    # libmemcached takes no more than a hundred: an assertion of its own ends the process
    "hundred": [(f"10.0.{i}.1", 11211, 1) for i in range(100)],
    "hundred, weighted": [(f"10.0.{i}.1", 11311, 1 + i % 5) for i in range(100)],
    **{f"random {i}": random_pool(i, count) for i, count in enumerate([2, 3, 4, 5, 6, 9, 11, 13, 17, 23, 41, 64, 97])},
}


@pytest.mark.parametrize("name", POOLS)
def test_same_node_as_libmemcached(pick, name):
    nodes = POOLS[name]
    keys = make_keys(name)
    reference = Libmemcached(nodes)
    try:
        expected = reference.pick(keys)
    finally:
        reference.close()
    assert pick(nodes, keys) == expected


def wait_for(host, port, process):
    for _ in range(200):
        assert process.poll() is None, "memcached ended"
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(f"{host}:{port}")


@pytest.fixture
def servers():
    """A function: weights to nodes with a memcached behind each; every second one has the default port, on an address of its own."""
    program = shutil.which("memcached")
    if program is None:
        pytest.skip("no memcached")
    started = []

    def start(weights):
        net = random.randrange(1, 250)
        nodes = [(f"127.{net}.0.{i + 1}", 11211 if i % 2 == 0 else 21300 + i, weight) for i, weight in enumerate(weights)]
        user = ["-u", "root"] if os.geteuid() == 0 else []
        for host, port, _ in nodes:
            process = subprocess.Popen([program, *user, "-l", host, "-p", str(port), "-U", "0", "-m", "64", "-t", "1"])
            started.append(process)
            wait_for(host, port, process)
        return nodes

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(10)


@pytest.mark.parametrize("weights", [[1], [1, 1], [1, 2], [1] * 5, [5, 1, 2, 1, 10], [1] * 20], ids=str)
def test_where_pylibmc_stores(pick, servers, weights):
    pylibmc = pytest.importorskip("pylibmc")
    nodes = servers(weights)
    keys = make_keys(str(weights))
    client = pylibmc.Client([f"{host}:{port}:{weight}" for host, port, weight in nodes], behaviors={"ketama_weighted": True})
    assert client.set_multi({key: "x" for key in keys}) == []
    found = {}
    for index, (host, port, _) in enumerate(nodes):
        node = pylibmc.Client([f"{host}:{port}"])
        for start in range(0, len(keys), 500):
            found.update({key: index for key in node.get_multi(keys[start : start + 500])})
    assert pick(nodes, keys) == [found.get(key) for key in keys]
