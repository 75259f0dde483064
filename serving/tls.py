"""TLS: the server's certificate and the authority of its clients, read again when they change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from domain.clock import Clock
from domain.errors import ConfigError
from serving.reloaded_file import ReloadedFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Files in PEM format; a change is used for connections made from then on.

    Attributes:
        certificate: the server's certificate, followed by those between it and its authority; empty
            means no TLS.
        key: the private key of the certificate, without a password.
        client_ca: authorities of client certificates. When given, who has none is turned away
            before a call is read (mutual TLS).
    """

    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            missing = "key" if self.certificate else "certificate"
            raise ConfigError(f"server.tls.{missing} is missing: a certificate needs its key")
        if self.client_ca and not self.certificate:
            raise ConfigError("server.tls.certificate is missing: server.tls.client_ca needs TLS")

    @property
    def enabled(self) -> bool:
        """Return whether the server speaks TLS."""
        return bool(self.certificate)


@dataclass(frozen=True, slots=True, repr=False)
class _Pem:
    key: bytes
    certificate: bytes
    client_ca: bytes | None


def server_credentials(config: TlsConfig, clock: Clock) -> grpc.ServerCredentials:
    """Return credentials that follow the files of `config`.

    Raises:
        ConfigError: a file cannot be read or is not what it should be, or the key is not that of
            the certificate.
    """
    names = (config.certificate, config.key, config.client_ca)
    files = ReloadedFiles(tuple(Path(name) for name in names if name), lambda: _read(config), clock)
    used = [files.current()]

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates, None when they are as before; gRPC asks at every handshake."""
        pem = files.current()
        if pem is used[0]:
            return None
        used[0] = pem
        return _configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used[0]), changed, require_client_authentication=bool(config.client_ca)
    )


def _configuration(pem: _Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.certificate)], root_certificates=pem.client_ca
    )


def _read(config: TlsConfig) -> _Pem:
    pem = _Pem(
        key=_content("key", config.key),
        certificate=_content("certificate", config.certificate),
        client_ca=_content("client_ca", config.client_ca) if config.client_ca else None,
    )
    # gRPC takes anything and then fails every handshake; the standard library says what is wrong.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.certificate, config.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"server.tls.key: {config.key} is not the key, in PEM and without a password, of the "
            f"certificate {config.certificate}: {_reason(error)}"
        ) from None
    if config.client_ca:
        try:
            context.load_verify_locations(config.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(
                f"server.tls.client_ca: {config.client_ca} holds no certificates in PEM: "
                f"{_reason(error)}"
            ) from None
    return pem


def _no_password() -> str:
    """Keep OpenSSL from asking on the terminal."""
    raise ValueError("it has a password")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def _content(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"server.tls.{name}: {path} cannot be read: {error.strerror}") from error
