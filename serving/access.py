"""Who may call what: tokens and client certificates, each with the permissions it was given.

A line of the file names a client, what it may do, and how it shows who it is:

    # NAME   PERMISSIONS   SECRET
    shop     read,publish  sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
    billing  read          certificate:billing.example.com

Tokens are random and long, so one SHA-256 hides them as well as anything: who reads the file cannot
call the server with what it says.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from domain.clock import Clock
from domain.errors import ConfigError, PermissionDeniedError, UnauthenticatedError
from serving.reloaded_file import ReloadedFiles

Permission: TypeAlias = Literal["read", "publish", "admin"]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)

METADATA_KEY = "authorization"
_SCHEME = "bearer "
_NAME = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_CERTIFICATE = re.compile(r"certificate:(\S{1,253})")
_TOKEN_BYTES = 32
_MAX_TOKEN_LENGTH = 512
_CERTIFICATE_NAMES = ("x509_common_name", "x509_subject_alternative_name")
_EXPECTED = "expected NAME PERMISSIONS sha256:64-HEX-DIGITS, or certificate:NAME at the end"

_OF_SERVICE: Mapping[str, Permission] = {
    "Recommender": "read",
    "Retrieval": "read",
    "Ranking": "read",
    "Drift": "read",
    "Events": "publish",
}
"""What a service's methods ask for; a service that is not here asks for "admin"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Who may call.

    Attributes:
        tokens: file with one client a line, see `serving.access`; empty lets everybody do
            everything who reaches the port. Changes are used within a second.
    """

    tokens: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that showed who it is."""

    name: str
    permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of a file.

    Attributes:
        tokens: by SHA-256 of their token.
        certificates: by common name, or alternative name, of their certificate.
    """

    tokens: Mapping[bytes, Caller]
    certificates: Mapping[str, Caller]

    def of_token(self, token: str) -> Caller | None:
        """Return whose token this is; takes the same time whoever it is."""
        given = hashlib.sha256(token.encode()).digest()
        found = None
        for digest, caller in self.tokens.items():
            if hmac.compare_digest(digest, given):
                found = caller
        return found

    def of_names(self, names: Iterable[str]) -> Caller | None:
        """Return whose verified certificate carries one of these names."""
        return next((self.certificates[name] for name in names if name in self.certificates), None)


class Access:
    """Decides for each call who it comes from and whether it may."""

    def __init__(self, config: AccessConfig, clock: Clock) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, naming the line.
        """
        path = Path(config.tokens)
        self._clients = (
            ReloadedFiles((path,), lambda: read_clients(path), clock) if config.tokens else None
        )

    @property
    def open(self) -> bool:
        """Return whether everybody may do everything."""
        return self._clients is None

    def caller(
        self, metadata: Mapping[str, str], certificate: Mapping[str, Iterable[bytes]]
    ) -> Caller | None:
        """Return who calls; None when everybody may.

        Args:
            metadata: of the call.
            certificate: what gRPC found out about the other side (`auth_context`).

        Raises:
            UnauthenticatedError: there is neither a known token nor a known certificate.
        """
        if self._clients is None:
            return None
        clients = self._clients.current()
        given = metadata.get(METADATA_KEY, "")
        if given:
            token = given[len(_SCHEME) :].strip()
            caller = None
            if given.lower().startswith(_SCHEME) and len(token) <= _MAX_TOKEN_LENGTH:
                caller = clients.of_token(token)
            if caller is None:
                raise UnauthenticatedError(
                    f"the token is not known; expected metadata {METADATA_KEY}: Bearer TOKEN"
                )
            return caller
        caller = clients.of_names(_names(certificate))
        if caller is None:
            raise UnauthenticatedError(
                f"expected metadata {METADATA_KEY}: Bearer TOKEN, or a certificate that is listed"
            )
        return caller


def check_permission(caller: Caller | None, method: str) -> None:
    """Check that a caller may call a method, "/headrace.v1.Events/Publish"; None is everybody.

    Raises:
        PermissionDeniedError: naming the permission.
    """
    needed = permission_of(method)
    if caller is not None and needed not in caller.permissions:
        raise PermissionDeniedError(f"{caller.name} has no permission to {needed}")


def permission_of(method: str) -> Permission:
    """Return what a method of ours asks for.

    >>> permission_of("/headrace.v1.Events/Publish"), permission_of("/headrace.v1.Admin/Promote")
    ('publish', 'admin')
    """
    service = method.split("/")[1].rpartition(".")[2]
    return _OF_SERVICE.get(service, "admin")


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def client_line(name: str, permissions: Iterable[str], token: str) -> str:
    """Return the line of a file that lets a token in.

    Raises:
        ConfigError: name or permissions are not what a line may hold.
    """
    digest = hashlib.sha256(token.encode()).hexdigest()
    line = f"{name} {','.join(permissions)} sha256:{digest}"
    _parse(line, "tokens")
    return line


def read_clients(path: Path) -> Clients:
    """Read the clients of a file.

    Raises:
        ConfigError: naming the line; never quoting it, in case somebody put a token there.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"server.access.tokens: {path} cannot be read: {reason}") from error
    tokens: dict[bytes, Caller] = {}
    certificates: dict[str, Caller] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"server.access.tokens: {path}:{number}"
        caller, kind, secret = _parse(line, where)
        if kind == "token":
            twice = tokens.setdefault(bytes.fromhex(secret), caller) is not caller
        else:
            twice = certificates.setdefault(secret, caller) is not caller
        if twice:
            raise ConfigError(f"{where}: this {kind} is listed twice")
    if not tokens and not certificates:
        raise ConfigError(f"server.access.tokens: {path} lists no client, so nobody could call")
    return Clients(tokens, certificates)


def _parse(line: str, where: str) -> tuple[Caller, Literal["token", "certificate"], str]:
    parts = line.split()
    if len(parts) != 3:
        raise ConfigError(f"{where}: {_EXPECTED}")
    name, permissions, secret = parts
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of letters, digits, '.', '_' and '-'")
    granted = frozenset(one for one in PERMISSIONS if one in permissions.split(","))
    if len(granted) != len(permissions.split(",")):
        raise ConfigError(
            f"{where}: expected permissions out of {', '.join(PERMISSIONS)}, joined by commas"
        )
    caller = Caller(name, granted)
    if token := _SHA256.fullmatch(secret):
        return caller, "token", token[1]
    if certificate := _CERTIFICATE.fullmatch(secret):
        return caller, "certificate", certificate[1]
    raise ConfigError(f"{where}: {_EXPECTED}")


def _names(certificate: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the names in a client's verified certificate; none without mutual TLS."""
    return [
        name.decode(errors="replace")
        for key in _CERTIFICATE_NAMES
        for name in certificate.get(key, ())
    ]
