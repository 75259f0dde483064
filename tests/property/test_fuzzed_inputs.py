"""Whatever bytes come in, what comes out is an answer or one of our own errors, and never a crash.

Bytes are random, or those of something valid with some of them changed, which gets further in.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import symbol_database
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import ConfigError, DecodeError, SnapshotDamagedError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from protos.headrace.v1 import events_pb2, ranking_pb2, recommender_pb2, retrieval_pb2
from serving.access import client_line, read_clients
from serving.server import SERVICE_NAMES
from snapshot.local_store import LocalSnapshotStore
from snapshot.manifest import manifest_from_json
from snapshot.state_files import read_state, write_state
from stream.codec import decode, decode_record, encode, encode_json, event_to_message
from tests.unit.serving.running_server import RunningServer
from tests.unit.serving.worlds import make_models

EVENTS: tuple[Event, ...] = (
    Impression(
        event_id="e1",
        time_ms=1_000,
        user_id="ann",
        items=(ShownItem(item_id="i1", position=0, score=0.5),),
        context={"tab": "home", "hour": 3.0},
        snapshot_id="s1",
    ),
    Feedback(
        event_id="e2", time_ms=2_000, user_id="ann", item_id="i1", kind="click", impression_id="e1"
    ),
    ItemUpdate(event_id="e3", time_ms=3_000, item_id="i1", features={"tags": ("a", "b")}),
    UserUpdate(event_id="e4", time_ms=4_000, user_id="ann", features={"age": 30.0}),
)
_SYMBOLS = symbol_database.Default()
_REQUESTS = {
    "RecommendRequest": recommender_pb2.RecommendRequest(
        user_id="ann", limit=3, context={"tab": events_pb2.FeatureValue(text="home")}
    ),
    "RetrieveRequest": retrieval_pb2.RetrieveRequest(user_id="ann", limit=3, exclude_seen=True),
    "RankRequest": ranking_pb2.RankRequest(
        user_id="ann", item_ids=["i1", "i2"], context={"hour": events_pb2.FeatureValue(number=3.0)}
    ),
    "PublishRequest": events_pb2.PublishRequest(events=[event_to_message(one) for one in EVENTS]),
}
"""A valid request by the name of its message; of messages that are not here, an empty one."""
_OURS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE"}
"""How a call may end; INTERNAL and UNKNOWN mean that something was not thought of."""


@st.composite
def _mutated(draw: st.DrawFn, seed: bytes) -> bytes:
    """Some bytes of `seed` changed, put in, taken out, or repeated."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(start + draw(st.integers(0, 4)), len(data))
        piece = draw(st.binary(max_size=6) | st.just(bytes(data[start:end]) * 3))
        data[start:end] = piece
    return bytes(data)


def hostile(seed: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=64) | _mutated(seed)


def methods() -> list[tuple[str, bytes]]:
    """Every method of ours that takes one message, and a valid one."""
    found = []
    for name in SERVICE_NAMES:
        service = _SYMBOLS.pool.FindServiceByName(name)
        for method in service.methods:
            if not method.client_streaming and not method.server_streaming:
                request = _REQUESTS.get(method.input_type.name)
                wire = b"" if request is None else request.SerializeToString()
                found.append((f"/{name}/{method.name}", wire))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = RunningServer(tmp_path_factory.mktemp("fuzzed"))
    running.start()
    running.serve("s1", lambda: make_models("s1"))
    yield running
    assert running.recommend("ann").info.snapshot_id == "s1", "it answers as if nothing had been"
    running.close()


@pytest.mark.parametrize(("method", "seed"), methods())
def test_no_request_brings_a_server_to_say_what_it_did_not_mean_to(server, method, seed):
    call = server.channel.unary_unary(method)

    @settings(max_examples=40)
    @given(hostile(seed))
    def ends_in_our_words(data: bytes) -> None:
        try:
            call(data, timeout=10.0)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        assert code.name in _OURS, data

    ends_in_our_words()


def test_every_method_is_tried(server):
    tried = {method.rpartition("/")[2] for method, _ in methods()}
    assert tried >= {"Recommend", "Retrieve", "Rank", "Publish"}
    for method, seed in methods():
        if seed:
            server.channel.unary_unary(method)(seed, timeout=10.0)  # the seeds are valid


@pytest.mark.parametrize("event", EVENTS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("form", [encode, encode_json], ids=["wire", "json"])
def test_records_are_events_or_decode_errors(event: Event, form: Callable[[Event], bytes]) -> None:
    @settings(max_examples=60)
    @given(hostile(form(event)))
    def decodes_or_says_why(data: bytes) -> None:
        with contextlib.suppress(DecodeError):
            decode(data)
        decode_record(data)  # never raises: what is bad is a part of what it returns

    decodes_or_says_why()


def _snapshot() -> tuple[bytes, bytes, bytes]:
    """Return a manifest, and the two files of a state."""
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": [1, "x", None]}}
    with tempfile.TemporaryDirectory() as folder:
        store = LocalSnapshotStore(Path(folder) / "snapshots")
        made = store.publish(
            {"part": state}, positions={"events/0": 3}, step=1, event_time_ms=2, schema_hash="x"
        )
        manifest = Path(folder, "snapshots", made, "manifest.json").read_bytes()
        store.close()
        names = write_state(Path(folder), "part", state)
        others, arrays = (Path(folder, name).read_bytes() for name in names)
    return manifest, others, arrays


MANIFEST, OTHERS, ARRAYS = _snapshot()


@settings(max_examples=200)
@given(hostile(MANIFEST))
def test_manifests_are_whole_or_damaged(data: bytes) -> None:
    try:
        manifest = manifest_from_json(data, "here")
    except SnapshotDamagedError:
        return
    assert json.loads(manifest.to_json()) == json.loads(MANIFEST)


@settings(max_examples=200)
@given(hostile(OTHERS), hostile(ARRAYS))
def test_states_are_whole_or_damaged(others: bytes, arrays: bytes) -> None:
    for one, other in ((others, arrays), (others, ARRAYS), (OTHERS, arrays)):
        with contextlib.suppress(SnapshotDamagedError):
            read_state(one, other, "here")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_without_end_is_damage_and_no_crash(opening: str) -> None:
    deep = opening.encode() * 100_000
    with pytest.raises(SnapshotDamagedError):
        manifest_from_json(deep, "here")
    with pytest.raises(SnapshotDamagedError):
        read_state(deep, None, "here")


@settings(max_examples=100)
@given(hostile(client_line("shop", ["read"], "token").encode()))
def test_files_of_tokens_are_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.txt"
        path.write_bytes(data)
        said = "server.access.tokens: read"
        try:
            read_clients(path)
        except ConfigError as error:
            said = str(error)
        assert said.startswith("server.access.tokens: ")
