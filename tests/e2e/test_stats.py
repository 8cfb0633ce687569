"""stats: what memcached's clients and monitors ask for, and what only a sidecar can tell."""

import random
import re
import threading

import pytest

from local.memcached import Memcached
from support import Growth, Outrigger, Wire, until

MIB = 1 << 20


@pytest.fixture(scope="module")
def nodes(watch, directory):
    nodes = [Memcached(directory, name=f"node-{i}").start() for i in range(2)]
    yield nodes
    for node in nodes:
        node.close()


@pytest.fixture(scope="module")
def sidecar(nodes, directory):
    outrigger = Outrigger(directory, {"region": "west", "threads": 2, "pool": {"nodes": [nodes[0].address, {"address": nodes[1].address, "weight": 2}]},
                                      "namespaces": [{"prefix": ""}, {"prefix": "user:"}]})
    try:
        yield outrigger.start()
    finally:
        outrigger.close()


@pytest.fixture
def wire(sidecar):
    with Wire(sidecar.port) as wire:
        yield wire


def ask(wire, what="", unique=True):
    text = wire.ask(b"stats %s\r\n" % what.encode(), b"END\r\n").decode()
    lines = text.splitlines()
    assert lines.pop() == "END"
    pairs = [re.fullmatch(r"STAT (\S+) (.*)", line).groups() for line in lines]
    assert len(dict(pairs)) == len(pairs) or not unique, "a name twice"
    return dict(pairs)


class Since:
    """How much numbers have grown."""

    def __init__(self, wire, what=""):
        self.wire, self.what, self.before = wire, what, ask(wire, what)

    def of(self, name):
        return int(ask(self.wire, self.what)[name]) - int(self.before[name])


# ---- stats

def test_every_command_is_counted_as_memcached_does(nodes, sidecar, wire):
    """The same commands to a memcached of its own: the same counters grow by as much."""
    names = ["cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "get_hits", "get_misses", "delete_misses", "delete_hits", "incr_misses", "incr_hits",
             "decr_misses", "decr_hits", "cas_misses", "cas_hits", "cas_badval", "touch_hits", "touch_misses", "store_too_large", "auth_cmds",
             "auth_errors"]
    reference = Memcached(sidecar.directory, name="counted").start()
    try:
        with Wire(reference.port) as other:
            grown = []
            for client in (other, wire):
                client.ask(b"flush_all\r\n")
                since = Since(client)
                for line in (b"get no\r\n", b"set n 0 0 1\r\n5\r\n", b"set m 0 0 1\r\nx\r\n", b"incr n 1\r\n", b"incr n 1\r\n", b"decr n 1\r\n",
                             b"incr no 1\r\n", b"decr no 1\r\n", b"delete no\r\n", b"delete m\r\n", b"touch n 0\r\n", b"touch no 0\r\n", b"gat 0 no\r\n",
                             b"cas no 0 0 1 1\r\n1\r\n", b"cas n 0 0 1 1\r\n1\r\n", b"add n 0 0 1\r\n1\r\n", b"append n 0 0 1\r\n1\r\n",
                             b"prepend no 0 0 1\r\n1\r\n", b"replace no 0 0 1\r\n1\r\n", b"flush_all\r\n"):
                    client.ask(line)
                client.set("n", b"1")
                _, _, cas = client.gets("n")
                assert client.ask(b"cas n 0 0 1 %d\r\n2\r\n" % cas) == b"STORED\r\n"
                assert client.ask(b"gat 0 n\r\n", b"END\r\n").startswith(b"VALUE")
                assert client.ask(b"get n no n\r\n", b"END\r\n").count(b"VALUE") == 2
                client.send(b"set n 0 0 1 noreply\r\n7\r\ndelete n noreply\r\n")
                assert client.set("big", b"x" * (MIB + 1)).startswith(b"SERVER_ERROR")
                grown.append({name: since.of(name) for name in names})
        # memcached does not count a value that it refuses as too large as a set.
        assert grown[1].pop("cmd_set") >= grown[0].pop("cmd_set") > 0
        for name, gats in {"cmd_get": 2, "get_hits": 1, "get_misses": 1}.items():  # to us a gat is a get as well as a touch
            assert grown[1].pop(name) - gats == grown[0].pop(name)
        assert grown[1] == grown[0]
    finally:
        reference.close()


def test_names_that_monitors_look_for(sidecar, wire):
    stats = ask(wire)
    assert {"pid", "uptime", "time", "version", "pointer_size", "rusage_user", "rusage_system", "max_connections", "curr_connections", "total_connections",
            "rejected_connections", "bytes_read", "bytes_written", "accepting_conns", "threads", "cmd_meta"} <= set(stats)
    assert stats["threads"] == "2" and stats["region"] == "west" and int(stats["pid"]) == sidecar.process.pid
    assert int(stats["curr_connections"]) >= 1


def test_settings(sidecar, wire):
    settings = ask(wire, "settings")
    assert settings["num_threads"] == "2" and settings["item_size_max"] == str(MIB) and settings["auth_enabled_sasl"] == "no"
    assert settings["maxconns"] == "20000" and settings["idle_timeout"] == "0"
    assert settings["tcpport"] == str(sidecar.port) and settings["inter"] == sidecar.address
    assert settings["domain_socket"] == str(sidecar.socket) and settings["ssl_enabled"] == "no"


@pytest.mark.parametrize("what", ["items", "slabs", "sizes"])
def test_what_a_sidecar_does_not_hold(wire, what):
    assert ask(wire, what) == {}


@pytest.mark.parametrize("line, answer", [(b"stats detail on", b"OK"), (b"stats detail off", b"OK"), (b"stats foo", b"ERROR"),
                                          (b"stats detail", b"CLIENT_ERROR usage: stats detail on|off|dump"),
                                          (b"stats detail more", b"CLIENT_ERROR usage: stats detail on|off|dump"),
                                          (b"stats detail on now", b"OK"), (b"stats reset", b"RESET"), (b"stats conn", b"ERROR")])
def test_lines_of_their_own(nodes, wire, line, answer):
    with Wire(nodes[0].port) as memcached:
        assert memcached.ask(line + b"\r\n") == answer + b"\r\n"
    assert wire.ask(line + b"\r\n") == answer + b"\r\n"
    assert wire.get("nothing") is None


def test_detail_by_namespace(wire):
    def dump():
        lines = wire.ask(b"stats detail dump\r\n", b"END\r\n").decode().splitlines()[:-1]
        parts = [re.fullmatch(r"PREFIX (\S+) get (\d+) hit (\d+) set (\d+) del (\d+)", line).groups() for line in lines]
        return {name: tuple(map(int, numbers)) for name, *numbers in parts}
    before = dump()
    wire.set("user:1", b"x")
    wire.get("user:1")
    wire.get("user:2")
    wire.delete("user:2")
    after = dump()
    assert [a - b for a, b in zip(after["user"], before["user"])] == [2, 1, 1, 1]
    assert after["default"] == before["default"]


def test_reset(sidecar, wire):
    """What stats shows begins at zero; what Prometheus sees goes on; what is a state stays."""
    growth = Growth(sidecar)
    wire.set("r", b"1")
    wire.get("r")
    assert int(ask(wire)["get_hits"]) > 0
    total = sidecar.metrics().total("outrigger_hits_total")
    assert wire.ask(b"stats reset\r\n") == b"RESET\r\n"
    with Wire(sidecar.socket) as other:  # for every worker
        for client in (wire, other):
            stats = ask(client)
            assert stats["get_hits"] == "0" and stats["cmd_set"] == "0" and int(stats["curr_connections"]) >= 1 and int(stats["uptime"]) >= 0
            assert ask(client, "outrigger")["namespace:default:hits"] == "0"
            assert int(ask(client, "pool")["node:0:requests"]) == 0
        wire.get("r")
        assert ask(other)["get_hits"] == "1"
    assert sidecar.metrics().total("outrigger_hits_total") == total + 1
    assert growth.of("outrigger_hits_total") == 2


def test_replies_metric(sidecar, wire):
    growth = Growth(sidecar)
    wire.get("no")
    wire.set("rep", b"x")
    wire.get("rep")
    wire.ask(b"add rep 0 0 1\r\n1\r\n")
    wire.ask(b"incr rep 1\r\n")
    wire.delete("rep")
    wire.delete("rep")
    for command, result in (("get", "miss"), ("get", "hit"), ("set", "stored"), ("add", "not_stored"), ("incr", "refused"), ("delete", "deleted"),
                            ("delete", "not_found")):
        growth.reaches(1, "outrigger_replies_total", command=command, result=result)


# ---- stats outrigger, pool

def test_outrigger(wire):
    since = Since(wire, "outrigger")
    wire.set("user:9", b"x")
    wire.get("user:9")
    wire.get("user:10")
    assert since.of("namespace:user:requests") == 3 and since.of("namespace:user:hits") == 1 and since.of("namespace:user:misses") == 1
    assert since.of("namespace:default:hits") == 0
    assert since.before["region"] == "west" and "bus:published" not in since.before and "database:queue" not in since.before


def test_pool(nodes, wire):
    since = Since(wire, "pool")
    for i in range(200):
        wire.get(f"spread{i}")
    pool = ask(wire, "pool")
    assert pool["nodes"] == "2"
    for i, node in enumerate(nodes):
        assert pool[f"node:{i}:address"] == node.address and pool[f"node:{i}:weight"] == str(i + 1)
        assert pool[f"node:{i}:state"] == "up" and pool[f"node:{i}:version"].startswith("1.6.")
        assert pool[f"node:{i}:connections"] == pool[f"node:{i}:connections_wanted"] == "2"
        assert since.of(f"node:{i}:requests") > 20
    assert since.of("node:0:requests") + since.of("node:1:requests") == 200


def test_pool_with_a_dead_node(start, directory):
    node = Memcached(directory, name="mortal").start()
    sidecar = start({"pool": {"nodes": [node.address]}})
    try:
        with Wire(sidecar.port) as wire:
            assert ask(wire, "pool")["node:0:state"] == "up"
            node.kill()
            until(lambda: ask(wire, "pool")["node:0:state"] == "down", "the node being down")
            assert wire.ask(b"get k\r\n").startswith(b"SERVER_ERROR")
            pool = ask(wire, "pool")
            assert int(pool["node:0:errors"]) >= 1 and pool["node:0:connections"] == "0" and pool["node:0:version"].startswith("1.6.")
    finally:
        node.close()


# ---- stats conns

def conns(wire):
    """Of each connection, its lines. A number may be there twice: of a client that went, and of the one that came before the next worker was asked."""
    found = {}
    for name, value in ask(wire, "conns", unique=False).items():
        number, _, what = name.partition(":")
        if what:
            found.setdefault(int(number), {})[what] = value
    return found


def test_conns(sidecar, wire):
    """Every client of every worker, on both listeners."""
    others = [Wire(sidecar.port) for _ in range(20)] + [Wire(sidecar.socket) for _ in range(3)]
    try:
        for other in others:
            assert other.get("nothing") is None
        others[0].send(b"set half 0 0 10\r\n123")
        ports = {f"tcp:127.0.0.1:{w.socket.getsockname()[1]}" for w in others[:20] + [wire]}
        until(lambda: ports <= {c["addr"] for c in conns(wire).values()}, "all of them")
        found = conns(wire)
        assert len(found) >= 24 and {c["worker"] for c in found.values()} == {"0", "1"}
        by_address = {c["addr"]: c for c in found.values()}
        mine = by_address[f"tcp:127.0.0.1:{wire.socket.getsockname()[1]}"]
        assert mine["listen_addr"] == f"tcp:{sidecar.address}" and mine["protocol"] == "ascii" and mine["state"] == "conn_io_queue"
        assert int(mine["secs_since_last_cmd"]) < 20
        assert sum(c["listen_addr"] == f"unix:{sidecar.socket}" for c in found.values()) == 3
        half = f"tcp:127.0.0.1:{others[0].socket.getsockname()[1]}"
        until(lambda: {c["addr"]: c for c in conns(wire).values()}[half]["state"] == "conn_nread", "the half value")
        assert by_address[f"tcp:127.0.0.1:{others[1].socket.getsockname()[1]}"]["state"] == "conn_read"
    finally:
        for other in others:
            other.close()


def test_conns_in_a_pipeline(wire):
    """It takes its turn: nothing overtakes it."""
    wire.send(b"set turn 0 0 1\r\n1\r\nstats conns\r\nget turn\r\nstats conns\r\ndelete turn\r\n")
    assert wire.line() == b"STORED\r\n"
    assert b":addr tcp:127.0.0.1:" in wire.until(b"END\r\n")
    assert wire.until(b"END\r\n") == b"VALUE turn 0 1\r\n1\r\nEND\r\n"
    assert b":addr tcp:127.0.0.1:" in wire.until(b"END\r\n")
    assert wire.line() == b"DELETED\r\n"


def test_conns_is_bounded(start, nodes):
    """What does not fit is counted, not sent."""
    sidecar = start({"pool": {"nodes": [nodes[0].address]}, "max_client_buffer": "64KiB", "max_value_size": "32KiB"})
    others = [Wire(sidecar.port) for _ in range(200)]
    try:
        with Wire(sidecar.port) as wire:
            until(lambda: int(ask(wire)["curr_connections"]) == 201, "all of them")
            text = wire.ask(b"stats conns\r\n", b"END\r\n")
            left_out = int(re.search(rb"STAT left_out (\d+)\r\n", text).group(1))
            assert len(text) < 16384 + 100 and left_out + text.count(b":addr ") == 201 and left_out > 0
            assert wire.get("nothing") is None
    finally:
        for other in others:
            other.close()


def test_conns_while_clients_come_and_go(sidecar):
    """Those who ask may be gone before the answer is, on any worker."""
    over = threading.Event()
    problems = []

    def hurry(seed):
        chance = random.Random(seed)
        while not over.is_set():
            try:
                with Wire(sidecar.port) as client:
                    client.send(b"stats conns\r\n" * 5)
                    if chance.random() < 0.5:
                        client.until(b"END\r\n")
                    if chance.random() < 0.5:
                        client.reset()
            except OSError as e:
                problems.append(e)
    threads = [threading.Thread(target=hurry, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    with Wire(sidecar.port) as wire:
        for _ in range(200):
            assert conns(wire)
    over.set()
    for thread in threads:
        thread.join(30)
    assert not problems
    until(lambda: sidecar.metrics().total("outrigger_client_connections") <= 1, "the connections being gone")


def test_ending_with_visits_under_way(start, nodes):
    for _ in range(3):
        sidecar = start({"pool": {"nodes": [nodes[0].address]}, "threads": 4})
        wires = [Wire(sidecar.port) for _ in range(8)]
        for wire in wires:
            wire.send(b"stats conns\r\n" * 200)
        assert sidecar.stop() == 0
        for wire in wires:
            wire.close()
