"""NATS's keys (ed25519, in base32 with a checksum), the tokens that they sign, and credentials files: what `nk` and `nsc` make elsewhere."""

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Optional

_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_SEED = 18 << 3


def _openssl(*arguments: object, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=True).stdout


def _with_checksum(data: bytes) -> str:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(data + crc.to_bytes(2, "little")).decode().rstrip("=")


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Key:
    """A key pair of an operator, account or user, with its private key as a file in `directory`."""

    def __init__(self, directory: Path, name: str, kind: str):
        self.name, self.kind = name, kind
        self._pem = directory / f"{name}.pem"
        _openssl("genpkey", "-algorithm", "ed25519", "-out", self._pem)
        private = _openssl("pkey", "-in", self._pem, "-outform", "DER")[-32:]
        public = _openssl("pkey", "-in", self._pem, "-pubout", "-outform", "DER")[-32:]
        prefix = _KINDS[kind]
        self.public = _with_checksum(bytes([prefix]) + public)
        self.seed = _with_checksum(bytes([_SEED | prefix >> 5, (prefix & 31) << 3]) + private)
        self.seed_file = directory / f"{name}.nk"
        self.seed_file.write_text(self.seed + "\n")
        self._directory = directory

    def sign(self, subject: "Key", claims: Dict[str, Any], expires: Optional[float] = None) -> str:
        """A token by which this key vouches for another (or itself)."""
        body = {"jti": subject.name, "iat": int(time.time()) - 3600, "iss": self.public, "name": subject.name, "sub": subject.public,
                "nats": {**claims, "type": subject.kind, "version": 2}}
        if expires is not None:
            body["exp"] = int(expires)
        text = ".".join(_url64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        unsigned = self._directory / "unsigned"
        unsigned.write_text(text)
        return f"{text}.{_url64(_openssl('pkeyutl', '-sign', '-rawin', '-inkey', self._pem, '-in', unsigned))}"


class Operator:
    """An operator with an account that may use JetStream, and the system's account, for a server that knows its users by their tokens."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._operator, self.account, system = (Key(directory, name, kind) for name, kind in
                                                (("operator", "operator"), ("account", "account"), ("system", "account")))
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams", "consumer"), -1)
        limits["wildcards"] = True
        tokens = {key.public: self._operator.sign(key, {"limits": limits if key is self.account else {**limits, "mem_storage": 0, "disk_storage": 0}})
                  for key in (self.account, system)}
        self.server_config = (f"operator: {self._operator.sign(self._operator, {'system_account': system.public})}\n"
                              f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {json.dumps(tokens)}\n")

    def credentials(self, name: str, expires: Optional[float] = None) -> Path:
        """A user's credentials file."""
        user = Key(self._directory, name, "user")
        limits = {"subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
        token = self.account.sign(user, limits, expires)
        path = self._directory / f"{name}.creds"
        path.write_text(f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
                        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n")
        return path
