"""The server as a process: answers over gRPC until told to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from app.errors import stop_on_signals
from app.process_setup import metric_history, metrics_page, set_up_process
from app.processes import stop_with_parent
from app.server_wiring import RunningServer, running_server
from app.settings import Settings
from domain.clock import SystemClock
from domain.errors import NotReadyError
from monitoring.metrics import Metrics
from serving.live_models import LiveModels

# A thread that answers asks for the interpreter several times in a call, and waits this long each
# time while another thread (a snapshot being loaded) computes in Python. At Python's 5 ms the 99th
# percentile of a call beside such a thread was 1.7 times what it is at this.
_SWITCH_INTERVAL_S = 0.0005


def run_server(
    settings: Settings,
    *,
    preloaded: LiveModels | None = None,
    on_serving: Callable[[], None] = lambda: None,
) -> None:
    """Run a server in this process until it is told to stop.

    Args:
        settings: of all sections.
        preloaded: models of a snapshot, which need not be loaded if it is the first to be served.
        on_serving: called when models became live.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    metrics, clock = Metrics(), SystemClock()
    set_up_process(settings, metrics, "server")
    schema = settings.schema_declared
    with stop_on_signals() as stop:
        stop_with_parent(stop)
        settings.data.path.mkdir(parents=True, exist_ok=True)
        with (
            running_server(settings, schema, clock, metrics, preloaded) as server,
            metrics_page(settings.metrics, "server", metrics, lambda: why_not_ready(server)),
            metric_history(settings, _source(settings), metrics, clock),
        ):
            if settings.server.share_port:
                server.open_when_live(clock, stop)
            server.slot.add_listener(lambda _models: on_serving())
            stop.wait()


def _source(settings: Settings) -> str:
    """Return under which name this process keeps its past; workers on one port have one each."""
    name = f"server {settings.server.address}"
    return (
        f"{name} {settings.metrics.server_port or os.getpid()}"
        if settings.server.share_port
        else name
    )


def why_not_ready(server: RunningServer) -> str:
    """Return what keeps a server from answering, "" when nothing does."""
    try:
        server.slot.current()
    except NotReadyError as error:
        return str(error)
    # A worker takes the shared port a moment after it has models.
    return "" if server.handle.listening else "not listening yet"
