"""Traces of a real server: its spans, the caller's trace they belong to, and nothing when off."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2 as collector_pb2,
)
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2_grpc as collector_grpc,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from domain.errors import ConfigError
from monitoring.tracing import Tracing, TracingConfig, make_provider, make_tracing
from protos.headrace.v1 import ranking_pb2, recommender_pb2
from serving import trace
from tests.unit.serving.running_server import RunningServer, until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE_ID}-{CALLERS_SPAN}-01"),)
NOT_SAMPLED = (("traceparent", f"00-{TRACE_ID}-{CALLERS_SPAN}-00"),)


class Traced:
    """A running server whose spans are kept."""

    def __init__(self, folder: Path) -> None:
        self.kept = InMemorySpanExporter()
        provider = make_provider(TracingConfig(exporter="console"), "test")
        provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.server = RunningServer(folder, tracing=Tracing(provider))
        self.server.start()
        self.server.serve("s1")
        self.server.click("ann", "i1")
        self.kept.clear()

    def spans(self, method: str) -> dict[str, ReadableSpan]:
        """Wait for the span of a call, which is the last to end; return all by name."""
        until(lambda: any(span.name.endswith(method) for span in self.kept.get_finished_spans()))
        return {span.name: span for span in self.kept.get_finished_spans()}


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    traced = Traced(tmp_path)
    yield traced
    traced.server.close()


def recommend(traced: Traced, *metadata: tuple[str, str]) -> Any:
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=3)
    return traced.server.recommender.Recommend(request, timeout=5.0, metadata=metadata)


def test_call_and_its_stages_are_spans_of_one_trace(traced: Traced) -> None:
    recommend(traced, ("x-request-id", "shop-17"))
    spans = traced.spans("Recommend")
    call = spans.pop("headrace.v1.Recommender/Recommend")
    assert spans.keys() == {"turn", "retrieve", "rank", "compensate", "log"}
    assert call.attributes is not None
    assert dict(call.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "headrace.v1.Recommender",
        "rpc.method": "Recommend",
        "headrace.request_id": "shop-17",
        "rpc.grpc.status_code": "OK",
    }
    assert call.parent is None
    for stage in spans.values():
        assert stage.parent is not None
        assert stage.parent.span_id == call.context.span_id
        assert stage.context.trace_id == call.context.trace_id


def test_call_belongs_to_the_callers_trace_and_follows_its_wish(traced: Traced) -> None:
    recommend(traced, *NOT_SAMPLED)
    recommend(traced, *SAMPLED)
    call = traced.spans("Recommend")["headrace.v1.Recommender/Recommend"]
    assert f"{call.context.trace_id:032x}" == TRACE_ID
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == CALLERS_SPAN
    names = [span.name for span in traced.kept.get_finished_spans()]
    assert names.count(call.name) == 1


def test_traceparent_that_is_none_is_passed_by(traced: Traced) -> None:
    recommend(traced, ("traceparent", "nonsense"))
    assert traced.spans("Recommend")["headrace.v1.Recommender/Recommend"].parent is None


def test_failed_call_says_with_which_status(traced: Traced) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        traced.server.ranking.Rank(ranking_pb2.RankRequest(user_id="ann"), timeout=5.0)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    call = traced.spans("Rank")["headrace.v1.Ranking/Rank"]
    assert call.attributes is not None
    assert call.attributes["rpc.grpc.status_code"] == "INVALID_ARGUMENT"
    assert not call.status.is_ok
    assert call.events == ()


def test_batch_has_the_stages_of_all_its_requests(traced: Traced) -> None:
    one = ranking_pb2.RankRequest(user_id="ann", item_ids=["i1", "i2"])
    request = ranking_pb2.BatchRankRequest(requests=[one, one, one])
    traced.server.ranking.BatchRank(request, timeout=5.0)
    traced.spans("BatchRank")
    names = [span.name for span in traced.kept.get_finished_spans()]
    assert names.count("headrace.v1.Ranking/BatchRank") == 1
    assert "rank" in names


def test_without_tracing_no_span_is_made_and_nothing_is_held(tmp_path: Path) -> None:
    with trace.stage("rank") as nothing:
        assert nothing is None
    assert trace.stage("a") is trace.stage("b")
    server = RunningServer(tmp_path)
    server.start()
    server.serve("s1")
    assert server.recommend("ann").items
    server.close()


def test_spans_reach_a_collector(tmp_path: Path) -> None:
    received: list[Any] = []

    class Collector(collector_grpc.TraceServiceServicer):
        def Export(self, request: Any, _context: Any) -> Any:
            received.append(request)
            return collector_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    collector_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    config = TracingConfig(exporter="otlp", endpoint=f"http://127.0.0.1:{port}")
    tracing = make_tracing(config, "headrace-server")
    assert tracing is not None
    with tracing.call("/a.B/C", "r1", ()), tracing.stage("rank"):
        pass
    tracing.stop()
    server.stop(None).wait()
    (sent,) = [one for request in received for one in request.resource_spans]
    facts = {one.key: one.value.string_value for one in sent.resource.attributes}
    assert facts["service.name"] == "headrace-server"
    assert [span.name for scope in sent.scope_spans for span in scope.spans] == ["rank", "a.B/C"]


def test_console_writes_one_line_a_span(capsys: pytest.CaptureFixture[str]) -> None:
    tracing = make_tracing(TracingConfig(exporter="console"), "test")
    assert tracing is not None
    with tracing.call("/a.B/C", "r1", ()):
        pass
    tracing.stop()
    (line,) = capsys.readouterr().err.splitlines()
    assert '"headrace.request_id": "r1"' in line


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigError, match=r"headrace\[tracing\]"):
        make_tracing(TracingConfig(exporter="otlp"), "test")
    assert make_tracing(TracingConfig(), "test") is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"endpoint": "collector:4317"}, r"^tracing\.endpoint must be http://"),
        ({"sample_rate": 1.5}, r"^tracing\.sample_rate must be 0 to 1, got 1\.5"),
    ],
)
def test_config_names_what_is_wrong(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TracingConfig(**setting)
