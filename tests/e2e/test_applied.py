"""Waiting until every region has applied an invalidation: three regions, whose sidecars are frozen, whose NATS is killed, that never came, and
whose invalidations wait in the spool. Every answer is held against docs/openapi.yaml."""

import json
import os
import subprocess
import threading
from urllib.parse import quote

import pytest

import openapi
import raw_nats
from local.cluster import Cluster
from support import DEADLINE, Wire, heal, in_threads, sees, until

LONG = f"{int(DEADLINE)}s"
SHORT = "2s"  # enough for the regions that are well


@pytest.fixture(scope="module")
def cluster(watch, directory):
    config = {"namespaces": [{"prefix": "told:", "on_set": "invalidate"}], "pool": {"timeout": "300ms", "retry_max": "300ms"},
              "bus": {"ack_wait": "1s", "publish_timeout": "1s"}}
    spools = {name: {"bus": {"spool": {"directory": str(directory.resolve() / f"spool-{name}")}}} for name in ("east", "west")}
    with Cluster(directory, regions=("east", "west", "south"), nodes=1, database=False, config=config, region_config=spools) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def healed(cluster):
    yield
    heal(cluster)


@pytest.fixture
def south(cluster):
    return cluster["south"]


@pytest.fixture
def api(east):
    return openapi.Api(east.outrigger.admin_port)


class Waited:
    """What a request with wait=regions has come to."""

    def __init__(self, answer: openapi.Answer):
        self.status = answer.status
        self.json = json.loads(answer.body)
        self.position = self.json.get("position")
        self.regions = {r["region"]: r for r in self.json.get("regions", [])}
        self.missing = {name: r["reason"] for name, r in self.regions.items() if not r["is_applied"]}
        self.code = self.json.get("error", {}).get("code")


def wait(api, method: str, path: str, timeout: str = LONG, body: object = None) -> Waited:
    target = f"{path}{'&' if '?' in path else '?'}{'' if path.startswith('/applied') else 'wait=regions&'}timeout={timeout}"
    text = None if body is None else json.dumps(body).encode()
    return Waited(api.ask(method, target, text, {"Content-Type": "application/json"} if text else None))


def invalidate(api, *keys: str, patterns=(), timeout: str = LONG) -> Waited:
    return wait(api, "POST", "/invalidate", timeout, {"keys": list(keys), "patterns": list(patterns)})


def go_on(api, position, timeout: str = LONG) -> Waited:
    return wait(api, "GET", "/applied" + (f"?position={quote(position)}" if position else ""), timeout)


def fill(cluster, *keys: str) -> None:
    for region in cluster.regions.values():
        with Wire(region.outrigger.port) as wire:
            for key in keys:
                assert wire.set(key, b"1") == b"STORED\r\n"


def is_complete(waited: Waited) -> None:
    assert set(waited.regions) == {"west", "south"} and not waited.missing and waited.code in (None, "not_found"), waited.json
    assert all(0 <= region["ms"] < 1000 * DEADLINE for region in waited.regions.values())


# ---- everything runs

def test_keys_and_patterns(cluster, api):
    """When the answer is there, nobody serves what was invalidated."""
    for i in range(20):
        keys = [f"all:{i}:a", f"all:{i}:b", f"all:{i}:p:1"]
        fill(cluster, *keys)
        waited = invalidate(api, *keys[:2], patterns=[f"all:{i}:p:*"])
        assert waited.status == 200 and waited.json["failed"] == 0 and len(waited.json["results"]) == 3
        is_complete(waited)
        assert [sees(region.outrigger.port, key) for region in cluster.regions.values() for key in keys] == [None] * 9


@pytest.mark.parametrize("method", ["DEL", "DELETE"])
def test_delete(cluster, api, method):
    fill(cluster, "one")
    waited = wait(api, method, "/cache/one")
    assert waited.status == 200 and waited.json["result"] == "deleted"
    is_complete(waited)
    assert [sees(region.outrigger.port, "one") for region in cluster.regions.values()] == [None] * 3
    with Wire(cluster["west"].outrigger.port) as wire:
        wire.set("one", b"only here")
    waited = wait(api, method, "/cache/one")
    assert waited.status == 404 and waited.code == "not_found"  # in this region; the others were told, and have it
    is_complete(waited)
    assert sees(cluster["west"].outrigger.port, "one") is None


def test_pattern_by_its_own_verb(cluster, api):
    fill(cluster, "verb:1", "kept")
    waited = wait(api, "INVALIDATE", "/cache/verb:*")
    assert waited.status == 200
    is_complete(waited)
    assert [sees(region.outrigger.port, "verb:1") for region in cluster.regions.values()] == [None] * 3
    assert sees(cluster["south"].outrigger.port, "kept") == b"1"


def test_applied_covers_clients(cluster, east, api):
    """GET /applied without a position: what memcached clients have deleted, or set where that invalidates, until now."""
    fill(cluster, "client", "told:x")
    with Wire(east.outrigger.port) as wire:
        assert wire.delete("client") == b"DELETED\r\n" and wire.set("told:x", b"2") == b"STORED\r\n"
    waited = go_on(api, None)
    assert waited.status == 200 and waited.position
    is_complete(waited)
    assert [sees(cluster[name].outrigger.port, key) for name in ("west", "south") for key in ("client", "told:x")] == [None] * 4
    is_complete(go_on(api, waited.position))


def test_many_at_once(api):
    """More than there is room for are refused before anything is done."""
    answers = in_threads([lambda i=i: invalidate(api, f"many:{i}") for i in range(40)])
    for waited in answers:
        if waited.status == 200:
            is_complete(waited)
        else:
            assert waited.status == 429 and waited.code == "too_many_requests" and "results" not in waited.json
    assert sum(waited.status == 200 for waited in answers) >= 16


@pytest.mark.parametrize("method, target, word", [
    ("DELETE", "/cache/k?wait=all", "regions"), ("DELETE", "/cache/k?wait=", "regions"), ("DELETE", "/cache/k?timeout=1s", "goes with it"),
    ("DELETE", "/cache/k?wait=regions&timeout=1", "duration"), ("DELETE", "/cache/k?wait=regions&timeout=0s", "timeout"),
    ("DELETE", "/cache/k?wait=regions&timeout=6m", "5m"), ("DELETE", "/cache/k?wait=regions&timeout=%00", "timeout"),
    ("INVALIDATE", "/cache/k*?wait=nobody", "regions"), ("GET", "/applied?position=", "position"), ("GET", "/applied?position=7", "position"),
    ("GET", "/applied?position=x%40y", "position"), ("GET", "/applied?position=spool:1", "position"), ("GET", "/applied?position=7@" + "x" * 90, "position"),
    ("GET", "/applied?timeout=soon", "duration")])
def test_bad_parameters(cluster, api, method, target, word):
    fill(cluster, "k")
    answer = api.ask(method, target)
    error = json.loads(answer.body)["error"]
    assert answer.status == 400 and error["code"] == "bad_parameter" and word in error["message"], error
    assert sees(cluster["east"].outrigger.port, "k") == b"1"


def test_a_position_of_nowhere(api):
    for position, status, code in (("1@2001-01-01T00:00:00Z", 504, "regions_unknown"), ("spool:1:1", 400, "bad_parameter")):
        waited = go_on(api, position)
        assert (waited.status, waited.code) == (status, code)


# ---- regions that do not follow

def test_frozen_sidecars(cluster, api, west):
    """The answer names their region; once they go on, the wait for the same position succeeds."""
    fill(cluster, "frozen")
    west.outrigger.process.pause()
    waited = invalidate(api, "frozen", timeout=SHORT)
    assert waited.status == 504 and waited.code == "regions_timeout" and waited.json["error"]["message"].endswith(": west")
    assert waited.missing.keys() == {"west"} and waited.missing["west"] in ("backlog", "not_connected") and waited.regions["west"]["backlog"] >= 1
    assert waited.json["results"] == [{"key": "frozen", "result": "deleted"}] and waited.json["failed"] == 0
    again = go_on(api, waited.position, SHORT)
    assert again.status == 504 and again.missing.keys() == {"west"} and again.position == waited.position
    deleted = wait(api, "DELETE", "/cache/frozen", SHORT)
    assert deleted.status == 504 and deleted.code == "regions_timeout" and deleted.missing.keys() == {"west"}
    west.outrigger.process.resume()
    waited = go_on(api, waited.position)
    assert waited.status == 200
    is_complete(waited)
    assert sees(west.outrigger.port, "frozen") is None


def test_a_wait_ends_when_the_region_comes_back(cluster, api, south):
    fill(cluster, "back")
    south.outrigger.process.pause()
    answers = []

    def state(what):
        return raw_nats.request(cluster["east"].nats.port, f"$JS.API.{what}")
    before = state("STREAM.INFO.INVAL_east")["state"]["last_seq"]
    thread = threading.Thread(target=lambda: answers.append(invalidate(api, "back")))
    thread.start()
    until(lambda: state("CONSUMER.INFO.INVAL_east.to_west")["ack_floor"]["stream_seq"] > before, "west having it")
    assert not answers
    south.outrigger.process.resume()
    thread.join()
    assert answers[0].status == 200
    is_complete(answers[0])
    assert answers[0].regions["south"]["ms"] > answers[0].regions["west"]["ms"]


def test_stopped_sidecars(cluster, api, west):
    """Nobody asks for this region's invalidations there."""
    fill(cluster, "stopped")
    assert west.outrigger.stop() == 0
    until(lambda: raw_nats.request(cluster["east"].nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["num_waiting"] == 0, "no requests")
    waited = invalidate(api, "stopped", timeout=SHORT)
    assert waited.status == 504 and waited.missing == {"west": "not_connected"}
    west.outrigger.start()
    is_complete(go_on(api, waited.position))


def test_a_region_that_never_came(cluster, api, west):
    west.outrigger.stop()
    assert raw_nats.request(cluster["east"].nats.port, "$JS.API.CONSUMER.DELETE.INVAL_east.to_west")["success"]
    waited = invalidate(api, "never", timeout=SHORT)
    assert waited.status == 504 and waited.missing == {"west": "no_consumer"}
    west.outrigger.start()
    is_complete(go_on(api, waited.position))


# ---- the own NATS

def lose_nats(region) -> None:
    region.nats.kill()
    until(lambda: "not connected" in region.outrigger.http("GET", "/readyz")[1], "the connection being lost")


@pytest.mark.parametrize("what", ["key", "pattern"])
def test_in_the_spool(cluster, api, east, what):
    """Nobody has it; once NATS is back, everybody has, and the position of the spool has led there."""
    fill(cluster, "spooled:1")
    lose_nats(east)
    keys, patterns = (["spooled:1"], []) if what == "key" else ([], ["spooled:*"])
    waited = invalidate(api, *keys, patterns=patterns, timeout="200ms")
    assert waited.status == 504 and waited.missing == {"west": "bus_away", "south": "bus_away"}
    assert waited.position.startswith("spool:")
    assert sees(east.outrigger.port, "spooled:1") is None and sees(cluster["west"].outrigger.port, "spooled:1") == b"1"
    east.nats.start()
    waited = go_on(api, waited.position)
    assert waited.status == 200 and "@" in waited.position
    is_complete(waited)
    assert [sees(region.outrigger.port, "spooled:1") for region in cluster.regions.values()] == [None] * 3


def test_out_of_the_spool_while_it_waits(cluster, api, east):
    fill(cluster, "patient:1")
    lose_nats(east)
    thread = threading.Thread(target=east.nats.start)
    answers = []

    def one() -> None:
        answers.append(invalidate(api, patterns=["patient:*"]))
    waiter = threading.Thread(target=one)
    waiter.start()
    until(lambda: east.outrigger.metrics().total("outrigger_spool_records") > 0, "the rule in the spool")
    thread.start()
    thread.join()
    waiter.join()
    assert answers[0].status == 200  # not 202: it has left the spool
    is_complete(answers[0])


def test_frozen_nats(cluster, api, east):
    """The connection is there, but what goes to the stream is not acknowledged: it is in the spool, and nobody is said to have it."""
    fill(cluster, "still")
    east.nats.process.pause()
    waited = invalidate(api, "still", timeout="1500ms")
    assert waited.status == 504 and set(waited.missing) == {"west", "south"} and set(waited.missing.values()) <= {"spooled", "bus_away"}, waited.json
    assert waited.json["results"] == [{"key": "still", "result": "deleted"}] and waited.position.startswith("spool:")
    east.nats.process.resume()
    is_complete(go_on(api, waited.position))
    assert [sees(region.outrigger.port, "still") for region in cluster.regions.values()] == [None] * 3


def test_without_a_spool(cluster, south):
    """What was not done is not waited for."""
    api = openapi.Api(south.outrigger.admin_port)
    lose_nats(south)
    waited = invalidate(api, "failed", timeout="200ms")
    assert waited.status == 503 and waited.json["failed"] == 1 and not waited.regions and waited.code is None
    waited = wait(api, "DELETE", "/cache/failed", "200ms")
    assert waited.status == 503 and waited.code == "server_error" and not waited.regions


def test_a_stream_that_was_lost(cluster, api, east, west):
    """Its numbers begin anew: what was waited for is not taken for something else."""
    west.outrigger.process.pause()
    waited = invalidate(api, "lost", timeout=SHORT)
    assert waited.missing.keys() == {"west"}
    east.nats.lose_store()
    east.nats.start()
    west.outrigger.process.resume()
    until(lambda: "error" not in raw_nats.request(east.nats.port, "$JS.API.STREAM.INFO.INVAL_east"), "the stream")
    after = go_on(api, waited.position)
    assert after.status == 504 and after.code == "regions_unknown" and set(after.missing.values()) == {"unknown"}
    until(lambda: invalidate(api, "new").status == 200, "new ones being followed")


def test_sigterm_ends_a_wait(cluster, api, east, west):
    """The client is told, and the sidecar ends at once."""
    west.outrigger.process.pause()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(invalidate(api, "ending", timeout="5m")))
    thread.start()
    until(lambda: raw_nats.request(east.nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["num_ack_pending"]
          + raw_nats.request(east.nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["num_pending"] > 0, "the invalidation")
    assert east.outrigger.stop() == 0
    thread.join()
    assert answers[0].status == 503 and answers[0].code == "unavailable" and "west" in answers[0].missing
    west.outrigger.process.resume()


# ---- a sidecar without other regions

def test_alone(start, cluster):
    sidecar = start({"pool": {"nodes": [cluster["east"].nodes[0].address]}})
    waited = invalidate(openapi.Api(sidecar.admin_port), "alone")
    assert waited.status == 200 and waited.position is None and waited.json["regions"] == []


# ---- outriggerctl

@pytest.fixture
def ctl(binary, east):
    def call(*words):
        environment = {**os.environ, "OUTRIGGER_ADMIN": f"127.0.0.1:{east.outrigger.admin_port}"}
        done = subprocess.run([binary.parents[1] / "ctl/outriggerctl", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                              timeout=2 * DEADLINE, check=False)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr
    return call


def test_ctl(cluster, ctl, west):
    fill(cluster, "ctl:a", "ctl:b", "ctl:p:1")
    status, out, err = ctl("invalidate", "ctl:a", "--pattern", "ctl:p:*", "--wait")
    assert status == 0 and err == "" and out.splitlines()[:2] == ["ctl:p:*: hidden", "ctl:a: deleted"]
    assert [line.split(":")[0] for line in out.splitlines()[2:]] == ["region west", "region south"]
    status, out, _ = ctl("del", "ctl:b", "--wait")
    assert status == 0 and "region west: applied\nregion south: applied\n" in out
    for key in ("ctl:a", "ctl:b", "ctl:p:1"):
        assert sees(west.outrigger.port, key) is None
    status, out, _ = ctl("bench-lag", "--count", "20", "--interval", "1ms", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["count"] == 20 and [r["region"] for r in found["regions"]] == ["west", "south"]
    for row in (*found["regions"], found["all"]):
        assert row["count"] == 20 and 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert found["all"]["max_ms"] == max(r["max_ms"] for r in found["regions"])


def test_ctl_names_who_is_missing(cluster, ctl, west):
    west.outrigger.process.pause()
    status, out, err = ctl("invalidate", "ctl:c", "--wait", "--timeout", SHORT)
    assert status == 1 and "region west: not applied: " in out and "region south: applied" in out and "in time by: west" in err
    status, out, err = ctl("del", "ctl:c", "--wait", "--timeout", SHORT, "--json")
    assert status == 1 and [r["is_applied"] for r in json.loads(out.splitlines()[-1])["regions"]] == [False, True]
    status, out, err = ctl("bench-lag", "--timeout", "300ms")
    assert (status, out) == (1, "") and "in time by: west" in err
