"""Certificates for tests, made with the openssl command in a directory of the test's."""

import ssl
import subprocess
from pathlib import Path
from typing import Optional


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stdout


class Certificate:
    """A key and its certificate, signed by `issuer`, or an authority that has signed itself. `valid_days` may be negative: expired."""

    def __init__(self, directory: Path, name: str, issuer: Optional["Certificate"] = None, valid_days: int = 2):
        self.name = name
        self.path, self.key = directory / f"{name}.crt", directory / f"{name}.key"
        request = directory / f"{name}.csr"
        extensions = directory / f"{name}.ext"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key)
        if issuer is None:
            _openssl("req", "-x509", "-new", "-key", self.key, "-subj", f"/CN={name}", "-days", valid_days, "-out", self.path)
            return
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl("req", "-new", "-key", self.key, "-subj", f"/CN={name}", "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", issuer.path, "-CAkey", issuer.key, "-set_serial", "7", "-extfile", extensions,
                 "-days", valid_days, "-out", self.path)

    def put(self, certificate: Path, key: Path) -> None:
        """Copies it to where a sidecar looks for it, as an operator would: a new file moved over the old one."""
        for source, target in ((self.path, certificate), (self.key, key)):
            fresh = target.with_suffix(".new")
            fresh.write_bytes(source.read_bytes())
            fresh.replace(target)


def client_context(authority: Certificate, own: Optional[Certificate] = None) -> ssl.SSLContext:
    """Trusts `authority` only, and shows `own` where it is asked for one."""
    context = ssl.create_default_context(cafile=str(authority.path))
    if own is not None:
        context.load_cert_chain(own.path, own.key)
    return context
