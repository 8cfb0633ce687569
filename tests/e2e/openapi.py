"""A client of the admin API that holds every answer against docs/openapi.yaml, with no more of a checker than that document needs."""

import http.client
import json
import re
import socket
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Union

import yaml

from support import DEADLINE, ROOT

DOCUMENT = ROOT / "docs/openapi.yaml"
EXTENSION = "x-outrigger-methods"  #: OpenAPI knows no other methods than HTTP's own: SET, DEL and the like are here


class Answer(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(self._path))


_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


class Document:
    def __init__(self, path: Path = DOCUMENT):
        self.root = yaml.safe_load(path.read_text())

    def resolve(self, node: Any) -> Any:
        while isinstance(node, dict) and "$ref" in node:
            target = self.root
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def operations(self) -> Dict["tuple[str, str]", dict]:
        """By method and path."""
        found = {}
        for path, item in self.root["paths"].items():
            for method, operation in list(item.items()) + list(item.get(EXTENSION, {}).items()):
                if method != EXTENSION and method != "parameters":
                    found[method.upper(), path] = self.resolve(operation)
        return found

    def operation(self, method: str, target: str) -> Optional[dict]:
        path = target.split("?")[0]
        method = "GET" if method == "HEAD" else method
        for (its, template), operation in self.operations().items():
            pattern = re.sub(r"\\\{\w+\\\}$", ".*", re.escape(template))
            if its == method and re.fullmatch(pattern, path, re.S):
                return operation
        return None

    def check_value(self, value: Any, schema: Any, where: str) -> None:
        schema = self.resolve(schema)
        if value is None:
            assert schema.get("nullable"), f"{where}: null"
            return
        kind = schema.get("type")
        if kind:
            assert isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool), f"{where}: {value!r} is no {kind}"
        assert value in schema.get("enum", [value]), f"{where}: {value!r} is none of {schema['enum']}"
        if kind == "object":
            for name in schema.get("required", []):
                assert name in value, f"{where}: without {name}"
            for name, inner in value.items():
                known = schema.get("properties", {})
                assert name in known or schema.get("additionalProperties", True), f"{where}.{name}: unknown"
                if name in known:
                    self.check_value(inner, known[name], f"{where}.{name}")
        for i, item in enumerate(value if kind == "array" else []):
            self.check_value(item, schema["items"], f"{where}[{i}]")

    def check(self, method: str, target: str, answer: Answer) -> None:
        where = f"{method} {target[:80]}: {answer.status}"
        operation = self.operation(method, target)
        if operation is None:
            assert answer.status in (400, 401, 404, 405), f"{where}: is not in {DOCUMENT.name}"
            return
        responses = operation["responses"]
        assert str(answer.status) in responses, f"{where}: no such status in {DOCUMENT.name}"
        response = self.resolve(responses[str(answer.status)])
        for name, header in response.get("headers", {}).items():
            assert name in answer.headers or not self.resolve(header).get("required"), f"{where}: without {name}"
        if method == "HEAD":
            return
        media = answer.headers["Content-Type"].split(";")[0]
        assert media in response["content"], f"{where}: {media}"
        schema = response["content"][media].get("schema")
        if media == "application/json" and schema:
            self.check_value(json.loads(answer.body), schema, where)


class Api:
    """A sidecar's admin API, by its port or its unix socket. Every answer is checked."""

    document = None

    def __init__(self, address: Union[int, Path], token: Optional[str] = None):
        self._address = address
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Dict[str, str]] = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._address, timeout=DEADLINE) if isinstance(self._address, int) \
            else _UnixConnection(self._address)
        try:
            connection.request(method, path, body=body, headers={**self._headers, **(headers or {})})
            response = connection.getresponse()
            answer = Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()
        if Api.document is None:
            Api.document = Document()
        Api.document.check(method, path, answer)
        return answer

    def json(self, method: str, path: str, body: Optional[bytes] = None) -> Any:
        answer = self.ask(method, path, body, {"Accept": "application/json"})
        assert answer.status == 200, answer
        return json.loads(answer.body)
