"""How a Kafka cluster is entered: TLS certificates, a user name, and a password that stays unseen.

A password is never a setting: settings are written to files, shown and compared. They name the
environment variable or the file that holds it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from domain.errors import ConfigError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_T = TypeVar("_T")

_KEY = "kafka.security"
_ABOUT_TLS = ("ca_file", "cert_file", "key_file")
_ABOUT_SASL = ("username", "password_env", "password_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """What a cluster asks for before it answers.

    Attributes:
        protocol: as the brokers' listener has it; SSL means TLS.
        ca_file: certificates (PEM) of who signs the brokers'; empty trusts those of the system.
        cert_file: our own certificate (PEM), for brokers that ask for one; empty is none.
        key_file: its private key (PEM, not encrypted); empty when `cert_file` holds it.
        check_hostname: whether a broker's certificate must name the host that we called.
        sasl_mechanism: how the password is proved.
        username: who we are, for SASL.
        password_env: environment variable that holds the password.
        password_file: file that holds the password; a line end after it is not part of it.
    """

    protocol: Protocol = "PLAINTEXT"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    check_hostname: bool = True
    sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    username: str = ""
    password_env: str = ""
    password_file: str = ""

    def __post_init__(self) -> None:
        for name, known in (
            ("protocol", get_args(Protocol)),
            ("sasl_mechanism", get_args(Mechanism)),
        ):
            if getattr(self, name) not in known:
                expected = ", ".join(known)
                raise ConfigError(
                    f"{_KEY}.{name} must be one of {expected}, got {getattr(self, name)!r}"
                )
        # A setting without effect would let somebody believe that she is protected.
        for names, used, needed in (
            (_ABOUT_TLS, self.uses_tls, "SSL or SASL_SSL"),
            (_ABOUT_SASL, self.uses_sasl, "SASL_SSL or SASL_PLAINTEXT"),
        ):
            for name in names:
                if getattr(self, name) and not used:
                    raise ConfigError(
                        f"{_KEY}.{name} is of use only with {_KEY}.protocol {needed}, "
                        f"which is {self.protocol}"
                    )
        if self.key_file and not self.cert_file:
            raise ConfigError(f"{_KEY}.key_file needs {_KEY}.cert_file beside it")
        if self.uses_sasl:
            self._reject_incomplete_sasl()

    @property
    def uses_tls(self) -> bool:
        """Return whether connections are encrypted."""
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        """Return whether we must say who we are."""
        return self.protocol in ("SASL_SSL", "SASL_PLAINTEXT")

    def _reject_incomplete_sasl(self) -> None:
        if not self.username:
            raise ConfigError(f"{_KEY}.username must not be empty with protocol {self.protocol}")
        if bool(self.password_env) == bool(self.password_file):
            raise ConfigError(
                f"{_KEY}.password_env or {_KEY}.password_file must be given, and not both, "
                f"with protocol {self.protocol}"
            )


class Secret(str):
    """Text that is used but never shown: printing, formatting or logging it gives three stars.

    >>> secret = Secret("open sesame")
    >>> print(secret, [secret], f"{secret}", "%s" % secret)
    *** [***] *** ***
    >>> "".join([secret])
    'open sesame'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"


def security_options(security: KafkaSecurity) -> dict[str, Any]:
    """Return what a client of the cluster is given; files and variables are read now.

    Raises:
        ConfigError: one of them is missing or is not what it should be; names the setting.
    """
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.uses_tls:
        # Made here once: the client would make one for every connection, and fail only there.
        options["ssl_context"] = _tls_context(security)
    if security.uses_sasl:
        options["sasl_mechanism"] = security.sasl_mechanism
        options["sasl_plain_username"] = security.username
        # The client writes all its options to its log when that is set to debug.
        options["sasl_plain_password"] = Secret(_password(security))
    return options


def _tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    context = _naming("ca_file", security.ca_file, lambda: _trusting(security.ca_file))
    context.check_hostname = security.check_hostname
    if security.cert_file:
        key_file = security.key_file or security.cert_file
        for name in ("cert_file", "key_file"):
            if getattr(security, name):
                _naming(name, getattr(security, name), Path(getattr(security, name)).read_bytes)

        def load() -> None:
            # Without an answer, Python would ask for the password of an encrypted key.
            context.load_cert_chain(security.cert_file, key_file, password=lambda: b"")

        _naming("key_file" if security.key_file else "cert_file", key_file, load)
    return context


def _trusting(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or None)


def _password(security: KafkaSecurity) -> str:
    if security.password_env:
        password = os.environ.get(security.password_env, "")
        where = f"{_KEY}.password_env: environment variable {security.password_env}"
    else:
        file = Path(security.password_file).expanduser()
        text = _naming("password_file", security.password_file, file.read_text)
        password, where = text.rstrip("\r\n"), f"{_KEY}.password_file: {security.password_file}"
    if not password:
        raise ConfigError(f"{where} is {'not set or ' if security.password_env else ''}empty")
    return password


def _naming(name: str, file: str, use: Callable[[], _T]) -> _T:
    """Call `use`; when it fails, say which setting and file it was about."""
    try:
        return use()
    except ssl.SSLError as error:
        reason = error.reason or "no certificate or key in PEM form, or they do not belong together"
        raise ConfigError(f"{_KEY}.{name}: {file}: {reason.lower().replace('_', ' ')}") from error
    except OSError as error:
        raise ConfigError(f"{_KEY}.{name}: {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_KEY}.{name}: {file}: is not UTF-8") from error
