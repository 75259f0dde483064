"""Who gets into a real gRPC server: TLS, certificates, tokens, and what a stranger is told."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from domain.errors import ConfigError
from protos.headrace.v1 import events_pb2, events_pb2_grpc, recommender_pb2, recommender_pb2_grpc
from serving.access import AccessConfig, client_line
from serving.quotas import QuotaConfig
from serving.server import ServerConfig
from serving.tls import TlsConfig
from tests.certificates import Authority
from tests.unit.serving.running_server import RunningServer, until
from tests.unit.serving.worlds import count, make_models

READER, WRITER = "token-of-the-reader", "token-of-the-writer"
REQUEST = recommender_pb2.RecommendRequest(user_id="ann", limit=2)


@dataclass(frozen=True)
class Secrets:
    folder: Path
    authority: Authority
    tls: TlsConfig
    stranger: Authority

    def both(self, authority: Authority | None = None, name: str = "client") -> tuple[bytes, bytes]:
        """Return key and certificate of a client."""
        certificate, key = (authority or self.authority).sign(name)
        return key.read_bytes(), certificate.read_bytes()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> Secrets:
    folder = tmp_path_factory.mktemp("secrets")
    authority = Authority(folder)
    certificate, key = authority.sign("server")
    return Secrets(
        folder=folder,
        authority=authority,
        tls=TlsConfig(certificate=str(certificate), key=str(key)),
        stranger=Authority(folder / "stranger", "stranger"),
    )


@pytest.fixture
def tokens(tmp_path) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_text(
        f"{client_line('reader', ['read'], READER)}\n"
        f"{client_line('writer', ['publish'], WRITER)}\n"
        "billing read certificate:billing\n"
    )
    return path


@pytest.fixture
def start(tmp_path):
    started = []

    def run(**config) -> RunningServer:
        server = RunningServer(tmp_path, server=ServerConfig(address="127.0.0.1:0", **config))
        started.append(server)
        server.start()
        server.serve("s1", lambda: make_models("s1"))
        return server

    yield run
    for running in started:
        running.close()


@contextmanager
def client(
    server: RunningServer, ca: Path, key: bytes | None = None, certificate: bytes | None = None
) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, certificate)
    with grpc.secure_channel(server.address, credentials) as channel:
        yield channel


def bearer(token: str) -> dict[str, object]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


def recommend(channel: grpc.Channel, **call) -> list[str]:
    stub = recommender_pb2_grpc.RecommenderStub(channel)
    return [item.item_id for item in stub.Recommend(REQUEST, timeout=5.0, **call).items]


def refused(call, *args, **kwargs) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return caught.value.code(), caught.value.details()


def test_over_tls_a_client_that_trusts_the_authority_is_answered_and_no_other(start, secrets):
    server = start(tls=secrets.tls)
    with client(server, secrets.authority.certificate) as channel:
        assert recommend(channel) == ["i9", "i8"]
    with client(server, secrets.stranger.certificate) as channel:
        assert refused(recommend, channel)[0] is grpc.StatusCode.UNAVAILABLE
    assert refused(recommend, server.channel)[0] is grpc.StatusCode.UNAVAILABLE  # without TLS


def test_mutual_tls_turns_away_who_has_no_certificate_of_the_authority(start, secrets):
    ca = secrets.authority.certificate
    tls = TlsConfig(certificate=secrets.tls.certificate, key=secrets.tls.key, client_ca=str(ca))
    server = start(tls=tls)
    with client(server, ca, *secrets.both()) as channel:
        assert recommend(channel) == ["i9", "i8"]
    for both in ((None, None), secrets.both(secrets.stranger)):
        with client(server, ca, *both) as channel:
            assert refused(recommend, channel)[0] is grpc.StatusCode.UNAVAILABLE


def test_names_of_certificates_stand_for_permissions(start, secrets, tokens):
    ca = secrets.authority.certificate
    tls = TlsConfig(certificate=secrets.tls.certificate, key=secrets.tls.key, client_ca=str(ca))
    server = start(tls=tls, access=AccessConfig(tokens=str(tokens)))
    with client(server, ca, *secrets.both(name="billing")) as channel:
        assert recommend(channel) == ["i9", "i8"]
        publish = events_pb2_grpc.EventsStub(channel).Publish
        code, said = refused(publish, events_pb2.PublishRequest(), timeout=5.0)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert said == "billing has no permission to publish"
    with client(server, ca, *secrets.both(name="nobody")) as channel:
        assert refused(recommend, channel)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert recommend(channel, **bearer(READER)) == ["i9", "i8"]


def test_tokens_let_each_client_do_what_it_may(start, tokens):
    server = start(access=AccessConfig(tokens=str(tokens)))
    publish = events_pb2_grpc.EventsStub(server.channel).Publish
    request = events_pb2.PublishRequest()
    assert recommend(server.channel, **bearer(READER)) == ["i9", "i8"]
    publish(request, timeout=5.0, **bearer(WRITER))
    may_not = grpc.StatusCode.PERMISSION_DENIED
    assert refused(publish, request, timeout=5.0, **bearer(READER))[0] is may_not
    assert refused(recommend, server.channel, **bearer(WRITER))[0] is may_not
    for call in ({}, bearer("guessed"), bearer("")):
        code, said = refused(recommend, server.channel, **call)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "authorization: Bearer TOKEN" in said
    counted = server.metrics.requests
    assert count(counted, method="recommend", code="UNAUTHENTICATED") == 3
    assert count(counted, method="publish", code="PERMISSION_DENIED") == 1


def test_health_is_open_and_reflection_is_for_known_callers(start, tokens):
    server = start(access=AccessConfig(tokens=str(tokens)))
    assert server.health_of("") == "SERVING"

    def services(channel) -> list[str]:
        return list(ProtoReflectionDescriptorDatabase(channel).get_services())

    code, _ = refused(services, server.channel)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    known = grpc.intercept_channel(server.channel, _Bearer(WRITER))
    assert "headrace.v1.Events" in services(known)
    assert DescriptorPool(ProtoReflectionDescriptorDatabase(known)).FindServiceByName(
        "headrace.v1.Events"
    )


class _Bearer(grpc.StreamStreamClientInterceptor):
    """Sends a token with the calls of a client that knows of none."""

    def __init__(self, token: str) -> None:
        self._metadata = bearer(token)["metadata"]

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=self._metadata), requests)


def test_a_token_that_is_taken_back_lets_nobody_in_any_more(start, tokens):
    server = start(access=AccessConfig(tokens=str(tokens)))
    assert recommend(server.channel, **bearer(READER))
    tokens.write_text(f"{client_line('writer', ['publish'], WRITER)}\n")

    def is_out() -> bool:
        try:
            recommend(server.channel, **bearer(READER))
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    until(is_out, 10.0)


def test_new_certificates_are_used_without_a_restart_and_bad_ones_are_not(
    start, secrets, tmp_path, caplog
):
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def install(authority: Authority) -> None:
        for made, place in zip(authority.sign("server"), (certificate, key), strict=True):
            shutil.copy(made, place)

    install(secrets.authority)
    server = start(tls=TlsConfig(certificate=str(certificate), key=str(key)))

    def answers(authority: Authority) -> bool:
        with client(server, authority.certificate) as channel:
            try:
                return recommend(channel) == ["i9", "i8"]
            except grpc.RpcError:
                return False

    assert answers(secrets.authority)
    key.write_text("half a key")
    with caplog.at_level(logging.ERROR):
        until(lambda: answers(secrets.authority) and "not the key" in caplog.text, 10.0)
    assert "half a key" not in caplog.text
    install(secrets.stranger)
    until(lambda: answers(secrets.stranger), 10.0)
    assert not answers(secrets.authority)


def test_a_client_over_its_quota_is_told_when_to_come_again(start, tokens):
    server = start(
        access=AccessConfig(tokens=str(tokens)), quota=QuotaConfig(calls_per_s=0.01, burst=2)
    )
    for _ in range(2):
        recommend(server.channel, **bearer(READER))
    with pytest.raises(grpc.RpcError) as caught:
        recommend(server.channel, **bearer(READER))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    after_ms = int(dict(caught.value.trailing_metadata())["retry-after-ms"])
    assert 90_000 < after_ms <= 100_000  # one call in 100 s
    assert count(server.metrics.over_quota) == 1
    # Others are not touched by it.
    events_pb2_grpc.EventsStub(server.channel).Publish(
        events_pb2.PublishRequest(), timeout=5.0, **bearer(WRITER)
    )


def test_guessing_tokens_uses_up_the_quota_of_an_address(start, tokens):
    server = start(
        access=AccessConfig(tokens=str(tokens)), quota=QuotaConfig(calls_per_s=0.01, burst=2)
    )
    codes = [refused(recommend, server.channel, **bearer(f"guess-{one}"))[0] for one in range(3)]
    assert codes[:2] == [grpc.StatusCode.UNAUTHENTICATED] * 2
    assert codes[2] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert recommend(server.channel, **bearer(READER)) == ["i9", "i8"]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.com:0", "10.0.0.1:0"])
def test_other_machines_are_let_in_with_tls_and_a_list_only(secrets, tokens, address):
    listed = AccessConfig(tokens=str(tokens))
    mutual = TlsConfig(
        certificate=secrets.tls.certificate,
        key=secrets.tls.key,
        client_ca=str(secrets.authority.certificate),
    )
    for open_ in ({"tls": secrets.tls, "access": listed}, {"tls": mutual}, {"insecure": True}):
        ServerConfig(address=address, **open_).check_exposure()
    for closed, lacks in (
        ({}, "lacks TLS (server.tls.certificate and server.tls.key) and a list of who may call"),
        ({"access": listed}, "lacks TLS (server.tls.certificate and server.tls.key); --insecure"),
        ({"tls": secrets.tls}, "lacks a list of who may call (server.access.tokens or "),
    ):
        with pytest.raises(ConfigError) as caught:
            ServerConfig(address=address, **closed).check_exposure()
        said = str(caught.value)
        assert said.startswith(f"server.address: {address} can be reached from other machines")
        assert lacks in said
        assert "\n" not in said


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:0", "[::1]:0", "localhost:0"])
def test_this_machine_is_let_in_without(address):
    ServerConfig(address=address).check_exposure()


def test_a_server_that_everybody_could_reach_does_not_start(tmp_path):
    with pytest.raises(ConfigError, match="--insecure lets everybody in"):
        RunningServer(tmp_path, server=ServerConfig(address="0.0.0.0:0"))


def test_bad_certificates_are_refused_in_one_line(tmp_path, secrets):
    certificate, key = secrets.tls.certificate, secrets.tls.key
    other = str(secrets.authority.sign("other")[1])
    locked = str(secrets.authority.lock(Path(key)))
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for files, said in (
        ({"certificate": certificate, "key": other}, f"{other} is not the key"),
        ({"certificate": certificate, "key": locked}, "it has a password"),
        ({"certificate": str(text), "key": key}, f"{key} is not the key"),
        ({"certificate": certificate, "key": str(tmp_path / "nope")}, "nope cannot be read: No "),
        (
            {"certificate": certificate, "key": key, "client_ca": str(text)},
            f"{text} holds no certificates in PEM",
        ),
    ):
        config = ServerConfig(address="127.0.0.1:0", tls=TlsConfig(**files))
        with pytest.raises(ConfigError) as caught:
            RunningServer(tmp_path, server=config)
        assert str(caught.value).startswith("server.tls.")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"certificate": "a"}, "server.tls.key is missing"),
        ({"key": "a"}, "server.tls.certificate is missing"),
        ({"client_ca": "a"}, "server.tls.certificate is missing"),
    ],
)
def test_tls_config_names_what_is_missing(setting, message):
    with pytest.raises(ConfigError, match=message):
        TlsConfig(**setting)


def test_health_over_tls_needs_no_token(start, secrets, tokens):
    server = start(tls=secrets.tls, access=AccessConfig(tokens=str(tokens)))
    with client(server, secrets.authority.certificate) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
