"""The admin API: entries as the memcached protocols see them, where a key is at home, regions, the configuration; and who may ask."""

import base64
import http.client
import json
import os
import random
import re
import subprocess
import threading
from urllib.parse import quote, quote_from_bytes

import pytest

import openapi
from local import schema
from local.cluster import Cluster
from local.memcached import Memcached
from support import DEADLINE, ROOT, Wire, in_threads, until
from through import NAMESPACES, prepare

TOKEN = "a-token-of-the-tests"
RELATIVE_MAX = 30 * 24 * 3600


@pytest.fixture(scope="module")
def cluster(watch, directory):
    namespaces = [*NAMESPACES, {"prefix": "told:", "on_set": "invalidate"},
                  {"prefix": "stored:", "read": "through", "write": "through", "source": {"kind": "entries"}}]
    config = {"namespaces": namespaces, "database": {"timeout": "20s"}}

    def prepared(db):
        prepare(db)
        schema.create(db, "outrigger")
    with Cluster(directory, regions=("east", "west"), prepare=prepared, config=config) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def west(cluster):
    return cluster["west"].outrigger


@pytest.fixture(scope="module")
def api(west):
    return openapi.Api(west.admin_port)


@pytest.fixture
def wire(west):
    with Wire(west.port) as wire:
        yield wire


names = iter(range(1_000_000))


def fresh(cluster) -> str:
    name = f"api{next(names)}"
    cluster.primary.query("INSERT INTO packages (name, version) VALUES (%s, 'old')", (name,), cluster.schema)
    return name


# ---- entries of an aside namespace

def test_value_with_headers(api, wire, west):
    assert wire.set("plain", b"\0\xffvalue\r\n", flags=7, exptime=300) == b"STORED\r\n"
    answer = api.ask("GET", "/cache/plain")
    assert answer.status == 200 and answer.body == b"\0\xffvalue\r\n"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    said = {name: answer.headers["X-Outrigger-" + name] for name in ("State", "Flags", "Namespace", "Region")}
    assert said == {"State": "hit", "Flags": "7", "Namespace": "default", "Region": "west"}
    assert 0 < int(answer.headers["X-Outrigger-Ttl"]) <= 300
    assert int(answer.headers["X-Outrigger-Version"]) == wire.gets("plain")[2]
    assert answer.headers["X-Outrigger-Timestamp"].startswith("20") and answer.headers["X-Outrigger-Timestamp"].endswith("Z")
    head = api.ask("HEAD", "/cache/plain")
    assert head.status == 200 and head.body == b"" and head.headers["Content-Length"] == "9"


def test_json(api, wire):
    wire.set("json", "wört".encode(), flags=1)
    entry = api.json("GET", "/cache/json")
    assert entry["value"] == "wört" and entry["key"] == "json" and entry["flags"] == 1 and entry["ttl"] == -1
    assert int(entry["version"]) == wire.gets("json")[2]
    wire.set("json", b"\xff\0")
    entry = api.json("GET", "/cache/json")
    assert "value" not in entry and base64.b64decode(entry["value64"]) == b"\xff\0"


def test_miss(api):
    answer = api.ask("GET", "/cache/nothing-there")
    assert answer.status == 404 and answer.headers["X-Outrigger-State"] == "miss"
    assert json.loads(answer.body)["error"]["code"] == "not_found"
    assert api.ask("DELETE", "/cache/nothing-there").status == 404


@pytest.mark.parametrize("method", ["SET", "PUT"])
def test_set(api, wire, method):
    answer = api.ask(method, "/cache/stored-by-http?ttl=60&flags=4294967295", b"a\r\nb\0c")
    assert answer.status == 200 and json.loads(answer.body)["result"] == "stored"
    value, flags, cas = wire.gets("stored-by-http")
    assert (value, flags) == (b"a\r\nb\0c", 4294967295)
    assert answer.headers["X-Outrigger-Version"] == str(cas)
    assert 0 < int(api.ask("GET", "/cache/stored-by-http").headers["X-Outrigger-Ttl"]) <= 60


def test_long_ttl(api):
    """Seconds from now, whatever memcached makes of more than thirty days."""
    wanted = RELATIVE_MAX + 1000
    assert api.ask("SET", f"/cache/long?ttl={wanted}", b"1").status == 200
    assert RELATIVE_MAX < int(api.ask("GET", "/cache/long").headers["X-Outrigger-Ttl"]) <= wanted + 1  # memcached rounds


def test_empty_and_large_values(api, wire):
    assert api.ask("SET", "/cache/empty", b"").status == 200
    assert wire.get("empty") == b""
    large = os.urandom(900_000)
    assert api.ask("PUT", "/cache/large", large).status == 200
    assert wire.get("large") == large
    assert api.ask("GET", "/cache/large").body == large
    assert base64.b64decode(api.json("GET", "/cache/large")["value64"]) == large
    answer = api.ask("PUT", "/cache/large", b"x" * (1 << 20) + b"x")
    assert answer.status == 413 and json.loads(answer.body)["error"]["code"] == "too_large"
    assert wire.get("large") == large  # refused, nothing was changed


@pytest.mark.parametrize("method", ["DEL", "DELETE"])
def test_delete(api, wire, method):
    wire.set("doomed", b"1")
    answer = api.ask(method, "/cache/doomed")
    assert answer.status == 200 and json.loads(answer.body)["result"] == "deleted"
    assert wire.get("doomed") is None
    assert api.ask(method, "/cache/doomed").status == 404


def test_any_key(api, wire):
    """Every byte there is, in keys of up to 186 bytes (what base64 leaves), and 250 where the text protocol can say them."""
    keys = [bytes([i]) for i in range(256)] + [b"a b", b"\0", b"100%", b"a/b?c#d", b"..", b"a/../b", "ключ".encode(), bytes(range(186)), b"k" * 250]
    for key in keys:
        path = "/cache/" + quote_from_bytes(key, safe="")
        value = os.urandom(4)
        assert api.ask("SET", path, value).status == 200, key
        assert api.ask("GET", path).body == value, key
        entry = api.json("GET", path)
        assert entry.get("key", "").encode() == key or base64.b64decode(entry.get("key64", "")) == key
    assert wire.get("a/b?c#d") is not None and wire.get("100%") is not None  # the same keys as the text protocol's
    assert api.ask("GET", "/cache/a/b%3Fc%23d").status == 200  # a '/' may stand as it is
    answer = api.ask("SET", "/cache/" + quote("\0" * 187), b"1")
    assert answer.status == 400 and json.loads(answer.body)["error"]["code"] == "refused"
    for path in ("/cache/", "/cache/" + "k" * 251):
        assert api.ask("GET", path).status == 400


# ---- read-through, write-through

def test_loaded_then_hit(api, cluster, wire):
    name = fresh(cluster)
    answer = api.ask("GET", f"/cache/version:{name}")
    assert answer.status == 200 and answer.body == b"old" and answer.headers["X-Outrigger-State"] == "loaded"
    assert answer.headers["X-Outrigger-Namespace"] == "version"
    until(lambda: api.ask("GET", f"/cache/version:{name}").headers["X-Outrigger-State"] == "hit", "the fill")
    answer = api.ask("GET", "/cache/version:no-such-row")
    assert answer.status == 404 and answer.headers["X-Outrigger-State"] == "miss"
    until(lambda: api.ask("GET", "/cache/version:no-such-row").headers["X-Outrigger-State"] == "negative", "the negative fill")


def test_peek(api, cluster, wire):
    """It shows what is there and changes nothing: whoever reads next finds it as it was."""
    name = fresh(cluster)
    path = f"/cache/version:{name}"
    answer = api.ask("GET", path + "?peek=1")
    assert answer.status == 404 and answer.headers["X-Outrigger-State"] == "miss"
    assert api.ask("GET", path).headers["X-Outrigger-State"] == "loaded"  # it had loaded nothing
    until(lambda: api.ask("GET", path + "?peek=1").headers["X-Outrigger-State"] == "hit", "the fill")
    assert api.ask("GET", path + "?peek=1").body == b"old"
    assert wire.delete(f"version:{name}") == b"DELETED\r\n"
    first = api.ask("GET", path + "?peek=1")
    assert first.status == 404 and first.headers["X-Outrigger-State"] == "tombstone" and int(first.headers["X-Outrigger-Ttl"]) <= 30
    for _ in range(3):
        again = api.ask("GET", path + "?peek=1")
        assert again.headers["X-Outrigger-State"] == "tombstone"
        assert again.headers["X-Outrigger-Version"] == first.headers["X-Outrigger-Version"]
    assert json.loads(first.body)["entry"]["state"] == "tombstone"
    assert api.ask("GET", path + "?peek=0").headers["X-Outrigger-State"] == "loaded"  # the lease could be won: it was given back
    api.ask("GET", "/cache/version:never-there")
    until(lambda: api.ask("GET", "/cache/version:never-there?peek=1").headers["X-Outrigger-State"] == "negative", "the negative entry")


def test_peek_at_a_lease(api, cluster, wire):
    """While somebody loads, a peek shows the lease and waits for nobody."""
    name = fresh(cluster)
    lock = cluster.primary.connect(cluster.schema)
    with lock, lock.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('gate', 10)")
        wire.send(b"get gated:%s\r\n" % name.encode())
        until(lambda: api.ask("GET", f"/cache/gated:{name}?peek=1").headers["X-Outrigger-State"] == "lease", "the lease")
        cursor.execute("SELECT RELEASE_LOCK('gate')")
    assert wire.until(b"END\r\n").startswith(b"VALUE ")


def test_delete_of_a_loaded_key_is_told(api, cluster):
    name = fresh(cluster)
    east = openapi.Api(cluster["east"].outrigger.admin_port)
    for region in (api, east):
        region.ask("GET", f"/cache/version:{name}")
    until(lambda: east.ask("GET", f"/cache/version:{name}?peek=1").headers["X-Outrigger-State"] == "hit", "the fill in east")
    cluster.primary.query("UPDATE packages SET version = 'new' WHERE name = %s", (name,), cluster.schema)
    assert api.ask("DEL", f"/cache/version:{name}").status == 200
    until(lambda: east.ask("GET", f"/cache/version:{name}").body == b"new", "the invalidation in east")
    assert api.ask("GET", f"/cache/version:{name}").body == b"new"


def test_write_through(api, cluster):
    assert api.ask("SET", "/cache/stored:one?flags=5", b"1").status == 200
    rows = cluster.primary.query("SELECT value, flags FROM outrigger_entries WHERE cache_key = 'stored:one'", database=cluster.schema)
    assert [(row["value"], row["flags"]) for row in rows] == [(b"1", 5)]
    assert api.ask("GET", "/cache/stored:one").headers["X-Outrigger-State"] == "hit"
    assert api.ask("DEL", "/cache/stored:one").status == 200
    assert not cluster.primary.query("SELECT 1 FROM outrigger_entries WHERE cache_key = 'stored:one'", database=cluster.schema)
    assert api.ask("GET", "/cache/stored:one").status == 404


# ---- where, and how

def test_route(api, cluster, west, wire):
    nodes = {node.address: node for node in cluster["west"].nodes}
    for i in range(20):
        wire.set(f"routed{i}", b"1")
        route = api.json("GET", f"/route?key=routed{i}")
        with Wire(nodes[route["node"]["address"]].port) as node:
            assert node.get(f"routed{i}") == b"1"  # where it says
        assert route["node"]["is_up"] is True and route["nodes"] == 2
    route = api.json("GET", "/route?key=version:a+b%2B")
    assert route["key"] == "version:a b+" and route["region"] == "west"
    assert route["namespace"]["name"] == "version" and route["namespace"]["read"] == "through"
    for bad in ("/route", "/route?key=", "/route?key=%zz", "/route?key=" + "k" * 251):
        answer = api.ask("GET", bad)
        assert answer.status == 400 and json.loads(answer.body)["error"]["code"] == "bad_key"


def test_route_to_a_node_that_is_down(api, cluster, west):
    node = cluster["west"].nodes[0]
    key = next(f"down{i}" for i in range(1000) if api.json("GET", f"/route?key=down{i}")["node"]["address"] == node.address)
    node.kill()
    until(lambda: api.json("GET", f"/route?key={key}")["node"]["is_up"] is False, "the node being seen to be down")
    for method in ("GET", "SET", "DEL"):
        answer = api.ask(method, f"/cache/{key}")
        assert answer.status == 503 and json.loads(answer.body)["error"]["code"] == "server_error"
        assert node.address in json.loads(answer.body)["error"]["message"]
    assert api.ask("GET", f"/cache/{key}?peek=1").status == 503
    node.start()
    until(lambda: api.json("GET", f"/route?key={key}")["node"]["is_up"] is True, "the node being seen to be up")
    west.wait("ready")


def test_regions(api, cluster):
    with Wire(cluster["east"].outrigger.port) as east:
        east.delete("told:anything")

    def seen():
        own, peer = api.json("GET", "/regions")["regions"]
        return (own, peer) if peer["applied"] > 0 and peer["last_seen"] else None
    own, peer = until(seen, "an invalidation of east")
    assert (own["region"], own["is_own"], own["is_connected"]) == ("west", True, True)
    assert (peer["region"], peer["is_own"], peer["is_connected"], peer["problem"]) == ("east", False, True, None)
    assert peer["lag_ms"] >= 0 and peer["backlog"] >= 0 and peer["received"] >= peer["applied"] > 0


def test_regions_of_which_one_is_away(api, cluster):
    nats = cluster["east"].nats
    nats.kill()
    peer = until(lambda: next((r for r in api.json("GET", "/regions")["regions"] if r["region"] == "east" and not r["is_connected"]), None), "the loss")
    until(lambda: "not connected" in (api.json("GET", "/regions")["regions"][1]["problem"] or ""), "the problem")
    assert peer["region"] == "east"
    nats.start()
    for region in ("east", "west"):
        cluster[region].outrigger.wait("ready")


def test_config(api, cluster, west):
    text = api.ask("GET", "/config").body.decode()
    config = json.loads(text)
    assert config["region"] == "west" and config["max_value_size"] == "1MiB" and config["pool"]["timeout"]
    assert [n["address"] for n in config["pool"]["nodes"]] == [n.address for n in cluster["west"].nodes]
    assert config["database"]["password"] == "(hidden)" and cluster.password not in text
    assert {n["prefix"] for n in config["namespaces"]} >= {"version:", "told:", ""}
    assert config["database"]["timeout"] == "20s" and config["tls"] is None


def test_index(api):
    text = api.ask("GET", "/").body.decode()
    for path in ("/cache/{key}", "/route", "/regions", "/config", "/metrics"):
        assert path in text
    answer = api.ask("POST", "/cache/k")
    assert answer.status == 405 and {"GET", "HEAD", "SET", "PUT", "DEL", "DELETE"} <= set(answer.headers["Allow"].split(", "))


# ---- many, and hostile

def test_invalidations(api, cluster, wire):
    """By pattern, with the pattern in the path or many in a body; every answer is held against the document."""
    for key in ("hid:1", "hid/2", "hid:3", "hit"):
        wire.set(key, b"v")
    result, = json.loads(api.ask("INVALIDATE", "/cache/hid%3A%2A").body)["results"]
    assert result["pattern"] == "hid:*" and result["version"].isdigit()
    body = json.dumps({"keys": ["hit", "no-such"], "patterns": ["hid/*"]}).encode()
    answer = api.ask("POST", "/invalidate", body, {"Content-Type": "application/json; charset=utf-8"})
    assert answer.status == 200 and json.loads(answer.body)["failed"] == 0
    assert all(wire.get(key) is None for key in ("hid:1", "hid/2", "hid:3", "hit"))
    assert {"hid:*", "hid/*"} <= {rule["pattern"] for rule in api.json("GET", "/rules")["rules"]}
    for status, code, (method, path, body, kind) in (
            (415, "unsupported_media_type", ("POST", "/invalidate", b'{"keys":["a"]}', "text/plain")),
            (400, "invalid", ("POST", "/invalidate", b'{"keys":[]}', "application/json")),
            (400, "invalid", ("INVALIDATE", "/cache/%5B", None, "text/plain")),
            (400, "bad_path", ("INVALIDATE", "/cache/%5", None, "text/plain")),
            (413, "too_large", ("POST", "/invalidate", b"x" * ((1 << 20) + 1), "application/json"))):
        answer = api.ask(method, path, body, {"Content-Type": kind})
        assert answer.status == status and json.loads(answer.body)["error"]["code"] == code


def test_many_at_once(api, wire):
    wire.set("many", b"m" * 1000)

    def one():
        answers = [api.ask("GET", "/cache/many") for _ in range(25)]
        assert all((a.status, a.body) == (200, b"m" * 1000) or a.status == 429 for a in answers)
        return sum(a.status == 200 for a in answers)
    assert sum(in_threads([one] * 16)) > 0


def test_keep_alive_mixes(west):
    connection = http.client.HTTPConnection("127.0.0.1", west.admin_port, timeout=DEADLINE)
    randomly = random.Random(5)
    have = {}
    for _ in range(200):
        key = f"mix{randomly.randrange(10)}"
        method = randomly.choice(["GET", "SET", "DEL"])
        value = randomly.randbytes(randomly.randrange(2000)) if method == "SET" else None
        connection.request(method, f"/cache/{key}", body=value)
        answer = connection.getresponse()
        body = answer.read()
        if method == "GET":
            assert (answer.status, body if answer.status == 200 else None) == ((200, have[key]) if key in have else (404, None))
        elif method == "SET":
            assert answer.status == 200
            have[key] = value
        else:
            assert answer.status == (200 if have.pop(key, None) is not None else 404)
    connection.close()


def test_clients_that_go_away(api, west):
    """Half a body, or no interest in the answer: nobody else notices."""
    for text in (b"SET /cache/gone HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf", b"GET /cache/version:p1 HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"SET /cache/gone HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx") * 20:
        client = Wire(west.admin_port)
        client.send(text)
        client.reset()
    assert api.ask("GET", "/healthz").status == 200


# ---- who may ask

@pytest.fixture(scope="module")
def node(watch, directory):
    node = Memcached(directory, name="alone")
    try:
        yield node.start()
    finally:
        node.close()


def test_token_of_a_file(start, directory, node):
    (directory / "token").write_text(TOKEN + "\n")
    sidecar = start({"pool": {"nodes": [node.address]}, "admin": {"listen": f"unix:{directory}/admin.sock", "token_file": str(directory / "token")}}, until=None)
    path = directory / "admin.sock"
    sidecar.process.wait_until(lambda: path.exists() and openapi.Api(path).ask("GET", "/healthz").status == 200, "admin answering")
    without, wrong, right = openapi.Api(path), openapi.Api(path, TOKEN[:-1] + "x"), openapi.Api(path, TOKEN)
    for method, place in (("GET", "/cache/k"), ("SET", "/cache/k"), ("DEL", "/cache/k"), ("GET", "/config"), ("GET", "/metrics"), ("GET", "/"),
                          ("INVALIDATE", "/cache/*"), ("POST", "/invalidate"), ("GET", "/rules")):
        for caller in (without, wrong):
            answer = caller.ask(method, place, b'{"patterns":["*"]}' if method in ("SET", "POST") else None, {"Content-Type": "application/json"})
            assert answer.status == 401 and json.loads(answer.body)["error"]["code"] == "unauthorized"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    sidecar.process.wait_until(lambda: right.ask("GET", "/readyz").status == 200, "ready")
    assert right.ask("SET", "/cache/k", b"1").status == 200 and right.ask("GET", "/cache/k").body == b"1"
    assert TOKEN not in right.ask("GET", "/config").body.decode()
    assert right.json("GET", "/rules") == {"rules": []}  # none of those without the token did anything
    assert right.ask("INVALIDATE", "/cache/*").status == 200 and right.ask("GET", "/cache/k").status == 404


def test_public_needs_a_token(directory, binary, node):
    """--check says so."""
    path = directory / "public.yaml"
    path.write_text(f"pool: {{nodes: ['{node.address}']}}\nadmin: {{listen: '0.0.0.0:9411', public: true}}\n")
    done = subprocess.run([binary, "--config", path, "--check"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "public.yaml:2: admin.public: what other hosts can reach needs token or token_file" in done.stderr


def test_stop_with_requests_under_way(start, node):
    """SIGTERM while a worker waits for a node that hangs: the client is told, and the process ends well."""
    sidecar = start({"pool": {"nodes": [node.address], "timeout": "2s"}})
    node.process.pause()
    try:
        client = Wire(sidecar.admin_port)
        client.send(b"GET /cache/k HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: sidecar.metrics().total("outrigger_requests_total", command="mg") == 1, "the request")
        thread = threading.Thread(target=sidecar.stop)
        thread.start()
        assert b" 503 " in client.line()
        thread.join()
    finally:
        node.process.resume()


# ---- the document

def test_document_and_routes_agree():
    """Every route of the server's table is in docs/openapi.yaml, and the other way round."""
    table = (ROOT / "proxy/admin/routes.c").read_text()
    routes = set(re.findall(r'^    \{"([A-Z]+)", "([^"]+)", \w+, "', table, re.M))
    assert len(routes) >= 12
    assert set(openapi.Document().operations()) == routes


def test_every_error_code_is_in_the_document():
    document = openapi.Document().root
    known = set(document["components"]["schemas"]["Error"]["properties"]["code"]["enum"])
    used = set()
    for path in (ROOT / "proxy/admin").glob("*.c"):
        text = path.read_text()
        for pattern in (r'http_response_error\([^;]*?, "([a-z_]+)"', r'"code", "([a-z_]+)"', r'(?:MHD_HTTP_\w+|\{\d+), "([a-z_]+)"'):
            used |= set(re.findall(pattern, text))
    used |= {"refused", "server_error"}
    assert used == known
