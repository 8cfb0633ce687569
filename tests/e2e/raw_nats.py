"""A NATS client of a few lines, to publish what no sidecar would."""

import json
import socket

NEVER = "0001-01-01T00:00:00Z"  # the creation of a stream in the making


def publish(port: int, *messages: "tuple[str, bytes]") -> None:
    """Publishes (subject, payload) pairs and returns when the server has them all."""
    with socket.create_connection(("127.0.0.1", port), 10) as s, s.makefile("rb") as lines:
        assert lines.readline().startswith(b"INFO ")
        s.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        for subject, payload in messages:
            s.sendall(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        s.sendall(b"PING\r\n")
        answer = lines.readline()
        assert answer == b"PONG\r\n", answer


def request(port: int, subject: str, body: object = "") -> dict:
    """Asks JetStream's API, and returns its answer."""
    payload = json.dumps(body).encode() if body != "" else b""
    with socket.create_connection(("127.0.0.1", port), 10) as s, s.makefile("rb") as lines:
        assert lines.readline().startswith(b"INFO ")
        s.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.raw 1\r\nPUB %s _INBOX.raw %d\r\n%s\r\n'
                  % (subject.encode(), len(payload), payload))
        while True:
            line = lines.readline()
            if line.startswith(b"MSG "):
                return json.loads(lines.read(int(line.split()[-1])))
            assert line.startswith((b"PING", b"PONG", b"+OK")), line
            if line.startswith(b"PING"):
                s.sendall(b"PONG\r\n")


def message(port: int, stream: str, what: dict) -> dict:
    """A message of a stream, {} if there is none. A stream that is just being made is asked for nothing: nats-server 2.9 would end."""
    info = request(port, f"$JS.API.STREAM.INFO.{stream}")
    if info.get("created", NEVER) == NEVER:
        return {}
    return request(port, f"$JS.API.STREAM.MSG.GET.{stream}", what).get("message", {})
