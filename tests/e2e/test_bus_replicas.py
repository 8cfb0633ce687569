"""stream_replicas: 3, on a NATS of three servers: any one of them may be killed, and nobody notices but for a moment. Two regions."""

import pytest

import raw_nats
from local.memcached import Memcached
from local.nats import Nats, NatsCluster
from local.outrigger import Outrigger
from local.parallel import in_parallel
from support import Wire, until

LONG = 60.0  # for elections of the servers, and what asks again after them


@pytest.fixture(scope="module")
def servers(watch, directory):
    """East with three servers, west with one; a sidecar and a node each."""
    nats = NatsCluster(directory, name="east-nats")
    other = Nats(directory / "west", name="west-nats")
    nodes = [Memcached(directory, name=f"node-{i}") for i in range(2)]
    east = Outrigger(directory, {"region": "east", "threads": 2, "pool": {"nodes": [nodes[0].address]}, "bus": {
        "url": nats.url, "stream_replicas": 3, "stream_max_bytes": "64MiB", "publish_timeout": "20s",
        "peers": [{"region": "west", "url": other.url}]}}, name="east-outrigger")
    west = Outrigger(directory, {"region": "west", "threads": 2, "pool": {"nodes": [nodes[1].address]}, "bus": {
        "url": other.url, "ack_wait": "1s", "peers": [{"region": "east", "url": nats.url}]}}, name="west-outrigger")
    try:
        in_parallel([server.start for server in (nats, other, *nodes)])
        in_parallel([east.start, west.start])
        yield nats, east, west
    finally:
        for server in (east, west, *nodes, nats, other):
            server.close()


def stream(nats, *names: str) -> dict:
    """What the first server that can says of a stream."""
    server = next(s for s in nats.servers if s.process.is_running)
    return raw_nats.request(server.port, f"$JS.API.STREAM.INFO.{names[0] if names else 'INVAL_east'}")


def is_whole(nats) -> bool:
    cluster = stream(nats)["cluster"]
    return bool(cluster.get("leader")) and len(cluster["replicas"]) == 2 and all(r["current"] for r in cluster["replicas"])


@pytest.mark.parametrize("which", ["leader", "another"])
def test_a_server_is_killed_while_deletes_are_published(servers, which):
    nats, east, west = servers
    for name in ("INVAL_east", "KV_RULES_east", "KV_ROLES_east"):
        until(lambda n=name: stream(nats, n)["config"]["num_replicas"] == 3, f"{name} with three replicas", LONG)
    until(lambda: is_whole(nats), "three replicas", LONG)
    leader = stream(nats)["cluster"]["leader"]
    victim = next(s for s in nats.servers if (s.name == leader) == (which == "leader"))
    keys = [f"{which}-{i}" for i in range(400)]
    with Wire(west.port) as there, Wire(east.port, timeout=60) as here:
        for key in keys:
            assert there.set(key, b"1") == b"STORED\r\n"
        for i, key in enumerate(keys):
            if i == 100:
                victim.kill()
            answer = here.delete(key)
            if i >= 100 and answer.startswith(b"SERVER_ERROR"):  # without a spool: not told, so to be sent again
                until(lambda: here.delete(key) == b"NOT_FOUND\r\n", f"{key} being published by the two that are left", LONG)
            else:
                assert answer == b"NOT_FOUND\r\n"
        for key in keys:
            until(lambda: there.get(key) is None, f"{key} gone from west", LONG)
    assert not victim.process.is_running
    victim.start()
    until(lambda: is_whole(nats), "three replicas again", LONG)
