"""Trainer and server as children of one foreground process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from app.errors import stop_on_signals
from app.processes import children, stop_with_parent, wait_for_stop
from app.readiness import wait_until_ready
from app.settings import Settings
from domain.clock import SystemClock


def run_up(settings: Settings, config: Path | None, overrides: Sequence[str]) -> None:
    """Run a trainer and a server until told to stop, then end them in order.

    Raises:
        ProcessError: one of them ended by itself; the other was ended too.
    """
    clock = SystemClock()
    say = Console(soft_wrap=True, highlight=False).print
    shared = child_arguments(settings, config, overrides)
    commands = [("trainer", ["train", *shared]), ("server", ["serve", *shared])]
    with stop_on_signals() as stop:
        stop_with_parent(stop)
        with children(commands, settings.data.process_logs) as running:
            say(f"Starting trainer and server; their logs are in {settings.data.process_logs}")
            wait_until_ready(settings, running, clock, stop)
            if not stop.is_set():
                say(f"Serving gRPC on {settings.server.address}; data in {settings.data.path}")
                say("Ctrl-C ends it.")
            wait_for_stop(running, stop, clock)
            say("Stopping: the server first, then the trainer with a last snapshot.")
    say("Stopped. Everything is in the event log and the last snapshot.")


def child_arguments(settings: Settings, config: Path | None, overrides: Sequence[str]) -> list[str]:
    """Return the flags that make a child read the same settings."""
    arguments = ["--data-dir", str(settings.data.path)]
    if config is not None:
        arguments += ["--config", str(config)]
    for override in overrides:
        arguments += ["--set", override]
    return arguments
