"""Starting and ending: with everything else down, with bad options and configurations, and by SIGTERM."""

import contextlib
import re
import signal
import socket
import stat
import subprocess

import pytest

from local import ports
from local.mariadb import MariaDB
from local.memcached import Memcached
from local.process import can_connect
from local.region import Region
from local.yaml_text import dump
from support import Outrigger, Wire, connected, log_of, sees, serves, until
from through import NAMESPACES, SCHEMA, prepare


@pytest.fixture(scope="module")
def node(directory):
    node = Memcached(directory).start()
    yield node
    node.close()


def run(binary, *arguments, status, env=None):
    done = subprocess.run([binary, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=30, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done.stdout, done.stderr


# ---- options

def test_help(binary):
    out, err = run(binary, "--help", status=0)
    assert "--config FILE" in out and "--pool HOST:PORT" in out and "--check" in out and err == ""
    for option in ("max_value_size", "lease_wait", "publish_timeout"):
        assert option in out
    assert run(binary, "-h", status=0)[0] == out


def test_version(binary):
    assert re.fullmatch(r"outrigger \d+\.\d+\.\d+\n", run(binary, "--version", status=0)[0])


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--config"], [], ["--check"], ["--config", "a", "--pool", "b"], ["--pool", "h:1", "rest"],
                                       ["--config", "a", "--listen", "h:1"], ["-x"]], ids=str)
def test_bad_command_line(binary, arguments):
    out, err = run(binary, *arguments, status=2)
    assert out == "" and "--help" in err or "--listen" in err


# ---- configurations

def test_check_of_a_good_file(binary, tmp_path, node):
    file = tmp_path / "good.yaml"
    file.write_text(dump({"region": "east", "pool": {"nodes": [node.address]}}))
    out, err = run(binary, "--config", file, "--check", status=0)
    assert "good" in out and "region east" in out and "1 nodes" in out and err == ""


def test_check_of_a_broken_file(binary, tmp_path):
    """Every problem with its file and line and what was expected there, not only the first."""
    file = tmp_path / "broken.yaml"
    file.write_text("region: we st\n"
                    "threads: many\n"
                    "colour: blue\n"
                    "pool:\n"
                    "  nodes: [127.0.0.1:99999]\n"
                    "  timeout: 500\n"
                    "namespaces:\n"
                    "  - prefix: \"a:\"\n"
                    "    read: sideways\n"
                    "  - prefix: \"b:\"\n"
                    "    read: through\n")
    out, err = run(binary, "--config", file, "--check", status=2)
    for line, words in ((1, "region"), (2, "threads"), (3, "colour"), (5, "99999"), (6, "timeout"), (9, "through"), (10, "source")):
        assert re.search(rf"^{re.escape(str(file))}:{line}: .*{words}", err, re.M) or \
            (line == 10 and re.search(rf"^{re.escape(str(file))}:1[01]: .*{words}", err, re.M)), (line, words, err)
    assert "colour" in err and out == ""
    # The same without --check: it does not start.
    assert run(binary, "--config", file, status=2)[1].splitlines()[:3] == err.splitlines()[:3]


@pytest.mark.parametrize("text", ["", "pool: [", "\t", "pool: {nodes: []}", "pool:\n  nodes: [a:1]\npool:\n  nodes: [b:1]\n", "- a\n", "\0\1\2", "&a [*a]"], ids=repr)
def test_check_of_a_file_that_is_none(binary, tmp_path, text):
    file = tmp_path / "file.yaml"
    file.write_text(text)
    assert str(file) in run(binary, "--config", file, "--check", status=2)[1]


def test_check_of_a_file_that_is_not_there(binary, tmp_path):
    assert "missing.yaml" in run(binary, "--config", tmp_path / "missing.yaml", "--check", status=2)[1]


def test_check_does_not_tell_secrets(binary, tmp_path):
    file = tmp_path / "secret.yaml"
    file.write_text("pool: {nodes: [127.0.0.1:1]}\ndatabase: {primary: 127.0.0.1:1, schema: s, user: u, password: hunter2, threads: hunter}\n")
    out, err = run(binary, "--config", file, "--check", status=2)
    assert "hunter2" not in out + err and "threads" in err


# ---- ports and sockets

def test_port_in_use(binary, tmp_path, node):
    """Named in the message, and no second sidecar gets on the port of a first by SO_REUSEPORT."""
    out, err = run(binary, "--pool", node.address, "--listen", node.address, status=1)
    assert node.address in err and "in use" in err


def test_port_of_another_sidecar(binary, start, node):
    first = start({"pool": {"nodes": [node.address]}})
    out, err = run(binary, "--pool", node.address, "--listen", first.address, status=1)
    assert first.address in err and "in use" in err
    assert serves(first.port)


def test_admin_port_in_use(binary, tmp_path, node):
    file = tmp_path / "admin.yaml"
    file.write_text(dump({"pool": {"nodes": [node.address]}, "listen": [f"127.0.0.1:{ports.pick()}"], "admin": {"listen": node.address}}))
    assert node.address in run(binary, "--config", file, status=1)[1]


def test_unix_socket(start, node):
    sidecar = start({"pool": {"nodes": [node.address]}, "unix_mode": "0600"})
    assert stat.S_IMODE(sidecar.socket.stat().st_mode) == 0o600
    assert serves(sidecar.socket)
    sidecar.stop()
    assert not sidecar.socket.exists()


def test_stale_unix_socket(start, node):
    """What a killed sidecar has left behind is no hindrance; a socket that somebody serves is."""
    sidecar = start({"pool": {"nodes": [node.address]}})
    sidecar.kill()
    assert sidecar.socket.exists()
    sidecar.start()
    assert serves(sidecar.socket)


def test_unix_socket_in_use(start, binary, node):
    sidecar = start({"pool": {"nodes": [node.address]}})
    _, err = run(binary, "--pool", node.address, "--listen", f"unix:{sidecar.socket}", status=1)
    assert str(sidecar.socket) in err
    assert serves(sidecar.socket)


def test_a_file_where_the_socket_should_be(binary, tmp_path, node):
    file = tmp_path / "precious"
    file.write_text("keep me")
    run(binary, "--pool", node.address, "--listen", f"unix:{file}", status=1)
    assert file.read_text() == "keep me"


# ---- things that are down at the start

def check_not_ready(sidecar: Outrigger, component: str, name: str):
    status, text = sidecar.http("GET", "/readyz")
    assert status == 503
    assert re.search(rf"^{component}: .*{re.escape(name)}", text, re.M), text
    assert sidecar.http("GET", "/healthz") == (200, "ok\n")


def test_nodes_down(start, directory):
    """It starts, says so, and uses each node from when it is there."""
    nodes = [Memcached(directory, name=f"late-{i}") for i in range(2)]
    sidecar = start({"pool": {"nodes": [n.address for n in nodes], "retry_max": "200ms"}}, until="listening")
    check_not_ready(sidecar, "pool", nodes[0].address)
    check_not_ready(sidecar, "pool", nodes[1].address)
    metrics = sidecar.metrics()
    assert metrics.total("outrigger_node_connections") == 0
    with Wire(sidecar.port) as wire:
        assert wire.ask(b"get k\r\n").startswith(b"SERVER_ERROR node 127.0.0.1:")
        assert wire.ask(b"version\r\n").startswith(b"VERSION ")
    for n in nodes:
        assert n.address in log_of(sidecar)
    assert sidecar.metrics().total("outrigger_node_errors_total", error="unavailable") >= 1
    try:
        nodes[0].start()
        until(lambda: sidecar.metrics().total("outrigger_node_connections", node=nodes[0].address) == 2, "the first node")
        check_not_ready(sidecar, "pool", nodes[1].address)
        nodes[1].start()
        sidecar.wait("ready")
        assert all(serves(sidecar.port, f"key{i}") for i in range(20))
    finally:
        for n in nodes:
            n.close()


def test_node_that_never_answers_at_start(start, directory, node):
    """Clients are not kept waiting for it for longer than connect_timeout."""
    with socket.socket() as dead:  # accepts, says nothing
        dead.bind(("127.0.0.1", ports.pick()))
        dead.listen(16)
        address = "127.0.0.1:%d" % dead.getsockname()[1]
        sidecar = start({"pool": {"nodes": [node.address, address], "connect_timeout": "200ms"}}, until="listening")
        check_not_ready(sidecar, "pool", address)
        connected(node, sidecar)
        with Wire(sidecar.port) as wire:
            answers = {wire.ask(b"set k%d 0 0 1\r\nx\r\n" % i).split(b" ")[0] for i in range(50)}
        assert answers == {b"STORED\r\n", b"SERVER_ERROR"}


def test_node_with_a_name_that_does_not_resolve(start, node):
    sidecar = start({"pool": {"nodes": [node.address, "no-such-host.invalid:11211"]}}, until="listening")
    check_not_ready(sidecar, "pool", "no-such-host.invalid")


def test_database_down(start, directory, node):
    primary = MariaDB(directory / "late-database")
    password = "correct horse"
    sidecar = start({"pool": {"nodes": [node.address]}, "namespaces": NAMESPACES,
                     "database": {"primary": primary.address, "schema": SCHEMA, "user": "outrigger", "password": password,
                                  "timeout": "2s"}}, until="listening")
    try:
        check_not_ready(sidecar, "database", primary.address)
        assert serves(sidecar.port)
        with Wire(sidecar.port) as wire:
            assert wire.ask(b"get version:p1\r\n").startswith(b"SERVER_ERROR database: not connected")
        until(lambda: primary.address in log_of(sidecar), "the log")
        metrics = sidecar.metrics()
        assert metrics.total("outrigger_database_connections") == 0
        assert metrics.total("outrigger_errors_total", source="database", error="unavailable") >= 1
        assert metrics.total("outrigger_loads_total", result="failed") == 1
        primary.start()
        primary.create_schema(SCHEMA, "outrigger", password)
        prepare(primary)
        sidecar.wait("ready")
        assert sees(sidecar.port, "version:p1") == b"v1"
    finally:
        sidecar.close()
        primary.close()


def test_wrong_password(start, directory, node):
    """It says so, and not what the password was."""
    with contextlib.closing(MariaDB(directory / "locked").start()) as primary:
        sidecar = start({"pool": {"nodes": [node.address]}, "namespaces": NAMESPACES,
                         "database": {"primary": primary.address, "schema": SCHEMA, "user": "outrigger", "password": "hunter2"}}, until="listening")
        until(lambda: "Access denied" in log_of(sidecar), "the log")
        until(lambda: "Access denied" in sidecar.http("GET", "/readyz")[1], "/readyz")
        assert "hunter2" not in log_of(sidecar)
        primary.create_schema(SCHEMA, "outrigger", "hunter2")
        sidecar.wait("ready")
        sidecar.close()


def test_bus_down(start, directory):
    """Reads and plain writes are served; what the other regions must hear of is refused until the bus is there."""
    region = Region("west", directory / "late-bus", nodes=1)
    node, nats = region.nodes[0].start(), region.nats
    try:
        sidecar = start(region.config(changes={"bus": {"publish_timeout": "3s"}}), until="listening")
        check_not_ready(sidecar, "bus", str(nats.port))
        assert sidecar.metrics().total("outrigger_bus_connected") == 0
        with Wire(sidecar.port) as wire:
            assert wire.set("k", b"1") == b"STORED\r\n" and wire.get("k") == b"1"
            assert wire.delete("k").startswith(b"SERVER_ERROR changed in this region, but the other regions could not be told: bus: ")
            assert wire.get("k") is None
        until(lambda: str(nats.port) in log_of(sidecar), "the log")
        assert sidecar.metrics().total("outrigger_bus_publish_failed_total") == 1
        nats.start()
        sidecar.wait("ready")
        with Wire(sidecar.port) as wire:
            assert wire.set("k", b"1") == b"STORED\r\n" and wire.delete("k") == b"DELETED\r\n"
        assert sidecar.metrics().total("outrigger_bus_connected") == 1
        sidecar.close()
    finally:
        region.close()
        node.close()


# ---- ending

def test_sigterm_answers_what_is_under_way(start, directory):
    """New clients are refused, idle ones are closed, and one that waits for a slow node is answered."""
    slow = Memcached(directory, name="slow").start()
    sidecar = start({"pool": {"nodes": [slow.address], "timeout": "20s"}})
    with Wire(sidecar.port) as wire, Wire(sidecar.port) as idle:
        assert wire.set("k", b"1") == b"STORED\r\n"
        idle.ask(b"version\r\n")
        slow.process.pause()
        wire.send(b"get k\r\nget k\r\nget k\r\n")
        until(lambda: sidecar.metrics().total("outrigger_node_requests_total") >= 4, "the requests at the node")
        sidecar.process.signal(signal.SIGTERM)
        assert idle.rest() == b""
        until(lambda: not can_connect(sidecar.port), "new clients being refused")
        slow.process.resume()
        assert wire.rest() == b"VALUE k 0 1\r\n1\r\nEND\r\n" * 3
    assert sidecar.process.wait() == 0
    assert not sidecar.socket.exists()
    slow.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_with_many_clients(start, node, number):
    sidecar = start({"pool": {"nodes": [node.address]}})
    wires = [Wire(sidecar.port) for _ in range(200)]
    for i, wire in enumerate(wires):
        wire.send([b"get k\r\n", b"set k 0 0 10\r\nhalf", b"get ", b""][i % 4])
    sidecar.process.signal(number)
    for wire in wires:
        wire.rest()
        wire.close()
    assert sidecar.process.wait() == 0


def test_end_while_a_client_does_not_read(start, node):
    """A second signal ends it without waiting any longer."""
    sidecar = start({"pool": {"nodes": [node.address]}})
    with Wire(sidecar.port, receive_buffer=4096) as lazy:
        lazy.set("large", b"l" * 1_000_000)
        lazy.send(b"get large\r\n" * 8)
        until(lambda: sidecar.metrics().total("outrigger_hits_total") >= 4, "the replies")
        sidecar.process.signal(signal.SIGTERM)
        until(lambda: "signal 15" in log_of(sidecar), "the first signal")
        sidecar.process.signal(signal.SIGTERM)
        assert sidecar.process.wait() == 0


def test_sighup_is_survived(start, node):
    sidecar = start({"pool": {"nodes": [node.address]}})
    sidecar.process.signal(signal.SIGHUP)
    assert serves(sidecar.port) and sidecar.process.is_running


def test_ends_before_it_is_ready(start, directory):
    """While nodes are down, and before anything has been asked."""
    node = Memcached(directory, name="never")
    for _ in range(5):
        sidecar = start({"pool": {"nodes": [node.address]}}, until=None)
        until(lambda: "listening on" in log_of(sidecar), "the start")
        sidecar.stop()
