"""How to reach a server: address, TLS, token, and what gRPC itself is told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

REQUEST_ID_KEY = "x-request-id"

_MAX_MESSAGE_BYTES = 16 * 2**20
"""As the server's own default."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # Trying again is `client.retry`'s, which has a budget.
    ("grpc.enable_retries", 0),
    # A restarted server is found again within the pauses of a few retries.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Encrypted, with files in PEM format.

    Attributes:
        ca: authorities that the server's certificate is checked against; None: the system's.
        certificate: our own certificate, where the server asks for one (mutual TLS).
        key: the private key of `certificate`.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key come together, got only one of them")

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's form of it.

        Raises:
            OSError: a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )


def check_token(address: str, tls: Tls | None, token: str) -> None:
    """Refuse to send a token where others can read it.

    Raises:
        ValueError: there is a token, no TLS, and the server is on another machine.
    """
    if token and tls is None and not _is_local(address):
        raise ValueError(f"a token for {address} would travel unencrypted: give tls=Tls(...)")


def metadata(token: str, request_id: str) -> tuple[tuple[str, str], ...]:
    """Return what travels with every call."""
    sent = ((REQUEST_ID_KEY, request_id),)
    return (*sent, ("authorization", f"Bearer {token}")) if token else sent


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
