"""A change of taste, live: how many events pass until the dashboard shows it, and when it ends.

    python benchmarks/bench_live_drift.py [--quick] [--seed N] [--json FILE] [--pictures]

Starts `headrace up` and `headrace dashboard` with default models on a folder of its own, publishes
the `abrupt` scenario over gRPC, and watches the drift page in a real Chromium. The next events are
published when the trainer has taken in those before, so the number of events says what the stream
needs and not how fast this machine is. After every step the page is given a moment to follow.

    shown_after     events from the change to the first live signal of its cause on the page
    ended_after     events from the change until no signal of it is live
    false_before    signals on the page before the change

The goal is what docs/drift.md states. --quick ends at the signal.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from domain.events import Event
from replay.scenarios import SCENARIOS, Scenario
from replay.simulator import SimulatedDataset
from tests.browser import Browser, browser
from tests.live_headrace import LiveHeadrace
from tests.process_helpers import (
    Headrace,
    free_port,
    headrace,
    wait_for_serving,
    wait_until,
    write_schema,
)

GOALS = {"shown_after": 2_500}
_STEP = 100
"""Events published at once around the change: the counts are up to this much too high."""
_FAR_STEP = 4_000
_NEAR = 1_000
_FOLLOWED_S = 3.0
"""Longest time that the page has to show what the trainer has found; it asks twice a second."""
_PATIENCE_S = 1_800.0
# The attribution window must be longer than the scenario's longest wait for feedback, see `fit_to`.
# Micro-batches wait until they are full: the scenario has a list every four seconds, and would
# otherwise be learned list by list, which takes ten times the CPU time.
_SETTINGS = (
    "joiner.attribution_window_ms=300001",
    "batcher.linger_ms=600000",
    "checkpoint.every_s=60",
    "deltas.every_ms=10000",
)


@dataclass
class Seen:
    """What the page showed, in events after the change; before it they are negative."""

    signals: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end when the signal is shown")
    parser.add_argument("--seed", type=int, default=1, help="seed of the world")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--pictures", action="store_true", help="leave pictures of the page")
    given = parser.parse_args()
    scenario = SCENARIOS["abrupt"].reseeded(given.seed)
    with ExitStack() as stack:
        live, address = started(stack, scenario)
        seen = watch(stack.enter_context(browser()), live, address, scenario, given)
    truth = scenario.truth[0]
    right = {name: at for name, at in seen.signals.items() if truth.is_named_by(name) and at >= 0}
    ended = [seen.ended[name] for name in right if name in seen.ended]
    found: dict[str, float | None] = {
        "shown_after": min(right.values(), default=None),
        "ended_after": max(ended) if ended and len(ended) == len(right) else None,
        "false_before": sum(at < 0 for at in seen.signals.values()),
    }
    shown = found["shown_after"]
    ok = shown is not None and shown <= GOALS["shown_after"]
    result = {"suite": "live_drift", "ratios": found, "goals": GOALS, "ok": ok}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def started(stack: ExitStack, scenario: Scenario) -> tuple[LiveHeadrace, str]:
    """Start trainer, server and dashboard; return them and the address of the page."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-drift-")))
    grpc_port, trainer_port, server_port = free_port(), free_port(), free_port()
    config = write_schema(folder / "schema.toml", SimulatedDataset(scenario).schema)
    ports = (f"metrics.trainer_port={trainer_port}", f"metrics.server_port={server_port}")
    words = [word for one in (*_SETTINGS, *ports) for word in ("--set", one)]
    data = ["--data-dir", str(folder / "data")]
    up = ["up", *data, "--grpc", f"127.0.0.1:{grpc_port}", *config, *words]
    running = stack.enter_context(headrace(*up, output=folder / "up.log"))
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_port}"))
    wait_for_serving(running, channel)
    live = LiveHeadrace(folder / "data", channel, trainer_port, server_port, config)
    page = ["dashboard", *data, "--port", "0", *config, "--set", "dashboard.refresh_s=0.5"]
    shown = stack.enter_context(headrace(*page, output=folder / "dashboard.log"))
    return live, address_of(shown)


def address_of(running: Headrace) -> str:
    wait_until(lambda: "on http://" in running.said, 180.0, "the dashboard says where it is")
    (found,) = re.findall(r"on (http://127\.0\.0\.1:\d+/)", running.said)
    return str(found)


def watch(
    chromium: Browser,
    live: LiveHeadrace,
    address: str,
    scenario: Scenario,
    given: argparse.Namespace,
) -> Seen:
    """Publish the scenario; return what the page showed, and when."""
    chromium.tab.set_default_timeout(120_000)
    chromium.open(address)
    chromium.follow("Drift")
    events = list(SimulatedDataset(scenario).events())
    change_ms, truth = scenario.change_times_ms[0], scenario.truth[0]
    change = next(at for at, event in enumerate(events) if event.time_ms >= change_ms)
    seen, at, right = Seen(), 0, list[str]()
    while at < len(events):
        near = change - _NEAR <= at < change + 5 * _NEAR
        step = _STEP if near else min(_FAR_STEP, change - _NEAR - at if at < change else _FAR_STEP)
        upto = min(at + step, len(events))
        publish(live, events[at:upto], upto)
        at = upto
        look(chromium, seen, at - change)
        first_seen = not right
        right = [name for name, first in seen.signals.items() if first >= 0]
        right = [name for name in right if truth.is_named_by(name)]
        if right and first_seen and given.pictures:
            chromium.picture(f"live-drift-{given.seed}-shown")
        if right and (given.quick or all(name in seen.ended for name in right)):
            break
    if given.pictures:
        chromium.picture(f"live-drift-{given.seed}-end")
    return seen


def publish(live: LiveHeadrace, events: list[Event], total: int) -> None:
    """Publish events, and wait until the trainer has learned what is due of them."""
    for first in range(0, len(events), 500):
        live.publish(events[first : first + 500])
    wait_until(lambda: live.events_taken_in() >= total, _PATIENCE_S, "the trainer took it all in")


def look(chromium: Browser, seen: Seen, at: int) -> None:
    """Note signals that are new on the page, and live ones that have ended."""
    before = states = states_on(chromium)
    deadline = time.monotonic() + _FOLLOWED_S
    while states == before and time.monotonic() < deadline:
        chromium.tab.wait_for_timeout(250)
        states = states_on(chromium)
    for stream, (sentence, is_live) in states.items():
        if stream not in seen.signals:
            seen.signals[stream] = at
            say(at, sentence)
        if is_live:
            seen.ended.pop(stream, None)
        elif stream not in seen.ended:
            seen.ended[stream] = at
            say(at, f"{stream} has ended")


def states_on(chromium: Browser) -> dict[str, tuple[str, bool]]:
    """Return, by stream, the newest sentence on the page and whether its signal is live."""
    rows: list[list[str]] = chromium.tab.evaluate(
        """() => [...document.querySelectorAll("#page table")]
            .filter(table => (table.caption || {}).textContent?.startsWith("Drift signals"))
            .flatMap(table => [...table.tBodies[0].rows])
            .map(row => [...row.cells].map(cell => cell.innerText.trim()))"""
    )
    found: dict[str, tuple[str, bool]] = {}
    for sentence, *_, ended in rows:
        stream = sentence.split()[0]
        if stream not in found or ended == "live":
            found[stream] = (sentence, ended == "live")
    return found


def say(at: int, what: str) -> None:
    print(f"{at:>8,} events after the change: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
