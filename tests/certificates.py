"""Certificates for tests: an authority, those it signed, and one that nobody knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.needed_tools import need

_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Authority:
    """Signs certificates for 127.0.0.1 in a folder of its own; keys are small, so it is quick."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        need("openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificate = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        self._run(
            f"req -x509 {_NEW_KEY} -days 2 -subj /CN={name} "
            f"-keyout {self._key} -out {self.certificate}"
        )
        (folder / "san.cnf").write_text("subjectAltName=IP:127.0.0.1\n")

    def sign(self, name: str) -> tuple[Path, Path]:
        """Make a key and a certificate with this common name; returns certificate and key."""
        key, request, signed = (self.folder / f"{name}.{one}" for one in ("key", "csr", "crt"))
        self._run(f"req {_NEW_KEY} -subj /CN={name} -keyout {key} -out {request}")
        self._run(
            f"x509 -req -days 2 -in {request} -CA {self.certificate} -CAkey {self._key} "
            f"-CAcreateserial -extfile san.cnf -out {signed}"
        )
        return signed, key

    def lock(self, key: Path) -> Path:
        """Return a copy of a key that asks for a password."""
        locked = key.with_suffix(".locked")
        self._run(f"ec -aes128 -passout pass:xyzzy -in {key} -out {locked}")
        return locked

    def _run(self, arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True
        )
