"""The dashboard as a process: serves pages until told to stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from rich.console import Console
from werkzeug.serving import make_server

from app.errors import stop_on_signals
from app.processes import stop_with_parent
from app.settings import Settings
from domain.clock import SystemClock
from domain.errors import ConfigError
from monitoring.dashboard.config import DashboardConfig
from monitoring.dashboard.records import Places, Records, SnapshotRow
from monitoring.dashboard.web import create_app
from monitoring.log_setup import set_up_logging
from monitoring.metrics import Metrics
from monitoring.signal_store import FILE_NAME
from snapshot.local_store import LocalSnapshotStore


class StoredSnapshots:
    """Snapshots of a store, as the dashboard sees them."""

    def __init__(self, store: LocalSnapshotStore) -> None:
        self._store = store

    def rows(self) -> Sequence[SnapshotRow]:
        """Return all snapshots, oldest first."""
        current = self._store.current_id()
        sound = {manifest.snapshot_id: manifest for manifest in self._store.list()}
        rows = []
        for snapshot_id in self._store.ids():
            is_current = snapshot_id == current
            manifest = sound.get(snapshot_id)
            if manifest is None:
                problem = "its manifest is damaged"
                row = SnapshotRow(snapshot_id=snapshot_id, is_current=is_current, problem=problem)
            else:
                row = SnapshotRow(
                    snapshot_id=snapshot_id,
                    step=manifest.step,
                    event_time_ms=manifest.event_time_ms,
                    events=int(manifest.extra.get("events", 0)),
                    size_bytes=sum(file.size_bytes for file in manifest.files),
                    is_current=is_current,
                )
            rows.append(row)
        return rows

    def promote(self, snapshot_id: str) -> None:
        """Make a sound snapshot the served one; SnapshotError says why not."""
        self._store.promote(snapshot_id)


def records_of(settings: Settings) -> Records:
    """Return the records of a data folder."""
    data, reports = settings.data, settings.dashboard.reports
    places = Places(
        title=str(data.path),
        history=data.history,
        drift=data.path / FILE_NAME,
        reports=Path(reports).expanduser().absolute() if reports else data.reports,
    )
    store = LocalSnapshotStore(data.snapshots, settings.snapshot)
    return Records(places, StoredSnapshots(store), SystemClock())


def run_dashboard(settings: Settings) -> None:
    """Serve the dashboard in this process until it is told to stop.

    Raises:
        ConfigError: the address is taken or is none of ours.
    """
    set_up_logging(settings.log, Metrics())
    say = Console(soft_wrap=True, highlight=False).print
    with stop_on_signals() as stop:
        stop_with_parent(stop)
        with serving(records_of(settings), settings.dashboard) as address:
            say(f"Dashboard of {settings.data.path} on {address}")
            say("Ctrl-C ends it.")
            stop.wait()


@contextmanager
def serving(records: Records, config: DashboardConfig) -> Iterator[str]:
    """Serve pages while the block runs; gives the address to open.

    Raises:
        ConfigError: the address is taken or is none of ours.
    """
    # A line per request, every two seconds, is no news.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = create_app(records, config)
    with _listening(config) as listener:
        server = make_server(config.host, 0, app.server, threaded=True, fd=listener.fileno())
        port = listener.getsockname()[1]
        thread = Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="dashboard"
        )
        thread.start()
        try:
            name = f"[{config.host}]" if ":" in config.host else config.host
            yield f"http://{name}:{port}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _listening(config: DashboardConfig) -> socket.socket:
    """Listen before the server is made: werkzeug would end the process with words of its own."""
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"dashboard.port: cannot listen on {config.host}:{config.port}: "
            f"{error.strerror or error}"
        ) from error
    return listener
