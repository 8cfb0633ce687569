"""NATS servers that want to know who comes, and TLS: for this region's and for each peer's, with what goes wrong said in words that help."""

import json
import time
from pathlib import Path

import pytest

from certificates import Certificate
from local.memcached import Memcached
from local.nats import Nats
from local.outrigger import Outrigger
from local.parallel import in_parallel
from nkeys import Key, Operator
from support import Wire, log_of, until

PASSWORD = "not in any log"


class Place:
    """A region with one sidecar. `extra`: what its NATS is configured with; `access`: what a sidecar has to say to be let in."""

    def __init__(self, directory: Path, name: str, scheme: str = "nats", extra: str = "", access: dict = {}):
        self.name, self.access = name, access
        self.nats = Nats(directory / name, name=f"{name}-nats", extra=extra)
        self.url = f"{scheme}://localhost:{self.nats.port}"
        self.node = Memcached(directory, name=f"{name}-memcached")
        self.sidecar = None
        self._directory = directory

    def peer(self) -> dict:
        return {"region": self.name, "url": self.url, **self.access}

    def add_sidecar(self, peers) -> None:
        self.sidecar = Outrigger(self._directory, {
            "region": self.name, "threads": 2, "pool": {"nodes": [self.node.address]},
            "bus": {"url": self.url, **self.access, "relays": 1, "stream_max_bytes": "64MiB", "peers": [p.peer() for p in peers]}}, name=f"{self.name}-outrigger")

    def close(self) -> None:
        for server in (self.sidecar, self.node, self.nats):
            if server is not None:
                server.close()


class Secrets:
    """Authorities, certificates and keys."""

    def __init__(self, directory: Path):
        directory.mkdir()
        self.ca, self.other_ca = Certificate(directory, "ca"), Certificate(directory, "other-ca")
        self.server = Certificate(directory, "server", self.ca)
        self.client = Certificate(directory, "client", self.ca)
        self.stranger = Certificate(directory, "stranger", self.other_ca)
        self.key, self.other_key = (Key(directory, name, "user") for name in ("known", "unknown"))
        self.operator = Operator(directory / "operator")
        self.credentials = self.operator.credentials("outrigger")
        self.password_file = directory / "password"
        self.password_file.write_text(PASSWORD + "\n")

    def server_tls(self, more: str = "") -> str:
        return f"tls {{ cert_file: {json.dumps(str(self.server.path))}, key_file: {json.dumps(str(self.server.key))}, timeout: 5, {more} }}\n"

    def tls(self, **more) -> dict:
        return {"ca": str(self.ca.path), **{k: str(v) for k, v in more.items()}}


@pytest.fixture(scope="module")
def secrets(directory):
    return Secrets(directory / "secrets")


@pytest.fixture(scope="module")
def places(watch, directory, secrets):
    verify = f"ca_file: {json.dumps(str(secrets.ca.path))}, verify: true"
    word = json.dumps(PASSWORD)
    users = (f'authorization {{ users: [{{user: "outrigger", password: {word}}},\n'
             f'{{user: "owner", password: {word}, permissions: {{publish: ["outrigger.inval.narrow.>", "$KV.>", "$JS.API.>"], subscribe: "_INBOX.>"}}}},\n'
             f'{{user: "reader", password: {word}, permissions: {{publish: ["$JS.API.>", "$JS.ACK.>"], subscribe: "_INBOX.>"}}}}] }}\n')
    nkeys = f"authorization {{ users: [{{nkey: {secrets.key.public}}}] }}\n"
    list_of = [
        Place(directory, "open"),
        Place(directory, "tls", "tls", secrets.server_tls(), {"tls": secrets.tls()}),
        Place(directory, "mutual", "nats", secrets.server_tls(verify),
              {"tls": secrets.tls(certificate=secrets.client.path, key=secrets.client.key)}),
        Place(directory, "password", "tls", secrets.server_tls() + users,
              {"user": "outrigger", "password_file": str(secrets.password_file), "tls": secrets.tls()}),
        Place(directory, "nkey", "nats", nkeys, {"nkey": secrets.key.public, "nkey_file": str(secrets.key.seed_file)}),
        Place(directory, "creds", "nats", secrets.operator.server_config, {"credentials_file": str(secrets.credentials)}),
    ]
    places = {place.name: place for place in list_of}
    for place in list_of[1:]:
        place.add_sidecar([])
    places["open"].add_sidecar(list_of[1:])
    try:
        in_parallel([server.start for place in list_of for server in (place.nats, place.node)])
        in_parallel([place.sidecar.start for place in list_of])
        yield places
    finally:
        for place in list_of:
            place.close()


def arrives(here, there: int, key: str) -> None:
    """A delete in a region is heard at a port of another."""
    with Wire(here.sidecar.port) as origin, Wire(there) as wire:
        assert wire.set(key, b"1") == b"STORED\r\n"
        assert origin.delete(key) == b"NOT_FOUND\r\n"
        until(lambda: wire.get(key) is None, f"{key} gone")


SECURED = ("tls", "mutual", "password", "nkey", "creds")


@pytest.mark.parametrize("name", SECURED)
def test_let_in_by_the_own_nats_and_by_a_peers(places, name):
    """The region's own sidecar publishes (a delete is only answered once its stream has it), and the peer's receives."""
    arrives(places[name], places["open"].sidecar.port, f"secured-{name}")
    log = log_of(places[name].sidecar) + log_of(places["open"].sidecar)
    assert PASSWORD not in log


def wrongs(secrets, places) -> dict:
    """What is wrong, and what is said about it."""
    def peer(name: str, **changes) -> dict:
        peer = {**places[name].peer(), **changes}
        return {key: value for key, value in peer.items() if value is not None}
    mutual = places["mutual"].access["tls"]
    return {
        "another authority": (peer("tls", tls={"ca": str(secrets.other_ca.path)}), ["no TLS with it", "unable to get local issuer certificate", "tls.ca"]),
        "the system's authorities": (peer("tls", tls=None), ["no TLS with it", "unable to get local issuer certificate"]),
        "another name": (peer("tls", tls=secrets.tls(server_name="nats.example")), ["no TLS with it", "tls.server_name"]),
        "nats:// for a server that wants TLS": (peer("tls", url=places["tls"].nats.url, tls=None), ["no TLS with it", "unable to get local issuer certificate"]),
        "TLS that is not there": (peer("nkey", url=places["nkey"].url.replace("nats://", "tls://")), ["it does not speak TLS"]),
        "no certificate": (peer("mutual", tls=secrets.tls()), ["tls.certificate"]),
        "another authority's certificate": (
            peer("mutual", tls={**mutual, "certificate": str(secrets.stranger.path), "key": str(secrets.stranger.key)}), ["tls.certificate"]),
        "another password": (peer("password", password="guessed", password_file=None), ["it refuses our user and password", "look at user and password"]),
        "no password": (peer("password", user=None, password_file=None), ["it refuses no credentials at all", "give credentials_file, nkey or user"]),
        "another nkey": (peer("nkey", nkey=secrets.other_key.public, nkey_file=str(secrets.other_key.seed_file)), ["it refuses our nkey"]),
        "two halves of nkeys": (peer("nkey", nkey_file=str(secrets.other_key.seed_file)), ["it refuses our nkey", "do they belong together"]),
        "expired credentials": (
            peer("creds", credentials_file=str(secrets.operator.credentials("expired", time.time() - 60))), ["it refuses our credentials", "expired"]),
        "the password in the url": (
            peer("password", user=None, password_file=None, url=f"tls://outrigger:guessed@localhost:{places['password'].nats.port}"),
            ["it refuses the user and password of the url", "look at url"]),
    }


@pytest.fixture(scope="module")
def wronged(watch, directory, places, secrets):
    """A sidecar with a peer for each thing that can be wrong, and one that is right."""
    cases = wrongs(secrets, places)
    peers = [{**peer, "region": f"wrong-{i}"} for i, (peer, _) in enumerate(cases.values())]
    sidecar = Outrigger(directory, {
        "region": "north", "threads": 2, "pool": {"nodes": [places["open"].node.address]},
        "bus": {"url": places["open"].url, "relays": 0, "stream_max_bytes": "64MiB", "peers": [*peers, places["password"].peer()]}}, name="north-outrigger")
    try:
        sidecar.start("listening")
        yield sidecar, cases
    finally:
        sidecar.close()


def lines_of(sidecar) -> dict:
    """What /readyz says of each peer."""
    status, text = sidecar.http("GET", "/readyz")
    assert status == 503
    found = next(line for line in text.splitlines() if line.startswith("bus: "))
    return dict(part.split(": ", 1) for part in found[len("bus: "):].replace(", wrong-", "\nwrong-").split("\n"))


def test_what_is_wrong_is_said_for_each_region(wronged):
    sidecar, cases = wronged
    problems = []
    for i, (what, (_, words)) in enumerate(cases.items()):
        def is_said() -> bool:
            said = lines_of(sidecar)[f"wrong-{i}"]
            return all(word in said for word in words) and f"bus.peers[{i}]" in said
        try:
            until(is_said, what)
        except Exception as e:
            problems.append(f"{what}: {e}: {lines_of(sidecar).get(f'wrong-{i}')}")
    assert not problems, "\n".join(problems)
    # More peers fail in one second than the log takes of one kind of line: some must be there, which ones is chance.
    assert "bus: no connection to the NATS of region wrong-" in log_of(sidecar)
    assert PASSWORD not in log_of(sidecar) and "guessed" not in log_of(sidecar)


def test_the_others_do_not_notice(wronged, places):
    sidecar, _ = wronged
    arrives(places["password"], sidecar.port, "unharmed")
    with Wire(sidecar.port) as wire:
        assert wire.delete("unharmed") == b"NOT_FOUND\r\n"  # published
    assert sidecar.metrics().total("outrigger_bus_connected", peer="password") == 1


def test_what_is_wrong_can_be_put_right_without_a_restart(directory, places, secrets, start):
    """A credentials file that has expired, and a certificate of the wrong authority, are replaced by good ones."""
    credentials = directory / "rotated.creds"
    credentials.write_text(secrets.operator.credentials("old", time.time() - 60).read_text())
    certificate = Certificate(directory, "rotated", secrets.other_ca)
    mutual = {**places["mutual"].access["tls"], "certificate": str(certificate.path), "key": str(certificate.key)}
    sidecar = start({"region": "up", "pool": {"nodes": [places["open"].node.address]}, "bus": {
        "url": places["open"].url, "relays": 0, "stream_max_bytes": "64MiB",
        "peers": [{**places["creds"].peer(), "credentials_file": str(credentials)}, {**places["mutual"].peer(), "tls": mutual}]}}, "listening")
    until(lambda: "it refuses our credentials" in sidecar.http("GET", "/readyz")[1], "the old credentials being refused")
    until(lambda: "look at tls.certificate" in sidecar.http("GET", "/readyz")[1].lower(), "the old certificate being refused")
    credentials.write_text(secrets.credentials.read_text())
    secrets.client.put(certificate.path, certificate.key)
    sidecar.wait("ready")
    arrives(places["creds"], sidecar.port, "rotated-credentials")
    arrives(places["mutual"], sidecar.port, "rotated-certificate")


def test_a_peer_is_told_what_this_regions_nats_is_told(places, start):
    """What a peer does not say is as for this region's own NATS."""
    here = places["password"]
    sidecar = start({"region": "heir", "pool": {"nodes": [places["open"].node.address]}, "bus": {
        "url": here.url, **here.access, "relays": 0, "stream_max_bytes": "64MiB", "peers": [{"region": "password", "url": here.url}]}})
    arrives(here, sidecar.port, "inherited")


def test_accounts_with_no_more_rights_than_needed(places, start):
    """What docs/operations.md says that a sidecar needs in its own region, and at a peer."""
    here = places["password"]
    narrow = Place(here.nats.directory, "narrow")
    narrow.sidecar = start({"region": "narrow", "pool": {"nodes": [here.node.address]}, "bus": {
        "url": here.url, **here.access, "user": "owner", "relays": 1, "stream_max_bytes": "64MiB",
        "peers": [{"region": "password", **here.access, "url": here.url}]}})
    reader = start({"region": "reader", "pool": {"nodes": [places["open"].node.address]}, "bus": {
        "url": places["open"].url, "stream_max_bytes": "64MiB",
        "peers": [{"region": "narrow", "url": here.url, **here.access, "user": "reader"}]}})
    arrives(narrow, reader.port, "narrow")
    for sidecar in (narrow.sidecar, reader):
        assert "bus: NATS connection to region" not in log_of(sidecar)  # Not Permitted, it would say
