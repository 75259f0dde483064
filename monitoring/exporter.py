"""The HTTP page of one process: metrics for Prometheus, liveness and readiness for a supervisor."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from domain.errors import ConfigError
from monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

Readiness: TypeAlias = Callable[[], str]
"""Returns "" when the process may receive work, else the reason why not; called from any thread."""

_TEXT = "text/plain; charset=utf-8"
_INDEX = (
    "/metrics  for Prometheus\n/healthz  200 while the process lives\n/readyz   200 when ready\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterConfig:
    """Where the page is served.

    Attributes:
        host: address to listen on; "0.0.0.0" for all of them.
        port: 0 takes any free one, see `Exporter.start`.
    """

    host: str = "127.0.0.1"
    port: int = 9464

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("exporter.host must be an address, got ''")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"exporter.port must lie in 0..65535, got {self.port}")


class Exporter:
    """Serves `/metrics`, `/healthz` and `/readyz` from a thread of its own.

    `/healthz` answers 200 as long as anything answers at all; `/readyz` answers 200, or 503 with
    the reason as text. May be used as a context manager, which starts and stops it.
    """

    def __init__(self, config: ExporterConfig, metrics: Metrics, readiness: Readiness) -> None:
        self._config = config
        self._registry = metrics.registry
        self._readiness = readiness
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Begin to listen; returns the bound port.

        Raises:
            ConfigError: the address is taken or is none of ours.
        """
        assert self._server is None, "started twice"
        config = self._config
        try:
            self._server = _Server(config.host, config.port, self._registry, self._readiness)
        except OSError as error:
            address = f"{config.host}:{config.port}"
            raise ConfigError(
                f"exporter.port: cannot listen on {address}: {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="exporter",
            daemon=True,
        )
        self._thread.start()
        port = int(self._server.server_address[1])
        logger.info("exporter listens", extra={"host": config.host, "port": port})
        return port

    def stop(self) -> None:
        """Stop listening and wait for the thread; may be called twice."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def __enter__(self) -> Exporter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Return the bound port; 0 while it is not listening."""
        return int(self._server.server_address[1]) if self._server is not None else 0


class _Server(ThreadingMixIn, TCPServer):
    """One thread per request; a request that hangs does not keep the process from ending.

    Not `http.server.ThreadingHTTPServer`: that looks up its own name first, which takes seconds
    where there is no name service.
    """

    daemon_threads = True
    # A port is free again as soon as its process is gone; a listening one is refused all the same.
    allow_reuse_address = True
    # Stopping must not wait for a client that keeps its connection open.
    block_on_close = False

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, readiness: Readiness
    ) -> None:
        self.registry = registry
        self.readiness = readiness
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Page)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one request; clients that hang up are no news."""
        logger.warning("exporter request failed", exc_info=True)


class _Page(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # seconds until a silent client is dropped

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, encode(self.server.registry), content_type)
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, b"alive\n")
        elif path == "/readyz":
            reason = self.server.readiness()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            self._answer(status, f"{reason or 'ready'}\n".encode())
        elif path == "/":
            self._answer(HTTPStatus.OK, _INDEX.encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, f"no such page: {path}\n".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no event."""

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str = _TEXT) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
