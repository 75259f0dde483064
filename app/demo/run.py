"""The demo with simulated users, from an empty folder to a table."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.demo.plan import FAST_LABELS, DemoPlan
from app.demo.probe import FreshnessProbe
from app.demo.report import print_demo_report
from app.errors import stop_on_signals
from app.processes import Child, children, raise_if_ended
from app.readiness import wait_until_serving
from app.schema_file import schema_to_toml
from app.settings import load_settings
from domain.clock import Clock, SystemClock
from domain.event_log import EventLog
from replay.world import World
from stream.open_log import open_log

# Three processes load torch on a small machine; users must not come before somebody answers.
_LEAD_MS = 20_000
_NUM_PROBES = 10
_MALFORMED = (b"not an event", b"\x0a\x03abc", b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlace:
    """Where a demo lives: its folder, and the address its server listens on."""

    folder: Path
    address: str
    clock: Clock

    @property
    def config(self) -> Path:
        """Return the settings file of its processes."""
        return self.folder / "demo.toml"

    @property
    def comparison(self) -> Path:
        """Return the file the trainer writes its comparison to."""
        return self.folder / "comparison.json"

    @property
    def users_report(self) -> Path:
        """Return the file the simulated users write what they saw to."""
        return self.folder / "users.json"


def run_demo(plan: DemoPlan, keep: Path | None, console: Console) -> dict[str, Any]:
    """Stream a world with a change of taste through everything; print and return what happened.

    Raises:
        ProcessError: a process ended by itself.
        KeyboardInterrupt: Ctrl-C; every process was ended before.
    """
    clock = SystemClock()
    with demo_folder(keep) as folder, stop_on_signals() as stop:
        place = DemoPlace(folder=folder, address=f"127.0.0.1:{free_port()}", clock=clock)
        scenario = plan.scenario(clock.now_ms() + _LEAD_MS)
        place.config.write_text(schema_to_toml(World(scenario).schema))
        started = _commands(plan, place, scenario.start_ms, scenario.change_times_ms[0])
        log = open_log(load_settings(place.config, [f"data.dir='{folder}'"]).data.log_url)
        with children(started[:2], folder / "logs") as services:
            with console.status("starting the event log, the trainer and the gRPC server"):
                wait_until_serving(place.address, services, clock)
            with children(started[2:], folder / "logs") as users:
                log.append_raw([("broken", record) for record in _MALFORMED])
                _show_progress(plan, scenario.start_ms, [*services, *users], place, console, stop)
            with console.status("probing how fast an action changes an answer"):
                user_ids = World(scenario).users_at(scenario.end_ms - 1, _NUM_PROBES)
                freshness = FreshnessProbe(place.address, clock).seconds(user_ids)
            with console.status("letting the trainer catch up"):
                wait_until_learned(services, log, clock)
        report = {
            "comparison": json.loads(place.comparison.read_text()),
            "users": json.loads(place.users_report.read_text()),
            "freshness_s": freshness,
            "dead_letters": len(log.dead_letters()),
            "malformed": len(_MALFORMED),
        }
        log.close()
        print_demo_report(report, console)
        return report


def _commands(
    plan: DemoPlan, place: DemoPlace, start_ms: int, change_ms: int
) -> list[tuple[str, list[str]]]:
    shared = ["--config", str(place.config), "--data-dir", str(place.folder)]
    for setting in FAST_LABELS:
        shared += ["--set", setting]
    evaluation = [f"evaluation.freeze_at_ms={change_ms}", f"evaluation.report='{place.comparison}'"]
    users = ["--start-ms", str(start_ms), "--address", place.address]
    users += ["--report", str(place.users_report), "--seconds", str(plan.seconds)]
    users += ["--seed", str(plan.seed)]
    return [
        ("trainer", ["train", *shared, *(x for one in evaluation for x in ("--set", one))]),
        ("server", ["serve", *shared, "--grpc", place.address]),
        ("users", ["demo-users", *users]),
    ]


def wait_until_learned(
    services: list[Child], log: EventLog, clock: Clock, within_s: float = 20.0
) -> None:
    """Return when a snapshot holds everything that is in the log, or after some time."""
    deadline_s = clock.stopwatch_s() + within_s
    while clock.stopwatch_s() < deadline_s and log.committed() != log.end_positions():
        raise_if_ended(services)
        clock.sleep(0.2)


def _show_progress(
    plan: DemoPlan,
    start_ms: int,
    running: list[Child],
    place: DemoPlace,
    console: Console,
    stop: Any,
) -> None:
    users = running[-1]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("", total=plan.seconds)
        while users.process.poll() is None:
            if stop.is_set():
                raise KeyboardInterrupt
            raise_if_ended(running[:-1])
            passed_s = (place.clock.now_ms() - start_ms) / 1_000
            bar.update(task, completed=max(passed_s, 0.0), description=_phase(passed_s, plan))
            place.clock.sleep(0.2)
        bar.update(task, completed=plan.seconds)
    if users.process.poll() != 0:
        raise_if_ended([users])


def _phase(passed_s: float, plan: DemoPlan) -> str:
    if passed_s < 0:
        return f"users come in {-passed_s:.0f} s            "
    if passed_s < plan.seconds / 2:
        return "users ask, act; models learn  "
    return "taste has changed; relearning "


@contextmanager
def demo_folder(keep: Path | None) -> Iterator[Path]:
    """Give the folder to work in; a temporary one is removed afterwards."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
