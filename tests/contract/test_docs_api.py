"""Every example of docs/api.md runs, and its table of errors is the one the server uses."""

from __future__ import annotations

import re
import shlex
from itertools import count
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from domain.features import FeatureSchema, Field, Head
from monitoring.drift_signal import DriftSignal
from monitoring.signal_store import FILE_NAME, SignalStore
from protos.headrace.v1 import (
    admin_pb2,
    drift_pb2,
    events_pb2,
    ranking_pb2,
    recommender_pb2,
    retrieval_pb2,
)
from serving.failures import reasons
from serving.packed_texts import unpack_texts
from serving.server import SERVICE_NAMES
from snapshot.local_store import LocalSnapshotStore
from tests.unit.serving import running_server
from tests.unit.serving.worlds import CatalogRetriever, make_known, make_models

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
TEXT = PAGE.read_text(encoding="utf-8")
FENCE = re.compile(r"(<!-- goes on -->\n)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HERE = "127.0.0.1:50051"
SCHEMA = FeatureSchema(
    fields=(
        Field(name="device", entity="context", kind="categorical"),
        Field(name="country", entity="user", kind="categorical"),
        Field(name="genres", entity="item", kind="multi"),
        Field(name="minutes", entity="item", kind="numeric"),
    ),
    heads=(Head(name="click", feedback_kind="click"),),
)
BLOCKS = [(bool(goes_on), kind, text) for goes_on, kind, text in FENCE.findall(TEXT)]
ALONE = [text for goes_on, kind, text in BLOCKS if kind == "python" and not goes_on]
TOGETHER = "\n".join(text for goes_on, kind, text in BLOCKS if kind == "python" and goes_on)
GRPCURL = [text.replace("\\\n", " ") for _, kind, text in BLOCKS if not kind and "grpcurl" in text]


def service_methods() -> dict:
    """Our methods by service and name, as the protos describe them."""
    services = [
        service
        for module in (
            admin_pb2,
            drift_pb2,
            events_pb2,
            ranking_pb2,
            recommender_pb2,
            retrieval_pb2,
        )
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    return {service.full_name: dict(service.methods_by_name) for service in services}


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(running_server, "SCHEMA", SCHEMA)
    running = running_server.RunningServer(tmp_path)
    running.start()
    models = make_models(
        "s1", schema=SCHEMA, retriever=CatalogRetriever([f"film-{n}" for n in range(10)])
    )
    make_known(models, "ann", "film-9")
    running.serve("s1", lambda: models)
    store = LocalSnapshotStore(tmp_path / "snapshots")
    for step in (1, 2, 3):
        store.publish(
            {}, positions={"events/0": step}, step=step, event_time_ms=step, schema_hash="h"
        )
    store.close()
    signals = SignalStore(tmp_path / FILE_NAME)
    signals.write(
        [
            DriftSignal(
                stream="loss/click",
                kind="concept",
                detector="adwin",
                time_ms=20,
                since_ms=10,
                before=0.2,
                after=0.5,
                deviations=4.0,
                points_before=40,
                points_after=10,
            )
        ]
    )
    signals.close()
    yield running
    running.close()


@pytest.mark.parametrize("code", [*ALONE, TOGETHER], ids=count())
def test_python_example_runs(server, code, capsys):
    names: dict = {}
    exec(compile(code.replace(HERE, server.address), str(PAGE), "exec"), names)
    if "headrace" in names:
        names["headrace"].close()
    if "signal" in names:
        assert "loss/click rose" in capsys.readouterr().out


@pytest.mark.parametrize("command", GRPCURL, ids=lambda command: command.split("/")[-1].strip())
def test_grpcurl_example_is_answered(server, command):
    """Do what grpcurl does: JSON into the method's message, and call."""
    words = shlex.split(command)
    address, method = words[-2:]
    assert words[:2] == ["grpcurl", "-plaintext"]
    assert address == HERE
    service, _, name = method.partition("/")
    described = service_methods()[service][name]
    given = words[words.index("-d") + 1] if "-d" in words else "{}"
    given = given.replace("SNAPSHOT", snapshot_of(server))
    requests = [
        json_format.Parse(text, GetMessageClass(described.input_type)())
        for text in re.split(r"(?<=\})\s+(?=\{\"number)", given)
    ]
    answers = call(server, described, requests)
    assert len(answers) == len(requests)
    assert not any(b"INVALID_FIELD" in answer.SerializeToString() for answer in answers)


def call(server, described, requests) -> list:
    kind = (
        ("stream" if described.client_streaming else "unary")
        + "_"
        + ("stream" if described.server_streaming else "unary")
    )
    with grpc.insecure_channel(server.address) as channel:
        method = getattr(channel, kind)(
            f"/{described.containing_service.full_name}/{described.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        asked = iter(requests) if described.client_streaming else requests[0]
        if not described.server_streaming:
            return [method(asked, timeout=10)]
        answers = method(asked, timeout=10)
        return [next(answers) for _ in requests]


def snapshot_of(server) -> str:
    store = server.services.snapshots
    return store.list()[0].snapshot_id


def test_every_method_has_an_example_and_stands_in_the_table():
    for service, methods in service_methods().items():
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{service}`"))
        assert re.findall(r"`(\w+)`", row) == list(methods)
        for method in methods:
            assert any(command.rstrip().endswith(f"{service}/{method}") for command in GRPCURL)
    assert set(service_methods()) == set(SERVICE_NAMES)


def test_table_of_errors_is_the_one_that_is_used():
    listed = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", TEXT, re.MULTILINE)
    assert dict(listed) == {reason: code.name for reason, code in reasons().items()}
    assert len(listed) == len(reasons())


def test_packed_ids_of_the_page_are_what_the_server_reads():
    names: dict = {}
    exec(next(code for code in ALONE if "shape" in code), names)
    assert unpack_texts("", names["data"], names["shape"]) == tuple(names["ids"])
