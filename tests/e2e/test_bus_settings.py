"""Streams and consumers that somebody else has made, with accounts that may not change them: settings that would drop events are refused, in
/readyz and in the log; what is only different is used."""

import json

import pytest

import raw_nats
from local import metrics
from local.memcached import Memcached
from local.nats import Nats
from local.outrigger import Outrigger
from support import DEADLINE, Growth, Wire, log_of, until

# The operator may do everything; sidecars may neither create nor change anything of a stream INVAL_… or its consumers.
FIXED = """
accounts {{ ONE {{ jetstream: enabled, users: [
  {{user: operator, password: op}},
  {{user: sidecar, password: sc, permissions: {{publish: {{deny: [{denied}]}}}}}}
] }} }}
no_auth_user: operator
"""
STREAM = ["$JS.API.STREAM.CREATE.INVAL_east", "$JS.API.STREAM.UPDATE.INVAL_east"]
CONSUMER = ["$JS.API.CONSUMER.DURABLE.CREATE.INVAL_east.to_west", "$JS.API.CONSUMER.CREATE.INVAL_east.to_west"]

GOOD_STREAM = {"retention": "limits", "storage": "file", "discard": "old", "max_msg_size": 1 << 20}
GOOD_CONSUMER = {"durable_name": "to_west", "deliver_policy": "all", "ack_policy": "explicit", "max_deliver": -1}


@pytest.fixture
def node(tmp_path):
    node = Memcached(tmp_path)
    node.start()
    yield node
    node.close()


@pytest.fixture
def server(tmp_path):
    """A function that starts a nats-server whose sidecars may not publish to these subjects."""
    servers = []

    def start(denied) -> Nats:
        server = Nats(tmp_path / "nats", extra=FIXED.format(denied=", ".join(json.dumps(s) for s in denied)))
        servers.append(server)
        return server.start()
    yield start
    for server in servers:
        server.close()


@pytest.fixture
def sidecar(watch, tmp_path, node):
    """A function that starts a sidecar of a region, which shares the server with the others."""
    sidecars = []

    def start(region, server) -> Outrigger:
        url = f"nats://sidecar:sc@127.0.0.1:{server.port}"
        peer = {"east": "west", "west": "east"}[region]
        config = {"region": region, "threads": 1, "pool": {"nodes": [node.address]},
                  "bus": {"url": url, "peers": [{"region": peer, "url": url}]}}
        sidecars.append(Outrigger(tmp_path, config, name=region))
        sidecars[-1].start("listening")
        return sidecars[-1]
    yield start
    for one in sidecars:
        one.close()


def make(server, config) -> None:
    answer = raw_nats.request(server.port, f"$JS.API.STREAM.CREATE.{config['name']}", config)
    assert "error" not in answer, answer


def make_stream(server, region="east", **changes) -> None:
    make(server, {**GOOD_STREAM, "name": f"INVAL_{region}", "subjects": [f"outrigger.inval.{region}.>"], **changes})


def make_consumer(server, **changes) -> None:
    config = {k: v for k, v in {**GOOD_CONSUMER, **changes}.items() if v is not None}
    answer = raw_nats.request(server.port, "$JS.API.CONSUMER.DURABLE.CREATE.INVAL_east.to_west", {"stream_name": "INVAL_east", "config": config})
    assert "error" not in answer, answer


def says(sidecar, *texts) -> None:
    """Waits until /readyz is 503, and has all this to say."""
    def said() -> bool:
        try:
            status, text = sidecar.http("GET", "/readyz")
        except OSError:  # clients are let in before the admin's
            return False
        return status == 503 and all(t in text for t in texts)
    until(said, f"/readyz to say {texts}", 30)


@pytest.mark.parametrize("change, text", [
    ({"discard": "new", "max_bytes": 1 << 30}, 'discard is "new"'),
    ({"retention": "interest"}, 'retention is "interest"'),
    ({"max_msgs": 1000}, "max_msgs is 1000"),
    ({"max_msgs_per_subject": 1}, "max_msgs_per_subject is 1"),
    ({"max_age": 60 * 10 ** 9}, "max_age is 60000000000"),
    ({"max_bytes": 1 << 20}, "max_bytes is 1048576"),
], ids=lambda p: "" if isinstance(p, dict) else p.replace('"', "").replace(" is ", "-"))
def test_a_stream_that_drops_events_and_can_not_be_changed(server, sidecar, change, text):
    nats = server(STREAM)
    make_stream(nats, **change)
    east = sidecar("east", nats)
    says(east, "stream INVAL_east drops invalidations, and can not be changed", text)
    assert text in log_of(east)


def test_a_stream_that_is_only_different_is_used(server, sidecar):
    nats = server(STREAM)
    make_stream(nats, storage="memory")
    east = sidecar("east", nats)
    until(lambda: "is used as it is" in log_of(east), "the stream to be used")
    east.wait("ready")
    with Wire(east.port) as wire:
        assert wire.delete("a") == b"NOT_FOUND\r\n"


def test_a_stream_that_may_be_changed_is_put_right(server, sidecar):
    nats = server([])
    make_stream(nats, discard="new", max_msgs=1000, max_msgs_per_subject=1, max_age=60 * 10 ** 9, max_bytes=1 << 20)
    sidecar("east", nats).wait("ready")
    config = raw_nats.request(nats.port, "$JS.API.STREAM.INFO.INVAL_east")["config"]
    assert (config["discard"], config["max_msgs"], config["max_msgs_per_subject"]) == ("old", -1, -1)
    assert (config["max_age"], config["max_bytes"]) == (24 * 3600 * 10 ** 9, 1 << 30)


@pytest.mark.parametrize("change, text", [
    ({"ack_policy": "none", "max_deliver": None}, 'ack_policy is "none"'),
    ({"ack_policy": "all"}, 'ack_policy is "all"'),
    ({"filter_subject": "outrigger.inval.east.rule"}, 'filter_subject is "outrigger.inval.east.rule"'),
    ({"max_deliver": 5}, "max_deliver is 5"),
    ({"deliver_policy": "new"}, 'deliver_policy is "new"'),
], ids=lambda p: "" if isinstance(p, dict) else p.replace('"', "").replace(" is ", "-"))
def test_a_consumer_that_drops_events_and_can_not_be_changed(server, sidecar, change, text):
    nats = server(CONSUMER)
    make_stream(nats)
    make_consumer(nats, **change)
    west = sidecar("west", nats)
    says(west, "east: connected, but nothing is received: the consumer to_west drops events, and can not be changed", text)
    assert text in log_of(west)


def test_a_consumer_that_may_be_changed_is_put_right(server, sidecar):
    nats = server([])
    make_stream(nats)
    make_consumer(nats, filter_subject="outrigger.inval.east.rule", max_deliver=5, max_ack_pending=100)
    sidecar("west", nats).wait("ready")
    config = raw_nats.request(nats.port, "$JS.API.CONSUMER.INFO.INVAL_east.to_west")["config"]
    assert config["max_deliver"] == -1 and not config.get("filter_subject") and config["max_ack_pending"] == 20000


def test_an_account_that_may_make_nothing(server, sidecar):
    """An operator has made all of it, with the settings that `nats kv add` has."""
    nats = server(["$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.UPDATE.>", *CONSUMER])
    for region in ("east", "west"):
        make_stream(nats, region)
        for bucket in ("RULES", "ROLES", "CURSOR"):
            name = f"{bucket}_{region}"
            make(nats, {"name": f"KV_{name}", "subjects": [f"$KV.{name}.>"], "max_msgs_per_subject": 1, "discard": "new", "allow_rollup_hdrs": True, "deny_delete": True})
    make_consumer(nats)
    east, west = sidecar("east", nats), sidecar("west", nats)
    east.wait()
    until(lambda: "bus: receiving the invalidations of region east" in log_of(west), "west to hear east")
    growth = Growth(west)
    with Wire(east.port) as wire:
        assert wire.delete("a") == b"NOT_FOUND\r\n"
    status, text = east.http("POST", "/invalidate", timeout=DEADLINE, body={"patterns": ["p*"]})
    assert status == 200, text
    growth.reaches(2, metrics.BUS_APPLIED)


def test_an_account_that_may_not_ask(server, sidecar):
    """Nothing is answered then; the text says what was asked for."""
    nats = server(["$JS.API.STREAM.INFO.INVAL_east", "$JS.API.CONSUMER.INFO.INVAL_east.to_west"])
    make_stream(nats)
    says(sidecar("east", nats), "stream INVAL_east is not known: JetStream does not answer to STREAM.INFO; perhaps this account may not ask for it")
    says(sidecar("west", nats), "JetStream does not answer to CONSUMER.INFO; perhaps this account may not ask for it")


def test_waiting_with_an_account_that_may_not_ask(server, sidecar):
    """Who has applied an invalidation is not known then, and the answer says why."""
    nats = server(["$JS.API.CONSUMER.INFO.INVAL_east.>"])
    make_stream(nats)
    east = sidecar("east", nats)
    east.wait()
    status, text = east.http("POST", "/invalidate?wait=regions&timeout=8s", timeout=DEADLINE, body={"keys": ["k"]})
    (west,) = json.loads(text)["regions"]
    assert status == 504 and west["region"] == "west" and west["reason"] == "no_answer"
    assert "JetStream does not answer to CONSUMER.INFO; perhaps this account may not ask for it" in west["message"]
