"""Two regions and a witness: either region may be lost, as the other and the witness are a majority. And what operators see of it."""

import subprocess

import pytest

import openapi
from local import schema
from local.cluster import Cluster
from support import heal, sees, sets, until

SCHEMA = "outrigger"
LONG = 60.0


def _prepare(db):
    schema.create(db, SCHEMA)


@pytest.fixture(scope="module")
def running(watch, directory):
    config = {
        "max_clock_skew": "100ms",
        "database": {"timeout": "3s"},
        "strong": {"lease": "1s", "lock_window": "5s", "prepare_timeout": "1500ms"},
        "namespaces": [{"prefix": "s:", "read": "through", "write": "through", "consistency": "strong", "source": "entries"}],
    }
    with Cluster(directory, nodes=1, witness=True, config=config, prepare=_prepare) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    heal(running)
    yield running
    if not running.witness.process.is_running:
        running.witness.start()
    heal(running)


def gauge(sidecar, name):
    return sidecar.metrics().total(f"outrigger_strong_{name}")


def test_what_operators_see(cluster, binary):
    east = cluster["east"].outrigger

    def all_ready():
        found = openapi.Api(east.admin_port).json("GET", "/regions")  # held against the document
        return [r["strong"]["lease"] for r in found["regions"]] == ["ready", "ready"] and found
    answer = until(all_ready, "both ready", LONG)
    assert answer["witnesses"] == [{"name": "witness", "is_connected": True, "is_vote": True, "problem": None}]
    assert "strong: ok" in east.http("GET", "/readyz")[1].splitlines()
    table = subprocess.run([binary.parents[1] / "ctl/outriggerctl", "--address", f"127.0.0.1:{east.admin_port}", "regions"], capture_output=True, text=True, check=True).stdout
    rows = [line.split()[:6] for line in table.split("\n\n")[1].splitlines()[1:]]
    assert rows[0] == ["region", "lease", "number", "is_suspended", "is_connected", "is_vote"]
    assert [row[:2] for row in rows[1:3]] == [["east", "ready"], ["west", "ready"]]
    assert rows[3][:2] == ["witness", "(witness)"]


@pytest.mark.parametrize("lost, left", [("east", "west"), ("west", "east")])
def test_a_region_is_lost(cluster, lost, left):
    for sidecar in (cluster[lost].outrigger, cluster[left].outrigger):
        assert sets(sidecar.port, "s:lost", b"old") == b"STORED\r\n"
        assert sees(sidecar.port, "s:lost") == b"old"
    cluster[lost].nats.kill()
    cluster[lost].outrigger.kill()
    assert sets(cluster[left].outrigger.port, "s:lost", b"new") == b"STORED\r\n"
    assert sees(cluster[left].outrigger.port, "s:lost") == b"new"
    until(lambda: gauge(cluster[left].outrigger, "serves") == 1, "serving", LONG)
    heal(cluster)
    assert sees(cluster[lost].outrigger.port, "s:lost") == b"new"
    assert sets(cluster[lost].outrigger.port, "s:lost", b"newer") == b"STORED\r\n"
    assert sees(cluster[left].outrigger.port, "s:lost") == b"newer"


def test_the_witness_is_lost(cluster):
    witness = cluster.witness
    east, west = cluster["east"].outrigger, cluster["west"].outrigger
    witness.kill()
    until(lambda: gauge(east, "votes") == 2, "the witness being missed", LONG)
    assert sets(east.port, "s:two", b"1") == b"STORED\r\n"
    assert sees(west.port, "s:two") == b"1"
    until(lambda: gauge(east, "serves") == 1, "serving", LONG)
    witness.start()
    until(lambda: gauge(east, "votes") == 3, "the witness", LONG)
