"""libmemcached's tools against memcached and the sidecar: its conformance test of servers, and what the others print."""

import re
import shutil
import subprocess

import pytest

from support import in_threads


def run(port, name, *arguments, cwd=None):
    """Exit status, and all that was printed but for what is never the same: ports and seconds."""
    assert shutil.which(name), f"{name} is not installed (libmemcached-tools)"
    done = subprocess.run([name, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=120)
    return done.returncode, re.sub(r"\d+\.\d\d\d seconds", "SECONDS", done.stdout.decode(errors="replace").replace(str(port), "PORT"))


@pytest.fixture
def ports(plain):
    """memcached's and the sidecar's, both empty."""
    for node in (plain.node, plain.reference):
        assert node.command(b"flush_all\r\n") == b"OK\r\n"
    return plain.reference.port, plain.outrigger.port


@pytest.mark.parametrize("protocol, tests", [("-a", 25), ("-b", 27)], ids=["ascii", "binary"])
def test_memccapable(ports, protocol, tests):
    """Every test's verdict; memcached passes all of them."""
    (_, expected), (status, got) = in_threads([lambda p=port: run(p, "memccapable", "-h", "127.0.0.1", "-p", str(p), protocol, "-t", "10") for port in ports])
    verdicts = re.findall(r"^((?:ascii|binary) [\w ]+?)\s+\[(\w+)\]", got, re.M)
    assert verdicts == re.findall(r"^((?:ascii|binary) [\w ]+?)\s+\[(\w+)\]", expected, re.M), got
    assert len(verdicts) >= tests and {verdict for _, verdict in verdicts} == {"pass"} and status == 0, got


TOOLS = [
    "memccp --set --flag=7 --expire=100 file other", "memccp --add file", "memccp --replace file", "memccp --replace new", "memccp --add new", "memccat file other new",
    "memccat --flag --verbose file", "memccat none", "memccat file none", "memcexist file", "memcexist none", "memctouch --expire=100 file", "memctouch none", "memcrm file", "memcrm file",
    "memcexist file", "memcrm other none", "memccp --set empty binary", "memccat empty", "memccat binary", "memcflush", "memccat new",
]


@pytest.mark.parametrize("protocol", [[], ["--binary"]], ids=["text", "binary"])
def test_tools(ports, tmp_path, protocol):
    """The same answers, one after the other."""
    for name, content in (("file", b"what is in it\n"), ("other", b"x" * 5000), ("new", b"new"), ("empty", b""), ("binary", bytes(range(256)))):
        (tmp_path / name).write_bytes(content)
    for line in TOOLS:
        tool, *arguments = line.split()
        expected, got = [run(port, tool, f"--servers=127.0.0.1:{port}", *protocol, *arguments, cwd=tmp_path) for port in ports]
        assert got == expected, line


@pytest.mark.parametrize("protocol", [[], ["--binary"]], ids=["text", "binary"])
def test_memcstat(ports, protocol):
    """Its numbers are the sidecar's own, but a program that reads memcached's finds these names."""
    names = []
    for port in ports:
        status, text = run(port, "memcstat", f"--servers=127.0.0.1:{port}", *protocol)
        assert status == 0 and text.startswith("Server: 127.0.0.1 (PORT)\n")
        names.append(set(re.findall(r"^\t (\w+):|^\t(\w+):", text, re.M)))
    wanted = {"pid", "uptime", "time", "version", "pointer_size", "curr_connections", "cmd_get", "cmd_set", "get_hits", "get_misses", "threads"}
    got = [{a or b for a, b in found} for found in names]
    assert wanted <= got[0] and wanted <= got[1], wanted - got[1]


def test_memcping(ports):
    expected, got = [run(port, "memcping", f"--servers=127.0.0.1:{port}") for port in ports]
    assert got == expected and got[0] == 0


@pytest.mark.parametrize("protocol", [[], ["--binary"]], ids=["text", "binary"])
@pytest.mark.parametrize("test", ["get", "set", "mget"])
def test_memcslap(ports, test, protocol):
    expected, got = [run(port, "memcslap", f"--servers=127.0.0.1:{port}", f"--test={test}", "--concurrency=8", "--execute-number=200", "--flush", *protocol) for port in ports]
    assert [re.sub(r" +", " ", text) for text in got[1].splitlines()] == [re.sub(r" +", " ", text) for text in expected[1].splitlines()] and got[0] == expected[0] == 0
