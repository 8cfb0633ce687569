"""The database, and nodes of the pool, frozen, killed and back: what still works goes on, what does not says so soon, and all heals by itself."""

import pytest

from support import Growth, Wire, sees, until
from through import NAMESPACES, Asking, through_region

#: Nobody waits long for anything here.
HASTY = {"database": {"timeout": "2s", "connect_timeout": "1s", "threads": 2}, "pool": {"timeout": "1s", "retry_max": "500ms"},
         "namespaces": [{**n, "lease_wait": "300ms"} for n in NAMESPACES]}


@pytest.fixture(scope="module")
def west(watch, directory):
    with through_region(directory, config=HASTY) as through:
        yield through


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


@pytest.fixture
def growth(west):
    return Growth(*west.outriggers)


@pytest.fixture
def healed(west):
    """When the test is over everything runs, and both sidecars find that out by themselves."""
    yield
    for server in (west.primary, *west.nodes):
        if not server.process.is_running:
            server.start()
        server.process.resume()
    for sidecar in west.outriggers:
        sidecar.wait("ready")


def error(wire, request: bytes) -> str:
    answer = wire.ask(request)
    assert answer.startswith(b"SERVER_ERROR ") and answer.endswith(b"\r\n"), answer
    return answer.decode()


def loads_again(west, sidecar):
    """Waits until misses are loaded again."""
    until(lambda: sees(sidecar.port, "version:" + west.fresh()) == b"old", "a miss being loaded again")


# ---- MySQL

def test_database_frozen(west, wire, growth, healed):
    """SIGSTOP: hits and plain keys go on; a miss is SERVER_ERROR after database.timeout, and does not take others' threads for ever."""
    assert wire.get("version:p1") == b"v1"
    west.primary.process.pause()
    assert wire.get("version:p1") == b"v1"
    assert wire.set("plain", b"1") == b"STORED\r\n" and wire.get("plain") == b"1"
    assert "database: timed out" in error(wire, b"get version:p2\r\n")
    misses = [Asking(sidecar, f"version:p{10 + i}") for i in range(20) for sidecar in west.outriggers]
    for miss in misses:
        with pytest.raises(RuntimeError, match="SERVER_ERROR database: "):
            miss.answer()
    assert wire.delete("version:p1") == b"DELETED\r\n"  # what was cached can be taken away even now
    assert wire.get("plain") == b"1"
    assert growth.of("outrigger_loads_total", result="failed") >= 2
    assert growth.of("outrigger_errors_total", source="database", error="timeout") >= 1
    west.primary.process.resume()
    for sidecar in west.outriggers:
        loads_again(west, sidecar)
    assert wire.get("version:p1") == b"v1" and wire.get("version:p2") == b"v2"


def test_database_killed(west, wire, growth, healed):
    """Misses fail at once, /readyz says why, and the leases of failed loads are not waited for."""
    assert wire.get("version:p3") == b"v3"
    sidecar = west.outriggers[0]
    west.primary.kill()
    until(lambda: sidecar.http("GET", "/readyz")[0] == 503, "/readyz")
    assert "database: " in sidecar.http("GET", "/readyz")[1]
    assert wire.get("version:p3") == b"v3"
    for i in range(100, 200):
        assert "database: not connected" in error(wire, b"get version:p%d\r\n" % i)
    # A multi-get has what there is; only when nothing can be answered is the answer the error.
    assert wire.ask(b"get version:p3 version:p101 plain-absent\r\n", b"END\r\n") == b"VALUE version:p3 0 2\r\nv3\r\nEND\r\n"
    assert "database: " in error(wire, b"get version:p101 version:p102\r\n")
    assert sidecar.metrics().total("outrigger_database_connections") == 0
    west.primary.start()
    loads_again(west, sidecar)
    assert [wire.get(f"version:p{i}") for i in range(100, 200)] == [b"v%d" % i for i in range(100, 200)]
    growth.becomes(lease_timeouts=0)


def test_database_restarted_while_idle(west, wire, healed):
    """Every connection is dead, and nobody has noticed: the next miss is loaded all the same."""
    loads_again(west, west.outriggers[0])
    west.primary.restart()
    until(lambda: wire.get("version:" + west.fresh()) == b"old", "a miss being loaded")


def test_database_is_killed_during_loads(west, wire, healed):
    with west.frozen() as freeze:
        keys = [f"version:p{300 + i}" for i in range(4)]
        readers = [Asking(west.outriggers[0], key) for key in keys]
        freeze.holds()
        west.primary.kill()
    for reader in readers:
        with pytest.raises(RuntimeError, match="SERVER_ERROR database: "):
            reader.answer()
    west.primary.start()
    loads_again(west, west.outriggers[0])
    assert [wire.get(key) for key in keys] == [b"v300", b"v301", b"v302", b"v303"]


# ---- nodes

@pytest.fixture
def split(west, wire):
    """Cached keys of two nodes: (node, other, keys of node, keys of other, plain keys of node, plain keys of other)."""
    keys = [f"version:p{i}" for i in range(600, 640)]
    plain = [f"plain{i}" for i in range(40)]
    for key in keys:
        assert wire.get(key) == b"v" + key[9:].encode()
    for key in plain:
        assert wire.set(key, key.encode()) == b"STORED\r\n"
    node, other = west.nodes
    until(lambda: [wire.get(k) for k in keys] and all(west.is_cached(k) for k in keys), "all cached")
    on_node = [k for k in keys if sees(node.port, k)]
    plain_on_node = [k for k in plain if sees(node.port, k)]
    assert 0 < len(on_node) < len(keys) and 0 < len(plain_on_node) < len(plain)
    return node, other, on_node, [k for k in keys if k not in on_node], plain_on_node, [k for k in plain if k not in plain_on_node]


def check_without_node(west, wire, split):
    """What must be true while a node is away, however it went."""
    node, _, lost, kept, plain_lost, plain_kept = split
    growth = Growth(west.outriggers[0])
    for key in kept:
        assert wire.get(key) == b"v" + key[9:].encode()
    assert growth.of("outrigger_loads_total") == 0
    for key in plain_kept:
        assert wire.get(key) == key.encode()
    for key in lost[:5]:
        assert wire.get(key) == b"v" + key[9:].encode()  # from the database
    assert growth.of("outrigger_loads_total", result="found") == len(lost[:5])
    name = f"node 127.0.0.1:{node.port}: "
    key = plain_lost[0].encode()
    for request in (b"get %s\r\n", b"gat 0 %s\r\n", b"set %s 0 0 1\r\nx\r\n", b"incr %s 1\r\n", b"touch %s 0\r\n", b"delete %s\r\n"):
        assert name in error(wire, request % key)
    for request in (b"delete %s\r\n", b"set %s 0 0 1\r\nx\r\n", b"touch %s 0\r\n"):
        assert name in error(wire, request % lost[0].encode())  # nobody may believe that it has been invalidated
    assert name in error(wire, b"flush_all 100\r\n")
    found = wire.ask(b"get " + " ".join(plain_lost + plain_kept).encode() + b"\r\n", b"END\r\n")
    assert found.count(b"VALUE ") == len(plain_kept)
    status, text = west.outriggers[0].http("GET", "/readyz")
    assert status == 503 and name in text


def check_back(west, wire, split):
    node, _, lost, kept, plain_lost, _ = split
    until(lambda: wire.set(plain_lost[0], b"back") == b"STORED\r\n", "the node being used again")
    assert sees(node.port, plain_lost[0]) == b"back"
    for key in lost + kept:
        assert wire.get(key) == b"v" + key[9:].encode()
    until(lambda: all(sees(node.port, key) for key in lost), "its keys being cached again")


def test_node_killed(west, wire, split, healed):
    node = split[0]
    node.kill()
    until(lambda: west.outriggers[0].http("GET", "/readyz")[0] == 503, "/readyz")
    check_without_node(west, wire, split)
    node.start()
    check_back(west, wire, split)


def test_node_frozen(west, wire, split, healed):
    """It accepts connections and never answers: requests to it end with pool.timeout, and it is not tried for every request."""
    node, _, lost, _, plain_lost, _ = split
    node.process.pause()
    assert "timed out" in error(wire, b"get %s\r\n" % plain_lost[0].encode())
    until(lambda: west.outriggers[0].http("GET", "/readyz")[0] == 503, "/readyz")
    check_without_node(west, wire, split)
    node.process.resume()
    check_back(west, wire, split)


def test_node_frozen_for_a_moment(west, wire, split, healed):
    """Requests that have timed out are answered late; nobody gets a reply that was for somebody else."""
    node, _, _, _, plain, _ = split
    for _ in range(5):
        node.process.pause()
        clients = [Wire(west.port) for _ in range(8)]
        for client, key in zip(clients, plain):
            client.send(b"get %s\r\n" % key.encode())
        clients[0].line()  # an error: the time is over
        node.process.resume()
        for client, key in list(zip(clients, plain))[1:]:
            head = client.line()
            assert head.startswith((b"SERVER_ERROR", b"VALUE %s 0 %d" % (key.encode(), len(key)))), head
        for client in clients:
            client.close()
        until(lambda: [wire.get(k) for k in plain[:8]] == [k.encode() for k in plain[:8]], "every key having its own value again")


def test_node_restarted_empty(west, wire, split, healed):
    node, _, lost, _, plain_lost, _ = split
    node.restart()

    def answers() -> bool:
        return wire.get(plain_lost[0]) is None  # a miss, no error
    until(answers, "the node being used again")
    check_back(west, wire, split)


def test_node_killed_under_load(west, wire, split, healed):
    """Pipelined requests on a connection whose node dies: every one is answered, in order."""
    node, _, _, _, plain_lost, plain_kept = split
    keys = (plain_lost + plain_kept) * 50
    wire.send(b"".join(b"get %s\r\n" % k.encode() for k in keys[: len(keys) // 2]))
    node.kill()
    wire.send(b"".join(b"get %s\r\n" % k.encode() for k in keys[len(keys) // 2:]))
    for key in keys:
        head = wire.line()
        if head.startswith(b"VALUE "):
            assert head.split()[1] == key.encode()
            assert wire.until(b"END\r\n") == key.encode() + b"\r\nEND\r\n"
        else:
            assert key in plain_lost and head.startswith(b"SERVER_ERROR node "), head


def test_everything_gone(west, wire, healed):
    """Pool and database: errors, and still an endpoint that answers."""
    for server in (west.primary, *west.nodes):
        server.kill()
    for request in (b"get version:p1\r\n", b"get plain\r\n", b"set plain 0 0 1\r\nx\r\n", b"delete version:p1\r\n", b"flush_all\r\n"):
        error(wire, request)
    assert wire.ask(b"version\r\n").startswith(b"VERSION ")
    status, text = west.outriggers[0].http("GET", "/readyz")
    assert status == 503
    assert west.outriggers[0].http("GET", "/healthz")[0] == 200
