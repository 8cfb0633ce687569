"""The benchmark's own parts: a generator that overlooks a wrong answer, or a node that answers unlike memcached, would make every
figure worthless."""

import contextlib
import json
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests/support"), str(ROOT / "deploy")]

from harness import figures, measure, report, targets, workloads  # noqa: E402
from harness.servers import Target  # noqa: E402
from local import paths, ports  # noqa: E402
from local.memcached import Memcached  # noqa: E402
from wan import Unavailable, Wan  # noqa: E402

VALUE = bytes(ord("a") + i % 26 for i in range(1024))
KEY = b"bench:" + b"k" * 50 + b"00000007"
PROGRAMS = {
    "load": "address binary bytes classic client cpu driver histogram idle load load_options meta protocol requests values",
    "fastnode": "address answer answer_classic answer_meta bytes fastnode",
    "test_histogram": "histogram test_histogram",
}


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """Both programs, with sanitizers."""
    directory = tmp_path_factory.mktemp("tools")
    builds = [subprocess.Popen(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
                                "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{ROOT}",
                                *(str(HERE / f"{name}.c") for name in sources.split()), "-lm", "-o", str(directory / program)])
              for program, sources in PROGRAMS.items()]
    assert [build.wait() for build in builds] == [0] * len(builds)
    return directory


@pytest.fixture
def node(tools):
    """The scripted node's port."""
    port = ports.pick()
    with subprocess.Popen([tools / "fastnode", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield port
        assert process.poll() is None, "the node died"
        process.terminate()


#: A few requests, where only what comes back matters: they have seconds to be answered, however busy the machine is.
FEW = ("--rate", 200, "--schedule", "uniform", "--duration", 0.1, "--warm-up", 0)


def load(tools, port, *options, address=None):
    """Exit status, what it printed, what it complained of."""
    done = subprocess.run([tools / "load", address or f"127.0.0.1:{port}", "--duration", "0.3", "--warm-up", "0.1", *map(str, options)],
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@contextlib.contextmanager
def scripted_server(answer):
    """A server that sends answer(received bytes) for each piece received, until that is None. Yields its port."""
    listener = socket.create_server(("127.0.0.1", ports.pick()))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                reply = answer(piece)
                if reply is None:
                    return
                connection.sendall(reply)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def hit(request, value=VALUE, key=None, flags=b"0"):
    keys = request.split()[1:] if key is None else [key]
    return b"".join(b"VALUE %s %s %d\r\n%s\r\n" % (k, flags, len(value), value) for k in keys) + b"END\r\n"


# ---- histogram

def test_histogram(tools):
    assert subprocess.run([tools / "test_histogram"], check=False).returncode == 0


# ---- the generator

@pytest.mark.parametrize("options", [
    (), ("--connections", 5, "--pipeline", 16), ("--connections", 3, "--multi-get", 100, "--pipeline", 2),
    ("--connections", 4, "--pipeline", 3, "--set-ratio", 0.5), ("--value-size", 0), ("--key-size", 250, "--check-all"),
    ("--rate", 2000, "--connections", 4), ("--rate", 2000, "--schedule", "uniform"), ("--preload", "--keys", 500)])
def test_load_counts_what_it_asked_for(tools, options):
    size = options[options.index("--value-size") + 1] if "--value-size" in options else 1024
    port = ports.pick()
    with subprocess.Popen([tools / "fastnode", "--value-size", str(size), f"127.0.0.1:{port}"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        status, result, complaint = load(tools, port, *options)
        process.terminate()
    assert (status, complaint) == (0, "")
    assert result["requests"] > 100
    assert result["hits"] + result["stored"] == result["keys"]
    assert result["misses"] == result["errors"] == result["unfinished"] == 0
    late = result["latency_us"]
    assert 0 < late["p50"] <= late["p99"] <= late["p99.9"] <= late["max"]


def test_load_over_a_unix_socket(tools, tmp_path):
    address = f"unix:{tmp_path}/s"
    with subprocess.Popen([tools / "fastnode", address], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert load(tools, 0, "--pipeline", 4, address=address)[0] == 0
        process.terminate()


def test_multi_get_in_another_order_is_right(tools):
    def reversed_hit(request):
        return hit(b"get " + b" ".join(reversed(request.split()[1:])))
    with scripted_server(reversed_hit) as port:
        assert load(tools, port, "--multi-get", 10)[0] == 0


@pytest.mark.parametrize("answer, status, complaint", [
    (lambda r: b"END\r\n", 1, "misses"),
    (lambda r: b"SERVER_ERROR out of order\r\n", 1, "SERVER_ERROR out of order"),
    (lambda r: b"ERROR\r\n", 1, "ERROR"),
    (lambda r: hit(r, key=KEY[:-8] + b"99999999"), 2, "values of other keys"),
    (lambda r: hit(r, value=VALUE[:-1]), 2, "no reply to what was asked"),
    (lambda r: hit(r, value=VALUE[:-1] + b"Z"), 2, "no reply to what was asked"),
    (lambda r: hit(r, value=b"Z" + VALUE[1:]), 2, "no reply to what was asked"),
    (lambda r: hit(r, flags=b"7"), 2, "no reply to what was asked"),
    (lambda r: hit(r) + b"END\r\n", 2, "no reply to what was asked"),
    (lambda r: b"HD\r\n", 2, "no reply to what was asked"),
    (lambda r: None, 2, "closed the connection"),
])
def test_load_refuses_a_wrong_answer(tools, answer, status, complaint):
    with scripted_server(answer) as port:
        found, _, stderr = load(tools, port)
    assert found == status
    assert complaint in stderr


def test_check_all_compares_the_middle(tools):
    wrong = VALUE[:500] + b"Z" + VALUE[501:]
    with scripted_server(lambda r: hit(r, value=wrong)) as port:
        assert load(tools, port)[0] == 0
        assert load(tools, port, "--check-all")[0] == 2


def test_replies_in_small_pieces(tools):
    def serve(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := connection.recv(65536):
                reply = hit(request)
                for i in range(0, len(reply), 311):
                    connection.sendall(reply[i:i + 311])
                    time.sleep(0.0005)

    with socket.create_server(("127.0.0.1", ports.pick())) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        status, result, _ = load(tools, listener.getsockname()[1], "--multi-get", 3)
    assert status == 0 and result["requests"] > 3


def test_open_loop_charges_a_stall_for_all_that_it_held_up(tools):
    """The server stops for 0.6 s of 1 s: more than half of the requests were due in that time, though few were sent."""
    begin = []

    def stalling(request):
        begin[:] = begin or [time.monotonic()]  # the first request: a program takes its time to start
        passed = time.monotonic() - begin[0]
        if 0.2 < passed < 0.8:
            time.sleep(0.8 - passed)
        return b"".join(hit(line) for line in request.split(b"\r\n") if line)

    with scripted_server(stalling) as port:
        status, result, _ = load(tools, port, "--rate", 500, "--schedule", "uniform", "--duration", 1, "--warm-up", 0)
    assert status == 0
    assert result["requests"] == pytest.approx(500, abs=5)
    assert result["latency_us"]["p50"] > 50_000
    assert result["latency_us"]["p99"] > 500_000


def test_idle_connections(tools, node):
    for option in ("--idle", "--idle-used"):
        with subprocess.Popen([tools / "load", f"127.0.0.1:{node}", option, "200"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) >= 200
            process.stdin.close()
            assert process.wait(10) == 0


def test_watched_cpu_time(tools, node):
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        started = time.monotonic()
        _, result, _ = load(tools, node, "--watch-pid", busy.pid, "--rate", 100)
        busy.kill()
    watched = result["watched_cpu"]
    assert 0 < watched["total_s"] <= time.monotonic() - started
    assert watched["user_s"] + watched["system_s"] == pytest.approx(watched["total_s"], abs=0.001)


# ---- the generator's protocols, with what a real memcached answers

PROTOCOLS = ["classic", "meta", "meta-bare", "binary"]
LARGE = 300000  # such values come in pieces


@pytest.fixture(scope="module")
def memcached(tmp_path_factory):
    server = Memcached(tmp_path_factory.mktemp("memcached"), memory_mb=256, binary=paths.MEMCACHED)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("options", [
    (), ("--connections", 5, "--pipeline", 16), ("--connections", 3, "--multi-get", 100, "--pipeline", 2),
    ("--connections", 4, "--pipeline", 3, "--set-ratio", 0.5), ("--value-size", 0, "--multi-get", 3), ("--value-size", 0),
    ("--value-size", 3, "--pipeline", 2), ("--key-size", 250, "--check-all"), ("--rate", 1000, "--connections", 4),
    ("--value-size", LARGE, "--keys", 20, "--set-ratio", 0.2, "--pipeline", 3),
    ("--value-size", LARGE, "--keys", 20, "--multi-get", 4, "--pipeline", 2)])
def test_load_counts_what_memcached_gives(tools, memcached, protocol, options):
    status, result, complaint = load(tools, memcached.port, "--protocol", protocol, "--preload", "--prefix", f"{protocol}:",
                                     *(() if "--keys" in options else ("--keys", 500)), *options)
    assert (status, complaint) == (0, "")
    assert result["protocol"] == protocol
    assert result["requests"] > 0
    assert result["hits"] + result["stored"] == result["keys"]
    assert (result["stored"] > 0) == ("--set-ratio" in options)
    assert result["misses"] == result["errors"] == result["unfinished"] == 0


def test_protocols_store_the_same(tools, memcached):
    for writer in PROTOCOLS:
        options = ("--keys", 50, "--prefix", f"w{writer}:", "--check-all")
        assert load(tools, memcached.port, "--protocol", writer, *options, "--preload", "--duration", 0)[0] == 0
        for reader in PROTOCOLS:
            assert load(tools, memcached.port, "--protocol", reader, *options, *FEW)[0] == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("keys", [1, 10])
def test_misses_are_counted(tools, memcached, protocol, keys):
    options = (*FEW, "--protocol", protocol, "--multi-get", keys, "--prefix", "absent:", "--pipeline", 4)
    status, result, complaint = load(tools, memcached.port, *options)
    assert status == 1 and "misses" in complaint
    assert result["misses"] == result["keys"] > 0
    assert load(tools, memcached.port, "--allow-misses", *options)[0] == 0


@pytest.mark.parametrize("protocol, text", [
    ("classic", "SERVER_ERROR object too large for cache"), ("meta", "SERVER_ERROR object too large for cache"),
    ("meta-bare", "SERVER_ERROR object too large for cache"), ("binary", "Too large.")])
def test_what_memcached_refuses_is_told(tools, memcached, protocol, text):
    status, _, complaint = load(tools, memcached.port, "--protocol", protocol, "--value-size", 2 << 20, "--keys", 1,
                                "--preload", "--duration", 0)
    assert status == 2 and text in complaint


@contextlib.contextmanager
def cutting_relay(target, size):
    """Hands on what clients send, and sends them the answers in pieces of that size. Yields its port."""
    listener = socket.create_server(("127.0.0.1", ports.pick()))

    def pump(source, sink, piece):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                for i in range(0, len(data), piece):
                    sink.sendall(data[i:i + piece])
            sink.shutdown(socket.SHUT_WR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", target))
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=(client, server, 65536), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, size), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size, options", [
    (1, ("--value-size", 5, "--pipeline", 3)), (1, ("--value-size", 5, "--multi-get", 3)), (7, ("--multi-get", 3,)),
    (1, ("--value-size", 0, "--set-ratio", 0.5)), (5003, ("--value-size", LARGE, "--multi-get", 2, "--keys", 5))])
def test_answers_cut_anywhere(tools, memcached, protocol, size, options):
    options = (*FEW, "--protocol", protocol, "--keys", 20, "--prefix", "cut:", *options)
    assert load(tools, memcached.port, *options, "--preload", "--duration", 0)[0] == 0
    with cutting_relay(memcached.port, size) as port:
        status, result, complaint = load(tools, port, *options)
    assert (status, complaint) == (0, "")
    assert result["hits"] + result["stored"] == result["keys"] > 0


def meta_hit(request, value=VALUE, flags=b"f0", mark=None):
    """To `mg KEY v f O…`, or to `mg KEY v f k q` and the like with `mn` behind them."""
    answer = b""
    for command, key, *rest in (line.split() for line in request[:-2].split(b"\r\n") if line != b"mn"):
        own = b"k" + key if b"k" in rest else rest[-1]
        answer += b"VA %d %s %s\r\n%s\r\n" % (len(value), flags, mark or own, value)
    return answer + (b"MN\r\n" if request.endswith(b"mn\r\n") else b"")


@pytest.mark.parametrize("answer, options, status, complaint", [
    (meta_hit, (), 0, ""),
    (meta_hit, ("--multi-get", 3), 0, ""),
    (lambda r: b"EN O" + r[-10:], (), 1, "misses"),
    (lambda r: b"EN\r\n", (), 2, "no reply to what was asked"),
    (lambda r: b"EN O99999999\r\n", (), 2, "no reply to what was asked"),
    (lambda r: b"SERVER_ERROR out of order\r\n", (), 1, "the first: SERVER_ERROR out of order\n"),
    (lambda r: b"ERROR\r\n", (), 1, "the first: ERROR\n"),
    (lambda r: b"ERROR\r\n", ("--multi-get", 3), 2, "ERROR"),
    (lambda r: b"SERVER_ERROR not this one\r\n" + meta_hit(r[r.index(b"\n") + 1:]), ("--multi-get", 3), 1, "the first: SERVER_ERROR not this one\n"),
    (lambda r: meta_hit(r, mark=b"O99999999"), (), 2, "values of other keys"),
    (lambda r: meta_hit(r, mark=b"k" + KEY[:-8] + b"99999999"), ("--multi-get", 3), 2, "values of other keys"),
    (lambda r: meta_hit(r, mark=b"k" + KEY), (), 2, "no reply to what was asked"),
    (lambda r: meta_hit(r, value=VALUE[:-1]), (), 2, "no reply to what was asked"),
    (lambda r: meta_hit(r, value=VALUE[:-1] + b"Z"), (), 2, "no reply to what was asked"),
    (lambda r: meta_hit(r, flags=b"f7"), (), 2, "no reply to what was asked"),
    (lambda r: meta_hit(r) + b"EN\r\n", (), 2, "no reply to what was asked"),
    (lambda r: hit(r, key=KEY), (), 2, "no reply to what was asked"),
    (lambda r: b"HD O99999999\r\n", ("--set-ratio", 1), 2, "no reply to what was asked"),
    (lambda r: b"NS O1\r\n", ("--set-ratio", 1), 1, "the first: NS O1\n"),
])
def test_load_refuses_a_wrong_meta_answer(tools, answer, options, status, complaint):
    with scripted_server(answer) as port:
        found, _, stderr = load(tools, port, *FEW, "--protocol", "meta", *options)
    assert found == status
    assert complaint in stderr


def binary_answer(opcode, opaque, status=0, key=b"", extras=b"", body=b""):
    return struct.pack(">BBHBBHI4sQ", 0x81, opcode, len(key), len(extras), 0, status, len(extras) + len(key) + len(body), opaque,
                       1) + extras + key + body


def binary_answers(request, value=VALUE, flags=b"\0\0\0\0", opaque=None, key=None, skip=0):
    """To GET, or to GETKQ and the like with NOOP behind them; the first `skip` are left out."""
    answer = b""
    while request:
        opcode, key_len, extras_len, body_len, own = struct.unpack(">xBHBxxxI4s", request[:16])
        if skip > 0:
            skip -= 1
        elif opcode == 0x0a:
            answer += binary_answer(opcode, opaque or own)
        else:
            mine = (key or request[24 + extras_len:][:key_len]) if opcode == 0x0d else b""
            answer += binary_answer(opcode, opaque or own, key=mine, extras=flags, body=value)
        request = request[24 + body_len:]
    return answer


def binary_error(request, status, text=b""):
    return binary_answer(request[1], request[12:16], status, body=text)


@pytest.mark.parametrize("answer, options, status, complaint", [
    (binary_answers, (), 0, ""),
    (binary_answers, ("--multi-get", 3), 0, ""),
    (lambda r: binary_error(r, 1, b"Not found"), (), 1, "misses"),
    (lambda r: binary_error(r, 0x81, b"Unknown command"), (), 1, "the first: Unknown command\n"),
    (lambda r: binary_error(r, 0x81), (), 1, "the first: unknown command\n"),
    (lambda r: binary_error(r, 0x99), (), 1, "the first: an error without a text\n"),
    (lambda r: binary_error(r, 0x84, b"busy") + binary_answers(r, skip=1), ("--multi-get", 3), 1, "the first: busy\n"),
    (lambda r: binary_error(r, 1) + binary_answers(r, skip=1), ("--multi-get", 3), 2, "no reply to what was asked"),
    (lambda r: binary_answers(r, opaque=b"abcd"), (), 2, "the opaque of another request"),
    (lambda r: binary_answers(r, opaque=b"abcd"), ("--multi-get", 3), 2, "the opaque of another request"),
    (lambda r: binary_answers(r, key=KEY[:-8] + b"99999999"), ("--multi-get", 3), 2, "values of other keys"),
    (lambda r: binary_answers(r, value=VALUE[:-1]), (), 2, "no reply to what was asked"),
    (lambda r: binary_answers(r, value=VALUE[:-1] + b"Z"), (), 2, "no reply to what was asked"),
    (lambda r: binary_answers(r, flags=b"\0\0\0\1"), (), 2, "no reply to what was asked"),
    (lambda r: binary_answers(r) * 2, (), 2, "no reply to what was asked"),
    (lambda r: binary_error(r, 0), (), 2, "no reply to what was asked"),
    (lambda r: binary_error(r, 5, b"Not stored."), ("--set-ratio", 1), 1, "the first: Not stored.\n"),
    (lambda r: b"ERROR\r\n", (), 2, 'no reply to what was asked: "ERROR'),
    (lambda r: None, (), 2, "closed the connection"),
])
def test_load_refuses_a_wrong_binary_answer(tools, answer, options, status, complaint):
    with scripted_server(answer) as port:
        found, _, stderr = load(tools, port, *FEW, "--protocol", "binary", *options)
    assert found == status
    assert complaint in stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_answer_at_all_is_told(tools, protocol):
    with scripted_server(lambda r: b"") as port:
        status, result, complaint = load(tools, port, "--protocol", protocol)
        assert (status, complaint) == (1, f"load: not one {protocol} request was answered\n")
        assert result["requests"] == 0


def test_large_values_are_compared_as_a_whole(tools):
    wrong = bytearray(ord("a") + i % 26 for i in range(LARGE))
    wrong[LARGE // 2] = ord("Z")
    with scripted_server(lambda r: hit(r, value=bytes(wrong))) as port:
        status, _, complaint = load(tools, port, "--value-size", LARGE, "--keys", 1)
    assert status == 2 and "no reply to what was asked" in complaint


# ---- the scripted node

def ask(port, requests, piece=None):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests += b"mn\r\n"
        for i in range(0, len(requests), piece or len(requests)):
            s.sendall(requests[i:i + (piece or len(requests))])
        answer = b""
        while not answer.endswith(b"MN\r\n"):
            more = s.recv(1 << 20)
            assert more, f"closed after {answer!r}"
            answer += more
        return answer[:-4]


#: As memcached 1.6.38 answers, for a key that is there; it was asked the same.
DIALOGUE = [
    (b"mg %k v\r\n", b"VA 1024\r\n%v\r\n"),
    (b"mg %k\r\n", b"HD\r\n"),
    (b"mg %k k s\r\n", b"HD k%k s1024\r\n"),
    (b"mg %k v f c t k s Oabc q\r\n", b"VA 1024 f0 c1000 t-1 k%k s1024 Oabc\r\n%v\r\n"),
    (b"mg %k v k s t c f\r\n", b"VA 1024 k%k s1024 t-1 c1000 f0\r\n%v\r\n"),
    (b"mg %k v f c N30 E2000 t\r\n", b"VA 1024 f0 c1000 t-1\r\n%v\r\n"),
    (b"mg %k Ovalue\r\n", b"HD Ovalue\r\n"),
    (b"mg YmFy b k v\r\n", b"VA 1024 kYmFy b\r\n%v\r\n"),
    (b"ms %k 1024 E555 c Ofoo k\r\n%v\r\n", b"HD c555 Ofoo k%k\r\n"),
    (b"ms %k 1024 q\r\n%v\r\n", b""),
    (b"ms %k 1024 s c E1000 Oa\r\n%v\r\n", b"HD s1024 c1000 Oa\r\n"),
    (b"md %k Oa k\r\n", b"HD Oa k%k\r\n"),
    (b"md %k q Oa\r\n", b""),
    (b"ma numb N0 J1 v c E9\r\n", b"VA 1 c9\r\n1\r\n"),
    (b"mx\r\n", b"ERROR\r\n"),
    (b"get %k\r\n", b"VALUE %k 0 1024\r\n%v\r\nEND\r\n"),
    (b"get %k %k\r\n", b"VALUE %k 0 1024\r\n%v\r\nVALUE %k 0 1024\r\n%v\r\nEND\r\n"),
    (b"gets %k\r\n", b"VALUE %k 0 1024 1000\r\n%v\r\nEND\r\n"),
    (b"gat 0 %k\r\n", b"VALUE %k 0 1024\r\n%v\r\nEND\r\n"),
    (b"set %k 0 0 1024\r\n%v\r\n", b"STORED\r\n"),
    (b"set %k 0 0 1024 noreply\r\n%v\r\n", b""),
    (b"delete %k\r\n", b"DELETED\r\n"),
    (b"touch %k 0\r\n", b"TOUCHED\r\n"),
    (b"version\r\n", b"VERSION 1.6.38\r\n"),
    (b"bogus\r\n", b"ERROR\r\n"),
]


def filled(text):
    return text.replace(b"%k", KEY).replace(b"%v", VALUE)


@pytest.mark.parametrize("request_, answer", DIALOGUE)
def test_node_answers_as_memcached(node, request_, answer):
    assert ask(node, filled(request_)) == filled(answer)


@pytest.mark.parametrize("piece", [None, 1, 7, 1000])
def test_node_answers_in_order_however_requests_are_cut(node, piece):
    requests = filled(b"".join(r for r, _ in DIALOGUE))
    assert ask(node, requests, piece) == filled(b"".join(a for _, a in DIALOGUE))


def test_node_waits_for_a_slow_reader(node):
    count = 20000
    one = filled(b"VALUE %k 0 1024\r\n%v\r\nEND\r\n")
    with socket.create_connection(("127.0.0.1", node), 20) as s:
        sender = threading.Thread(target=s.sendall, args=(filled(b"get %k\r\n") * count,), daemon=True)
        sender.start()
        time.sleep(0.3)
        left = count * len(one)
        received = b""
        while left > 0:
            more = s.recv(1 << 20)
            assert more
            left -= len(more)
            received = (received + more)[-len(one):]
        assert left == 0 and received == one
        assert ask(node, b"version\r\n") == b"VERSION 1.6.38\r\n"


# ---- the comparison

def run_of(rps, cpu_us, p50=100.0):
    cpu = {"total_s": cpu_us * rps / 1e6, "user_s": cpu_us * rps / 4e6, "system_s": cpu_us * rps * 3 / 4e6}
    return {"requests": rps, "seconds": 1.0, "rps": rps, "keys_per_s": rps, "watched_cpu": cpu, "load_cpu": cpu, "nodes_cpu_s": 0.1,
            "others_cpu_s": 0.0, "stolen_s": 0.0, "latency_us": {"p50": p50, "p99": 2 * p50, "p99.9": 3 * p50, "max": 4 * p50}}


def test_ratios_are_formed_within_a_round():
    ours = [run_of(200, 1), run_of(20, 1), run_of(2000, 1)]
    theirs = [run_of(100, 1), run_of(10, 1), run_of(500, 1)]
    assert figures.ratio(ours, theirs, figures.rps) == figures.Spread(2.0, 2.0, 4.0)


def test_order_alternates():
    three = [Target(name, "", 0) for name in "abc"]
    orders = ["".join(t.name for t in measure._order(three, i)) for i in range(6)]
    assert len(set(orders)) == 6
    assert all("".join(sorted(order)) == "abc" for order in orders)


def results(cpu_ratio, rps_ratio, added):
    closed = {"direct": [run_of(1000, 1, 10)] * 3, "twemproxy": [run_of(100, 10, 50)] * 3,
              "outrigger": [run_of(100 * rps_ratio, 10 * cpu_ratio, 10 + added)] * 3}
    runs = {workloads.PEERS: closed,
            workloads.NAMESPACES: {"aside": closed["twemproxy"], "through": [run_of(95, 10.5)] * 3},
            workloads.BY_PROTOCOL: {"direct-classic": [run_of(900, 4)] * 3, "direct-meta": [run_of(800, 5)] * 3,
                                    "direct-binary": [run_of(700, 3)] * 3, "classic": [run_of(600, 8)] * 3,
                                    "meta": [run_of(500, 10)] * 3, "binary": [run_of(400, 6)] * 3},
            workloads.BESIDE_LARGE: {"direct-alone": [run_of(50, 1, 10)] * 3, "direct-beside": [run_of(50, 1, 30)] * 3,
                                     "alone": [run_of(50, 1, 20)] * 3, "beside": [run_of(50, 1, 25)] * 3}}
    return {w.name: {"name": w.name, "node": w.node, "rate": 50, "closed": {} if w.rate else runs[w.peers], "open": runs[w.peers]}
            for w in workloads.WORKLOADS}


def test_targets():
    assert all(v.reached for v in targets.verdicts(results(0.3, 3, 40)) if v.target != "–")
    missed = [v.what for v in targets.verdicts(results(0.9, 1, 41)) if v.reached is False]
    assert len(missed) == 6
    assert all(v.reached is None and v.measured is None for v in targets.verdicts({}))


def test_protocols_and_neighbours_are_judged_by_their_own_baseline(monkeypatch):
    def verdicts():
        return {v.what: (round(v.measured.median, 3), v.reached) for v in targets.verdicts(results(0.3, 3, 40))
                if "against classic" in v.what or "against alone" in v.what}

    expected = {f"CPU per request, {protocol} against classic, {shape}": (ratio, None)
                for protocol, ratio in (("meta", 1.25), ("binary", 0.75)) for shape in ("50 connections", "pipelines of 16")}
    expected["p99 of small GETs beside a client with 8 MiB values, against alone"] = (1.25, None)
    assert verdicts() == expected
    monkeypatch.setattr(targets, "LIMITS", {"meta": 1.2, "binary": 1.2, "beside": 1.5})
    assert verdicts() == {what: (ratio, ratio < 1 or "p99" in what) for what, (ratio, _) in expected.items()}


def test_report_says_what_was_reached():
    memory = {"connections": 100, "peers": {"twemproxy": {k: {"before_kib": 1024, "after_kib": 2048, "kib_per_1000": 512}
                                                          for k in ("fresh", "used")}}}
    data = {"machine": {"processor": "some"}, "cpus": {"proxy": 0, "load": 1, "nodes": 1}, "workloads": results(0.3, 3, 41),
            "memory": memory}
    text = report.write(data, measure.Plan(5, 3, 3.0, 0.5, 100))
    assert "| throughput, 50 connections, pipelines of 16 | ≥ 2.50 × | 3.000 × | yes |" in text
    assert "| median latency added at one connection | ≤ twemproxy's 40.0 µs | 41.0 µs | **no** |" in text
    assert "| twemproxy | 1.0 MiB | 0.50 MiB | 0.50 MiB |" in text
    assert "| CPU per request, meta against classic, 50 connections | – | 1.250 × | – |" in text
    assert "|  | meta | 500 | 10.00 | 1.25 | 800 | 5.00 | 1.25 | 2.00 |" in text
    assert "|  | binary | 400 | 6.00 | 0.75 | 700 | 3.00 | 0.75 | 2.00 |" in text
    assert "| through Outrigger | p50 | 20 | 25 | 1.25 |" in text
    assert "| memcached directly | p50 | 10 | 30 | 3.00 |" in text


def test_report_of_a_part():
    """One protocol failed, twemproxy was not wanted: what there is, and why the rest is not there."""
    data = {"machine": {}, "cpus": {"proxy": 0, "load": 1, "nodes": 1}, "workloads": {}, "memory": {},
            "failed": {"protocol-50x1": "protocol-50x1: meta does not answer (exit status 1 of: /somewhere/load)"}}
    text = report.write(data, measure.Plan(5, 3, 3.0, 0.5, 100))
    assert "**Failed:** protocol-50x1: meta does not answer\n" in text
    assert "## Protocols" not in text
    direct = {name: runs for name, runs in results(1, 1, 1)["protocol-50x1"]["closed"].items() if name.startswith("direct")}
    data["workloads"]["protocol-50x1"] = {"name": "protocol-50x1", "node": "both", "rate": 50, "closed": direct, "open": direct}
    assert "|  | meta | – | – | – | 800 | 5.00 | 1.25 | – |" in report.write(data, measure.Plan(5, 3, 3.0, 0.5, 100))


# ---- the runner

@pytest.fixture
def bench(tools, tmp_path):
    """Runs tests/bench/run with those arguments: exit status, what it measured, what it said."""
    def run(*arguments):
        done = subprocess.run([HERE / "run", "--no-install", "--quick", "--directory", tmp_path / "bench", "--tools", tools, "--json", tmp_path / "data.json", "--report",
                               tmp_path / "report.md", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
        file = tmp_path / "data.json"
        return done.returncode, json.loads(file.read_text()) if file.exists() else None, done.stdout + done.stderr
    return run


def test_run_measures_what_is_chosen(bench, tmp_path):
    status, data, said = bench("--only", "protocol-50x1", "--peers", "direct", "--duration", 0.2)
    assert status == 0, said
    assert list(data["workloads"]) == ["protocol-50x1"]
    closed = data["workloads"]["protocol-50x1"]["closed"]
    assert list(closed) == ["direct-classic", "direct-meta", "direct-binary"]
    assert all([run["protocol"] for run in runs] == [name.split("-")[1]] * 2 for name, runs in closed.items())
    assert "## Protocols" in (tmp_path / "report.md").read_text()


def test_run_moves_large_values_beside(bench):
    status, data, said = bench("--only", "beside-large", "--peers", "direct")
    assert status == 0, said
    runs = data["workloads"]["beside-large"]["open"]
    assert runs["direct-beside"][0]["large_rps"] > 0
    assert "large_rps" not in runs["direct-alone"][0]


def test_run_goes_on_after_a_protocol_that_is_not_answered(bench, tools, tmp_path):
    """In place of the sidecar, one that knows classic alone: the scripted node."""
    impostor = tmp_path / "impostor"
    impostor.write_text(f"""#!/bin/bash
case "$1" in --version) echo impostor; exit ;; esac
exec "{tools}/fastnode" "$(sed -n 's/.*\\(127.0.0.1:[0-9]*\\).*/\\1/p' "$2" | head -1)"
""")
    impostor.chmod(0o755)
    status, data, said = bench("--only", "protocol-50x1", "--only", "get-1x1", "--peers", "direct,outrigger", "--outrigger",
                               impostor, "--duration", 0.2)
    assert status == 1
    assert list(data["failed"]) == ["protocol-50x1"]
    assert "protocol-50x1: binary does not answer the binary protocol as it should" in data["failed"]["protocol-50x1"]
    assert "FAILED" in said
    assert list(data["workloads"]["get-1x1"]["closed"]) == ["direct", "outrigger"]


# ---- the other benchmarks: tiny runs, which say nothing about speed

@pytest.fixture
def other(tmp_path):
    """Runs tests/bench/run NAME, as small as can be, with the sidecar that the end-to-end tests use: what it measured, and its report."""
    binary = Path(os.environ.get("OUTRIGGER_BINARY") or ROOT / "build-asan/proxy/outrigger")
    assert binary.exists(), f"{binary} is not there: tests/run e2e builds it"

    def run(name, *arguments):
        file = tmp_path / "data.json"
        done = subprocess.run([HERE / "run", name, "--rounds", "1", "--json", file, "--outrigger", binary, *map(str, arguments)],
                              capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(file.read_text()), done.stdout
    return run


def is_measured(run, *names):
    """These are in it, and every number of it, however deep, is one that can be."""
    assert set(names) <= set(run)

    def check(value):
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(one)
        if isinstance(value, (int, float)):
            assert math.isfinite(value) and value >= 0, run
    check(run)


def rows(report):
    """First column to the others, of all tables of a report."""
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line.startswith("|"))}


LAG = ("rate", "errors", "p50_ms", "p99_ms", "max_ms")


def test_bus_measures_and_reports(other):
    data, report = other("bus", "--regions", 2, "--duration", 0.1, "--probes", 10, "--rate", 20000)
    assert list(data["runs"]) == ["2"]
    for (run,) in data["runs"].values():
        is_measured(run["throughput"], "events", "errors", "events_per_s", "publish_ms")
        assert set(run["throughput"]["cpu_us"]) == {"clients", "sender", "nats", "receivers", "nodes"}
        is_measured(run["idle"], *LAG)
        is_measured(run["loaded"], *LAG)
        assert run["throughput"]["events"] > 0 and run["idle"]["rate"] == 0 < run["loaded"]["rate"] and run["idle"]["p50_ms"] > 0
    table = rows(report)
    assert table["median (lowest–highest)"] == ["2 regions"]
    assert all(len(cells) == 1 for cells in table.values()) and "lag, idle: p50" in table


def test_patterns_measures_gets(other, tools):
    data, report = other("patterns", "--only", "gets", "--duration", 0.1, "--load", tools / "load")
    names = [f"50 × {pipeline}, {rules}" for pipeline in (1, 16) for rules in ("no rule", "100 prefixes", "10,000 prefixes", "256 unanchored")]
    assert sorted(data["gets"]) == sorted(names) and set(names) <= set(rows(report))
    for (run,) in data["gets"].values():
        is_measured(run, "rps", "cpu_us", "user_us", "p50_us", "p99_us")
        assert run["rps"] > 0


def test_patterns_measures_the_sweep(other, tools):
    data, report = other("patterns", "--only", "sweep", "--entries", 2000, "--duration", 0.1, "--rate", 200, "--load", tools / "load")
    (run,) = data["sweep"]
    assert run["none"]["removed"] == 0 and run["all"]["removed"] == 2000
    for one in run.values():
        is_measured(one, "seconds", "removed", "quiet", "beside")
        assert one["seconds"] > 0 and set(one["quiet"]) == set(one["beside"]) == {"p50_us", "p99_us", "p99.9_us", "rps"}
    assert rows(report)["removed"] == ["0 (0–0)", "2,000 (2,000–2,000)"]


def test_loads_measures_and_reports(other):
    data, report = other("loads", "--rows", 1000, "--duration", 0.1, "--only", "multi", "--only", "single")
    assert len(data["multi"]) == 6 and len(data["single"]) == 2 and "herd" not in data
    for contest in (data["multi"], data["single"]):
        assert set(contest) <= set(rows(report))
        for (run,) in contest.values():
            is_measured(run, "keys", "errors", "keys_per_s", "keys_per_select", "p50_ms", "p99_ms", "cores", "others")
            assert run["keys"] > 0 and run["selects"] > 0 and set(run["cores"]) == {"mariadb", "sidecar", "nodes", "clients"}


def test_strong_measures_reads(other, tools):
    data, report = other("strong", "--only", "reads", "--duration", 0.1, "--load", tools / "load")
    assert sorted(data["reads"]) == sorted(f"50 × {pipeline}, {name}" for pipeline in (1, 16) for name in ("strong", "eventual"))
    assert set(data["reads"]) <= set(rows(report))
    for (run,) in data["reads"].values():
        is_measured(run, "rps", "cpu_us", "p50_us", "p99_us", "loads")
        assert run["rps"] > 0


def test_strong_measures_writes(other, tools, tmp_path):
    try:
        Wan(tmp_path, ["one", "other"]).close()
    except Unavailable as e:
        pytest.skip(str(e))
    data, report = other("strong", "--only", "writes", "--writes", 3, "--delay", 0, "--delay", 5, "--load", tools / "load")
    assert set(data["writes"]) == {f"{kind}, {name}" for kind in ("set", "delete", "pattern") for name in ("strong", "eventual")} <= set(rows(report))
    for kind, took in data["writes"].items():
        is_measured(took)
        assert set(took) == {"0", "5"} and all(len(of) == 3 for of in took.values())
        assert kind.endswith("eventual") or min(took["5"]) >= 10  # it was at the farthest region and back, whatever the machine


@pytest.mark.parametrize("name", ["bus", "patterns", "loads", "strong"])
def test_a_sidecar_that_does_not_start_is_told(name, tools, tmp_path):
    more = {"patterns": ["--load", str(tools / "load")], "strong": ["--load", str(tools / "load")], "loads": ["--rows", "100"]}.get(name, [])
    done = subprocess.run([HERE / "run", name, "--rounds", "1", "--outrigger", "/bin/false", "--json", tmp_path / "data.json", *more], capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 1 and f"{name}: " in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "data.json").exists()
