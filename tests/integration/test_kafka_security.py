"""Entering a real broker that asks for TLS and a password: what works, and what a mistake says."""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.kafka.broker import KafkaBroker
from domain.errors import ConfigError, LogError, LogUnavailableError
from domain.events import UserUpdate
from stream.codec import decode
from stream.kafka_security import KafkaSecurity, Secret
from stream.kafka_settings import KafkaConfig
from tests.kafka_broker import (
    KafkaLog,
    UserScramCredentialUpsertion,
    admin,
    fresh_config,
    give_up,
    started,
)

PASSWORD = "open-Sesame-4711"
EVENT = UserUpdate(event_id="e", time_ms=1, user_id="u")

_LOGIN = "org.apache.kafka.common.security"
_LISTENERS = {"SASL": "SASL_SSL", "MUTUAL": "SSL"}


@dataclass(frozen=True)
class Secured:
    """A broker with a listener for passwords and one for client certificates."""

    broker: KafkaBroker
    config: KafkaConfig
    folder: Path

    def log(self, listener: str, **security: Any) -> KafkaLog:
        config = KafkaConfig(
            topic_prefix=self.config.topic_prefix,
            num_partitions=2,
            security=KafkaSecurity(protocol=_LISTENERS[listener], **security),  # type: ignore[arg-type]
        )
        return KafkaLog(self.broker.address(listener), config)

    def file(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    make_certificates(folder)
    with started(
        KafkaBroker(folder, listeners=_LISTENERS, properties=properties(folder))
    ) as broker:
        with admin(broker.bootstrap) as client:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                # One request each: a user cannot be altered twice in one.
                ann = UserScramCredentialUpsertion("ann", mechanism, PASSWORD)
                assert client.alter_user_scram_credentials([ann]) == {"ann": None}
        yield Secured(broker, fresh_config(at=broker.bootstrap), folder)


def properties(folder: Path) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.crt"),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f'{_LOGIN}.plain.PlainLoginModule required user_ann="{PASSWORD}";'
        ),
        **{
            f"listener.name.sasl.{name}.sasl.jaas.config": (
                f"{_LOGIN}.scram.ScramLoginModule required;"
            )
            for name in ("scram-sha-256", "scram-sha-512")
        },
    }


def make_certificates(folder: Path) -> None:
    """Make an authority, a broker's and a client's certificate, and an authority nobody knows."""
    if shutil.which("openssl") is None:
        give_up("certificates for a broker need openssl installed")
    for name in ("ca", "stranger"):
        openssl(folder, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} "
                f"-keyout {name}.key -out {name}.crt")  # fmt: skip
    (folder / "san.cnf").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("broker", "client"):
        openssl(folder, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key "
                f"-out {name}.csr")  # fmt: skip
        openssl(folder, f"x509 -req -days 2 -in {name}.csr -CA ca.crt -CAkey ca.key "
                f"-CAcreateserial -extfile san.cnf -out {name}.crt")  # fmt: skip
        both = (folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text()
        (folder / f"{name}.pem").write_text(both)
    openssl(folder, "rsa -aes128 -passout pass:x -in client.key -out locked.key")


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)


def check_it_works(log: KafkaLog) -> None:
    with closing(log):
        start = log.end_positions()
        log.append([EVENT])
        (record,) = log.read(start, max_records=10, timeout_s=10.0)
        assert decode(record.value) == EVENT


def check_it_is_refused(log: KafkaLog, message: str) -> None:
    """Check that one line says why, and that nobody is told to try again."""
    with closing(log), pytest.raises(LogError, match=message) as caught:
        log.end_positions()
    assert not isinstance(caught.value, LogUnavailableError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_password_from_a_variable_opens_the_log(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    check_it_works(
        secured.log(
            "SASL",
            ca_file=secured.file("ca.crt"),
            sasl_mechanism=mechanism,
            username="ann",
            password_env="KAFKA_PASSWORD",
        )
    )


def test_password_from_a_file_opens_the_log(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    file = str(tmp_path / "password")
    ca_file = secured.file("ca.crt")
    check_it_works(secured.log("SASL", ca_file=ca_file, username="ann", password_file=file))


@pytest.mark.parametrize("files", [("client.pem", ""), ("client.crt", "client.key")])
def test_own_certificate_opens_the_log(secured: Secured, files: tuple[str, str]) -> None:
    cert_file, key_file = (secured.file(name) if name else "" for name in files)
    ca_file = secured.file("ca.crt")
    check_it_works(secured.log("MUTUAL", ca_file=ca_file, cert_file=cert_file, key_file=key_file))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_wrong_password_is_one_line_at_once_and_is_never_shown(
    secured: Secured,
    tmp_path: Path,
    mechanism: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = "close-Sesame-1174"
    (tmp_path / "password").write_text(wrong)
    caplog.set_level(logging.DEBUG, logger="kafka")
    log = secured.log(
        "SASL",
        ca_file=secured.file("ca.crt"),
        sasl_mechanism=mechanism,
        username="ann",
        password_file=str(tmp_path / "password"),
    )
    with closing(log), pytest.raises(LogError) as caught:
        log.append([EVENT])
    message = str(caught.value)
    assert not isinstance(caught.value, LogUnavailableError), "trying again would not help"
    assert f"login refused by {secured.broker.address('SASL')}: " in message
    assert "uthentication failed" in message
    assert "\n" not in message
    shown = message + caplog.text + repr(log._config) + repr(vars(log))
    assert "Starting KafkaAdminClient with configuration" in caplog.text
    assert wrong not in shown
    assert "***" in caplog.text


def test_refused_logins_leave_no_thread_behind(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    file = str(tmp_path / "password")
    ca_file = secured.file("ca.crt")
    log = secured.log("SASL", ca_file=ca_file, username="ann", password_file=file)
    before = set(threading.enumerate())
    with closing(log):
        for _ in range(2):
            with pytest.raises(LogError):
                log.append([EVENT])
    assert set(threading.enumerate()) <= before


def test_untrusted_certificate_is_one_line_at_once(secured: Secured) -> None:
    for ca_file in (secured.file("stranger.crt"), ""):
        check_it_is_refused(
            secured.log("MUTUAL", ca_file=ca_file), r"no TLS with .*CERTIFICATE_VERIFY_FAILED"
        )


def test_broker_that_asks_for_a_certificate_gets_none(secured: Secured) -> None:
    log = secured.log("MUTUAL", ca_file=secured.file("ca.crt"))
    check_it_is_refused(log, r"no TLS with .*bad certificate")


@pytest.mark.parametrize(
    ("listener", "protocol", "message"),
    [("PLAINTEXT", "SSL", "TLS handshake failed: .*EOF"), ("MUTUAL", "PLAINTEXT", "")],
)
def test_listener_of_another_protocol_says_what_was_seen(
    secured: Secured, listener: str, protocol: Any, message: str
) -> None:
    config = KafkaConfig(
        request_timeout_ms=700,
        append_timeout_ms=1_400,
        security=KafkaSecurity(protocol=protocol),
    )
    address = secured.broker.address(listener)
    log = KafkaLog(address, config)
    expected = f"no broker answers; {address}: {message}"
    with closing(log), pytest.raises(LogUnavailableError, match=expected):
        log.end_positions()


def test_files_that_are_wrong_are_named_with_their_setting(secured: Secured) -> None:
    no_pem, locked = secured.file("san.cnf"), secured.file("locked.key")
    certificate, other_key = secured.file("client.crt"), secured.file("broker.key")
    mistakes: list[tuple[dict[str, str], str]] = [
        ({"ca_file": "nowhere.pem"}, "kafka.security.ca_file: nowhere.pem: No such file"),
        ({"ca_file": no_pem}, f"kafka.security.ca_file: {no_pem}: no certificate or crl found"),
        ({"cert_file": "no.pem"}, "kafka.security.cert_file: no.pem: No such file"),
        ({"cert_file": certificate}, f"kafka.security.cert_file: {certificate}: "),
        (
            {"cert_file": certificate, "key_file": "no.key"},
            "kafka.security.key_file: no.key: No such file",
        ),
        (
            {"cert_file": certificate, "key_file": other_key},
            f"kafka.security.key_file: {other_key}: key values mismatch",
        ),
        (
            {"cert_file": certificate, "key_file": locked},
            f"kafka.security.key_file: {locked}: ",
        ),
    ]
    for security, message in mistakes:
        with pytest.raises(ConfigError) as caught:
            secured.log("MUTUAL", **security)
        assert str(caught.value).startswith(message)


def test_missing_passwords_are_named_with_their_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    (tmp_path / "empty").write_text("\n")
    sources = {
        "password_env": ("KAFKA_PASSWORD", "environment variable KAFKA_PASSWORD is not set"),
        "password_file": (f"{tmp_path}/empty", f"{tmp_path}/empty is empty"),
    }
    for name, (source, message) in sources.items():
        with pytest.raises(ConfigError, match=rf"^kafka\.security\.{name}: {message}"):
            KafkaLog("127.0.0.1:1", config_with(**{name: source}))


def config_with(**security: Any) -> KafkaConfig:
    return KafkaConfig(security=KafkaSecurity(protocol="SASL_SSL", username="ann", **security))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "TLS"}, "protocol must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"protocol": "SSL", "sasl_mechanism": "GSSAPI"}, "sasl_mechanism must be one of PLAIN, "),
        ({"ca_file": "ca.pem"}, "ca_file is of use only with kafka.security.protocol SSL or SASL"),
        (
            {"protocol": "SSL", "username": "ann"},
            "username is of use only with kafka.security.prot",
        ),
        ({"protocol": "SSL", "key_file": "k"}, "key_file needs kafka.security.cert_file"),
        ({"protocol": "SASL_SSL", "password_env": "P"}, "username must not be empty"),
        ({"protocol": "SASL_SSL", "username": "a"}, "password_env or kafka.security.password_file"),
        (
            {"protocol": "SASL_SSL", "username": "a", "password_env": "P", "password_file": "f"},
            "password_env or kafka.security.password_file must be given, and not both",
        ),
    ],
)
def test_security_names_the_setting_that_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaSecurity(**settings)
    assert str(caught.value).startswith(f"kafka.security.{message}")


def test_secret_is_used_and_not_shown() -> None:
    secret = Secret(PASSWORD)
    assert "\0".join(["ann", secret]).encode() == b"ann\0" + PASSWORD.encode()
    assert secret.encode() == PASSWORD.encode()
    for text in (
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>30}",
        f"{secret!r}",
        f"{[secret]}",
    ):
        assert PASSWORD not in text
