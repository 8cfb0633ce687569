"""A NATS server that says what none should: each time the connection is lost, in the log, and nobody else's business."""

import socket
import threading

import pytest

from local.memcached import Memcached
from support import DEADLINE, Wire, log_of, until

INFO = b'INFO {"server_id":"x","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}\r\n'
SAYINGS = {
    "half a message": b"MSG _INBOX.x 1 20000\r\n" + b"m" * 5000,
    "half a message with headers": b"HMSG _INBOX.x 1 12 20000\r\nNATS/1.0\r\n\r\n" + b"m" * 5000,
    "a message without a size": b"MSG _INBOX.x\r\n",
    "a negative size": b"MSG _INBOX.x 1 -5\r\n",
    "headers larger than the message": b"HMSG _INBOX.x 1 50 20\r\n" + b"m" * 20 + b"\r\n",
    "an unknown verb": b"HELO\r\n",
    "an error": b"-ERR 'whatever'\r\n",
    "half a line": b"MSG _INBOX.x 1 1",
    "another INFO that is none": b"INFO {\r\n",
    "bytes": bytes(range(256)) * 16,
}


class Scripted:
    """Lets one client after the other in, says the next saying once it is connected, and hangs up."""

    def __init__(self):
        self.said = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                try:
                    client.settimeout(DEADLINE)
                    client.sendall(INFO)
                    while (line := lines.readline()) and not line.startswith(b"PING"):
                        pass
                    client.sendall(b"PONG\r\n")
                    while (line := lines.readline()) and not line.startswith(b"PUB"):  # it takes us for its NATS
                        pass
                    client.sendall(list(SAYINGS.values())[self.said % len(SAYINGS)])
                except OSError:
                    continue  # it went first: the same saying once more
                self.said += 1

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def node(tmp_path):
    node = Memcached(tmp_path)
    yield node.start()
    node.close()


@pytest.fixture
def server():
    server = Scripted()
    yield server
    server.close()


def test_whatever_it_says(start, server, node):
    sidecar = start({"region": "east", "pool": {"nodes": [node.address]}, "bus": {"url": f"nats://127.0.0.1:{server.port}", "peers": []}}, until="listening")
    until(lambda: server.said >= 2 * len(SAYINGS), "all of it said, twice", 2 * DEADLINE)
    assert log_of(sidecar).count("no connection to the NATS of this region") >= 1
    assert sidecar.http("GET", "/readyz")[0] == 503
    with Wire(sidecar.port) as wire:
        assert wire.set("k", b"v") == b"STORED\r\n" and wire.get("k") == b"v"
