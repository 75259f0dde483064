"""The file of a server's clients, from outside: one line is added."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from domain.errors import ConfigError
from serving.access import client_line, new_token, read_clients

_OWNER_ONLY = 0o600


def add_token(path: Path, name: str, permissions: Sequence[str]) -> str:
    """Add a client to a file, which is made if need be, and return its token.

    Raises:
        ConfigError: the name or a permission is none, or the file cannot be used by a server.
    """
    token = new_token()
    line = client_line(name, permissions, token)
    if path.exists():
        read_clients(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _OWNER_ONLY)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise ConfigError(f"--file: {path} cannot be written: {error.strerror}") from error
    return token
