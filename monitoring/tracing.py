"""Spans of calls and their stages, through OpenTelemetry where it is installed and asked for.

The library is the extra `tracing`; without it, or switched off, nothing of this runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from domain.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_OK = "OK"


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """Whether calls are traced, and where spans go.

    Attributes:
        exporter: "off"; "console", to standard error; "otlp", to a collector over gRPC.
        endpoint: the collector, "http://host:port" or "https://host:port".
        sample_rate: share of calls that are traced when the caller did not say; a caller's
            traceparent that says yes or no is followed.
    """

    exporter: Literal["off", "console", "otlp"] = "off"
    endpoint: str = "http://127.0.0.1:4317"
    sample_rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                f"tracing.endpoint must be http://host:port or https://host:port, "
                f"got {self.endpoint!r}"
            )
        if not 0.0 <= self.sample_rate <= 1.0:
            raise ConfigError(f"tracing.sample_rate must be 0 to 1, got {self.sample_rate}")


class CallSpan:
    """The span of one call."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def ended_with(self, code: str) -> None:
        """Say with which gRPC status the call ended."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("rpc.grpc.status_code", code)
        if code != _OK:
            self._span.set_status(Status(StatusCode.ERROR, code))


class Tracing:
    """Makes spans; safe to share by threads."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("headrace")
        self._propagator = TraceContextTextMapPropagator()
        self._server = SpanKind.SERVER

    @contextmanager
    def call(
        self, method: str, request_id: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> Iterator[CallSpan]:
        """Trace one call while the block runs; `method` is "/package.Service/Method".

        It is part of the caller's trace when metadata has a W3C traceparent.
        """
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        service, _, name = method.strip("/").rpartition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": name,
            "headrace.request_id": request_id,
        }
        with self._tracer.start_as_current_span(
            method.strip("/"),
            context=self._propagator.extract(carrier),
            kind=self._server,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield CallSpan(span)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Trace a stage of the call that this thread answers."""
        return self._tracer.start_as_current_span(name)

    def stop(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()


def make_tracing(config: TracingConfig, service: str) -> Tracing | None:
    """Return what traces calls, None when they are not.

    Raises:
        ConfigError: the extra is not installed.
    """
    if config.exporter == "off":
        return None
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = make_provider(config, service)
        provider.add_span_processor(BatchSpanProcessor(_exporter(config)))
    except ImportError as error:
        raise ConfigError(
            f'tracing.exporter: "{config.exporter}" needs what is not installed ({error.name}): '
            "pip install 'headrace[tracing]'"
        ) from error
    return Tracing(provider)


def make_provider(config: TracingConfig, service: str) -> TracerProvider:
    """Return OpenTelemetry's provider, without anybody yet to whom spans go."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    return TracerProvider(
        sampler=ParentBasedTraceIdRatio(config.sample_rate),
        resource=Resource.create({"service.name": service}),
        shutdown_on_exit=False,
    )


def _exporter(config: TracingConfig) -> SpanExporter:
    if config.exporter == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(
            out=sys.stderr, formatter=lambda span: f"{span.to_json(indent=None)}\n"
        )
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=config.endpoint)
