"""A server is ready when it has something to answer from, and not before anybody can connect."""

from __future__ import annotations

from pathlib import Path

from app.server_process import why_not_ready
from app.server_wiring import RunningServer
from tests.unit.serving import running_server
from tests.unit.serving.worlds import make_models


def test_server_is_ready_once_it_has_models_and_listens(tmp_path: Path) -> None:
    parts = running_server.RunningServer(tmp_path)
    server = RunningServer(parts.handle, parts.slot)
    assert "no snapshot" in why_not_ready(server)
    parts.slot.swap(make_models("s1"))
    assert why_not_ready(server) == "not listening yet"
    parts.start()
    assert why_not_ready(server) == ""
    parts.close()
