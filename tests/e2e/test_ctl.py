"""outriggerctl against real sidecars: what it prints, and how it ends."""

import http.server
import json
import os
import pty
import re
import subprocess
import threading
from contextlib import contextmanager

import pytest

from local import ports
from local.cluster import Cluster
from local.memcached import Memcached
from support import DEADLINE, Wire, until
from through import NAMESPACES, prepare

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3


@pytest.fixture(scope="module")
def program(binary):
    path = binary.parents[1] / "ctl/outriggerctl"
    if not path.exists():
        pytest.fail(f"{path} is not there: tests/run e2e builds it")
    return path


@pytest.fixture(scope="module")
def cluster(watch, directory):
    with Cluster(directory, regions=("east", "west"), prepare=prepare, config={"namespaces": NAMESPACES, "database": {"timeout": "20s"}}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def west(cluster):
    return cluster["west"].outrigger


@pytest.fixture(scope="module")
def ctl(program, west):
    """A function: the words of a command line to status, stdout and stderr."""
    def call(*words, stdin=b"", address=None, env=None):
        environment = {**os.environ, "OUTRIGGER_ADMIN": address or f"127.0.0.1:{west.admin_port}", **(env or {})}
        done = subprocess.run([program, *words], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, timeout=DEADLINE, check=False)
        for text in (done.stdout, done.stderr):
            assert b"Sanitizer" not in text and b"runtime error" not in text, text.decode(errors="replace")
        return done.returncode, done.stdout, done.stderr.decode()
    return call


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


def test_set_get_del(ctl, wire):
    status, out, _ = ctl("set", "ctl key", "a value", "--ttl", "60", "--flags=3")
    assert status == DONE and out.startswith(b"stored (namespace default, node ")
    assert ctl("get", "ctl key")[:2] == (DONE, b"a value")  # nothing added: it is not a terminal
    status, out, err = ctl("del", "ctl key", "none-such")
    assert status == FAILED and out.startswith(b"deleted ") and "404" in err
    status, out, err = ctl("get", "ctl key")
    assert (status, out) == (FAILED, b"") and "404" in err


def test_values_of_stdin(ctl, wire):
    value = bytes(range(256)) * 1000
    assert ctl("set", "piped", stdin=value)[0] == DONE
    assert wire.get("piped") == value and ctl("get", "piped")[1] == value
    assert ctl("set", "--", "piped", "-", stdin=b"")[0] == DONE
    assert wire.get("piped") == b""
    status, _, err = ctl("set", "piped", stdin=b"x" * (2 << 20))
    assert status == FAILED and "413" in err and "too large" in err


def test_info_and_peek(ctl, wire):
    wire.set("known", b"v", flags=9)
    status, out, _ = ctl("get", "--info", "known")
    lines = dict(line.split(maxsplit=1) for line in out.decode().splitlines())
    assert status == DONE and lines["state"] == "hit" and lines["flags"] == "9" and lines["value"] == "v" and lines["region"] == "west"
    entry = json.loads(ctl("--json", "get", "known")[1])
    assert entry["value"] == "v" and entry["version"] == lines["version"]
    wire.get("version:p1")
    wire.delete("version:p1")
    status, out, err = ctl("get", "version:p1", "--peek")
    assert status == FAILED and re.search(rb"^state +tombstone$", out, re.M) and "no value" in err


def test_terminal_escapes_are_shown(ctl, wire):
    wire.set("evil", b"\x1b[2Jgone")
    assert b"\x1b" not in ctl("get", "--info", "evil")[1]


def test_route(ctl, cluster):
    status, out, _ = ctl("route", "version:a b")
    assert status == DONE and re.search(rb"^namespace.name +version$", out, re.M) and re.search(rb"^node.is_up +yes$", out, re.M)
    route = json.loads(ctl("route", "version:a b", "--json")[1])
    assert route["key"] == "version:a b" and route["node"]["address"] in [n.address for n in cluster["west"].nodes]
    assert ctl("route", "k" * 251)[0] == FAILED


def test_regions_and_config(ctl, west):
    status, out, _ = ctl("regions")
    rows = [line.split() for line in out.decode().splitlines()]
    assert status == DONE and rows[0][:3] == ["region", "is_own", "is_connected"]
    assert [row[:3] for row in rows[1:]] == [["west", "yes", "yes"], ["east", "no", "yes"]]
    assert len(json.loads(ctl("regions", "--json")[1])["regions"]) == 2
    status, out, _ = ctl("config")
    assert status == DONE and json.loads(out)["region"] == "west"


def test_top(ctl, wire):
    status, out, _ = ctl("top", "--once", "--interval", "1")
    text = out.decode()
    assert status == DONE and text.startswith("outrigger ") and "\x1b" not in text
    for title in ("COMMAND", "NODE", "hit rate", "PEER"):
        assert title in text


def test_top_ends_at_q(program, west):
    """On a terminal it draws again and again until q is typed, and leaves the terminal as it was."""
    master, slave = pty.openpty()
    try:
        before = subprocess.run(["stty", "-a"], stdin=slave, stdout=subprocess.PIPE, check=True).stdout
        top = subprocess.Popen([program, "--address", f"http://127.0.0.1:{west.admin_port}", "top", "--interval=1"], stdin=slave, stdout=subprocess.PIPE)
        seen = b""
        while seen.count(b"hit rate") < 2:
            piece = os.read(top.stdout.fileno(), 65536)
            assert piece
            seen += piece
        os.write(master, b"q")
        rest, _ = top.communicate(timeout=DEADLINE)
        assert top.returncode == DONE and seen.startswith(b"\x1b[H\x1b[2J")
        assert subprocess.run(["stty", "-a"], stdin=slave, stdout=subprocess.PIPE, check=True).stdout == before
    finally:
        os.close(master)
        os.close(slave)


def test_usage(ctl):
    status, out, _ = ctl("--help")
    assert status == DONE
    commands = re.findall(rb"^  ([a-z][a-z-]+) ", out, re.M)
    assert {b"get", b"set", b"del", b"route", b"regions", b"stats", b"top", b"config", b"rules", b"invalidate", b"bench-lag"} <= set(commands)
    for command in commands:
        status, out, _ = ctl(command.decode(), "--help")
        assert status == DONE and out.startswith(b"usage: outriggerctl " + command)
    for words in ((), ("nonsense",), ("get",), ("get", "a", "b"), ("get", "--ttl", "5", "a"), ("--nonsense", "get", "a"), ("route", "--wait", "a"),
                  ("top", "--interval", "0"), ("top", "--interval", "5w"), ("--timeout", "2h", "regions"), ("bench-lag", "--count", "0"), ("bench-lag", "x"), ("get", "--wait", "a"), ("--timeout", "x", "regions"), ("invalidate",), ("--address", "h:p:q", "regions"),
                  ("--token-file", "/nowhere/token", "regions"),
                  ("--address", "unix:/" + "x" * 200, "regions")):
        status, out, err = ctl(*words)
        assert (status, out) == (USAGE, b"") and err, words
    assert ctl("set", "k", "v", "--ttl", "soon")[0] == FAILED  # the sidecar's word


def test_unreachable(ctl, directory):
    for address in (f"127.0.0.1:{ports.pick()}", f"unix:{directory}/none.sock"):
        status, out, err = ctl("regions", address=address)
        assert (status, out) == (UNREACHABLE, b"") and address in err
    assert ctl("--address", f"127.0.0.1:{ports.pick()}", "top", "--once")[0] == UNREACHABLE


def test_what_answers_is_no_admin_api(ctl, west):
    status, _, err = ctl("--address", f"127.0.0.1:{west.port}", "regions")  # a memcached port
    assert status == UNREACHABLE and err


def test_stats(ctl, wire):
    wire.get("counted")
    status, out, _ = ctl("stats")
    assert status == DONE and re.search(rb"^outrigger_requests_total\S* +\d+", out, re.M) and b"_bucket" not in out
    status, out, _ = ctl("stats", "hits")
    assert status == DONE and all(b"hits" in line for line in out.splitlines()) and out
    assert json.loads(ctl("stats", "--json")[1])["outrigger_hits_total"]
    assert ctl("stats", "no-such-metric")[0] == FAILED


def test_unix_socket_and_token(ctl, start, directory, watch):
    node = Memcached(directory, name="alone")
    try:
        node.start()
        (directory / "token").write_text("a-token-of-the-tests\n")
        path = directory / "ctl.sock"
        sidecar = start({"pool": {"nodes": [node.address]}, "admin": {"listen": f"unix:{path}", "token_file": str(directory / "token")}}, until=None)
        sidecar.process.wait_until(path.exists, "the socket")
        address = f"unix:{path}"
        status, _, err = ctl("regions", address=address)
        assert status == FAILED and "401" in err
        token = ("--token-file", str(directory / "token"))
        until(lambda: ctl(*token, "set", "k", "v", address=address)[0] == DONE, "the node")
        assert ctl("get", "k", address=address, env={"OUTRIGGER_TOKEN_FILE": str(directory / "token")})[:2] == (DONE, b"v")
        assert "no JSON" not in ctl(*token, "regions", address=address)[2]
    finally:
        node.close()


# ---- what another sidecar might answer

@contextmanager
def server(answers):
    """A stand-in that gives these answers, (status, JSON), one after another; what it was asked, as a list."""
    asked = []
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length", 0))
            asked.append((self.command, self.path, self.rfile.read(length)))
            status, body = left.pop(0)
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        do_GET = do_POST = answer

        def log_message(self, *_):
            pass
    listener = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{listener.server_port}", asked
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def test_invalidate_as_asked(ctl):
    results = [{"pattern": "user:*", "version": "7"}, {"key": "a", "result": "not_found"}, {"key": "b c", "error": "SERVER_ERROR \u001b[2J"}]
    with server([(503, {"failed": 1, "results": results})]) as (address, asked):
        status, out, err = ctl("invalidate", "a", "b c", "--pattern", "user:*", address=address)
    assert status == FAILED and "503" in err and b"\x1b" not in out
    assert out.splitlines()[:2] == [b"user:*: hidden", b"a: was not there"] and out.splitlines()[2].startswith(b"b c: SERVER_ERROR ")
    (method, path, body), = asked
    assert (method, path) == ("POST", "/invalidate") and json.loads(body) == {"keys": ["a", "b c"], "patterns": ["user:*"]}


def test_invalidate_waits_for_the_sweep(ctl):
    ours, other = {"pattern": "user:*", "version": "1"}, {"pattern": "else*", "version": "2"}
    with server([(200, {}), (200, {"rules": [ours, other]}), (200, {"rules": [other]})]) as (address, asked):
        status, _, err = ctl("invalidate", "--pattern=user:*", "--wait-sweep", address=address)
    assert status == DONE and [path for _, path, _ in asked] == ["/invalidate", "/rules", "/rules"]
    assert "1 of 1 patterns still being swept" in err and "0 of 1" in err
    with server([(200, {}), (404, {"error": {"code": "not_found", "message": "no"}})]) as (address, _):
        status, _, err = ctl("invalidate", "--pattern=user:*", "--wait-sweep", address=address)
    assert status == DONE and "does not say" in err


APPLIED = {"region": "x", "is_applied": True, "ms": 3.5}
WAITING = {"region": "y", "is_applied": False, "reason": "backlog", "message": "not \u001byet", "backlog": 1}
TIMEOUT = {"code": "regions_timeout", "message": "in time by: y"}


def answered(position, *regions, error=None, **more):
    body = {"position": position, "regions": list(regions), **({"error": error} if error else {}), **more}
    return (504 if error else 200), body


def test_invalidate_waits_for_regions(ctl):
    """It goes on where the first answer ended, and a region that has it keeps its time."""
    first = answered("7@then:x", APPLIED, WAITING, error=TIMEOUT, failed=0, results=[{"key": "a", "result": "deleted"}])
    last = answered("7@then:x", {**APPLIED, "ms": 0.1}, {"region": "y", "is_applied": True, "ms": 1.0})
    with server([first, last]) as (address, asked):
        status, out, err = ctl("invalidate", "a", "--wait", "--timeout", "20", address=address)
    assert (status, err) == (DONE, "") and out.splitlines()[:2] == [b"a: deleted", b"region x: applied after 3.5 ms"]
    assert re.fullmatch(rb"region y: applied after [\d.]+ ms", out.splitlines()[2])
    (_, path, body), (method, then, _) = asked
    assert path == "/invalidate?wait=regions&timeout=20000ms" and json.loads(body) == {"keys": ["a"], "patterns": []}
    assert method == "GET" and re.fullmatch(r"/applied\?position=7%40then%3[Aa]x&timeout=1\d{4}ms", then)


def test_progress_is_shown_on_a_terminal(program):
    """Which region is missing, in a line that is cleared at the end."""
    first = answered(None, APPLIED, WAITING, error=TIMEOUT, failed=0, results=[{"pattern": "p*", "version": "1"}])
    second = answered("8@then", APPLIED, WAITING, error=TIMEOUT)
    with server([first, second, answered("8@then", APPLIED, {**APPLIED, "region": "y"})]) as (address, asked):
        master, slave = pty.openpty()
        try:
            done = subprocess.run([program, "--address", address, "invalidate", "--pattern", "p*", "--wait"], stdout=subprocess.PIPE, stderr=slave, check=False,
                                  timeout=DEADLINE)
            shown = os.read(master, 65536)
        finally:
            os.close(master)
            os.close(slave)
    assert done.returncode == DONE and [path for _, path, _ in asked] == [
        "/invalidate?wait=regions&timeout=500ms", "/applied?timeout=500ms", "/applied?position=8%40then&timeout=500ms"]
    assert shown.count(b"waiting for y (backlog), ") == 2 and b"x (" not in shown and shown.endswith(b"\r\x1b[K")


def test_regions_that_do_not_follow(ctl):
    late = answered("7@then", APPLIED, WAITING, error={"code": "regions_unknown", "message": "can not be known"}, failed=0, results=[])
    for words in ((), ("--json",)):
        with server([late]) as (address, asked):
            status, out, err = ctl("invalidate", "a", "--wait", *words, address=address)
        assert status == FAILED and len(asked) == 1 and b"\x1b" not in out
        assert json.loads(out)["regions"][1] == WAITING if words else b"region y: not applied: not \\x1byet" in out and "can not be known" in err
    with server([(503, {"failed": 1, "results": [{"key": "a", "error": "SERVER_ERROR no"}]})]) as (address, asked):
        status, out, err = ctl("invalidate", "a", "--wait", address=address)
    assert status == FAILED and "503" in err and b"a: SERVER_ERROR no" in out and len(asked) == 1
    with server([(200, {"failed": 0, "results": []})]) as (address, _):  # one that knows nothing of it
        status, _, err = ctl("invalidate", "a", "--wait", address=address)
    assert status == FAILED and "does not say which regions" in err
    with server([(200, {"failed": 0, "results": [], "regions": [], "position": None})]) as (address, _):  # alone
        assert ctl("invalidate", "a", "--wait", address=address)[0] == DONE


def test_bench_lag_as_answered(ctl):
    times = [5.0, 1.0, 3.0, 2.0]
    answers = [answered("1@t", {**APPLIED, "ms": ms}, {**APPLIED, "region": "y", "ms": 2.5}, failed=0, results=[]) for ms in times]
    with server(answers) as (address, asked):
        status, out, err = ctl("bench-lag", "--count", "4", "--interval", "1ms", address=address)
    assert (status, err) == (DONE, "")
    assert [line.split() for line in out.decode().splitlines()] == [
        ["region", "count", "p50_ms", "p99_ms", "max_ms"], ["x", "4", "2", "5", "5"], ["y", "4", "2.5", "2.5", "2.5"], ["(all)", "4", "2.5", "5", "5"]]
    keys = [json.loads(body)["keys"] for _, _, body in asked]
    assert len({key for key, in keys}) == 4 and all(re.fullmatch(r"outrigger-bench-lag:\d+:\d", key) for key, in keys)
    with server([answers[0], answered("2@t", APPLIED, WAITING, error=TIMEOUT)]) as (address, _):
        status, out, err = ctl("bench-lag", "--count", "4", "--json", address=address)
    assert status == FAILED and json.loads(out)["count"] == 1 and "in time by: y" in err
    with server([answered(None)]) as (address, _):
        status, out, err = ctl("bench-lag", address=address)
    assert (status, out) == (FAILED, b"") and "no other regions" in err


def test_rules(ctl):
    with server([(200, {"rules": []})]) as (address, _):
        assert ctl("rules", address=address)[:2] == (DONE, b"no rules in force\n")
    rule = {"pattern": "a b*", "region": "x", "version": "7", "timestamp": 1795464000123}
    with server([(200, {"rules": [rule]})]) as (address, _):
        lines = ctl("rules", address=address)[1].decode().splitlines()
    assert [line.split() for line in lines] == [["pattern", "region", "since", "version"], ["a", "b*", "x", "2026-11-23T20:00:00Z", "7"]]


def test_invalidate_and_rules(ctl, cluster, wire):
    """Against a real sidecar: keys and patterns, several at once, gone in both regions."""
    keys = ["iv:a", "iv:b c", "ivp:1", "ivq:1", "kept"]
    with Wire(cluster["east"].outrigger.port) as east:
        for client in (wire, east):
            for key in keys:
                client.set(key.replace(" ", "_"), b"v")
        status, out, _ = ctl("invalidate", "iv:a", "iv:b_c", "iv:none", "--pattern", "ivp:*", "--pattern=ivq:?")
        assert status == DONE
        assert sorted(out.decode().splitlines()) == ["iv:a: deleted", "iv:b_c: deleted", "iv:none: was not there", "ivp:*: hidden", "ivq:?: hidden"]
        for client in (wire, east):
            for key in ("iv:a", "iv:b_c", "ivp:1", "ivq:1"):
                until(lambda: client.get(key) is None, f"{key} gone")
            assert client.get("kept") == b"v"
    status, out, _ = ctl("rules")
    rows = [line.split() for line in out.decode().splitlines()]
    assert status == DONE and rows[0] == ["pattern", "region", "since", "version"]
    assert {("ivp:*", "west"), ("ivq:?", "west")} <= {tuple(row[:2]) for row in rows}
    status, out, err = ctl("invalidate", "--pattern", "a[", "good")
    assert status == FAILED and "400" in err and "pattern 1" in err and out == b""


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", b"SSH-2.0-x\r\n", b"\0" * 100])
def test_a_server_that_makes_no_sense(ctl, answer):
    import socket
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(answer)
        client.close()
    thread = threading.Thread(target=serve)
    thread.start()
    status, out, err = ctl("regions", address=f"127.0.0.1:{listener.getsockname()[1]}")
    thread.join()
    listener.close()
    assert (status, out) == (UNREACHABLE, b"") and err


def test_completion_knows_the_commands(ctl, directory):
    """What bash offers is what there is."""
    script = "source ctl/outriggerctl.bash; COMP_WORDS=(outriggerctl '{0}' ''); COMP_CWORD={1}; _outriggerctl; echo ${{COMPREPLY[@]}}"

    def offered(word, at):
        from support import ROOT
        done = subprocess.run(["bash", "-c", script.format(word, at)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return set(done.stdout.split())
    listed = {c.decode() for c in re.findall(rb"^  ([a-z][a-z-]+) ", ctl("--help")[1], re.M)}
    assert {w for w in offered("", 1) if not w.startswith("-")} == listed
    for command in listed:
        taken = set(re.findall(r"^  (--[a-z-]+)", ctl(command, "--help")[1].decode(), re.M))
        assert offered(command, 2) == taken, command
