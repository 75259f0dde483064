"""Is it healthy? One sentence per thing that must be right, with the limits of the alert rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from monitoring.dashboard.curves import quantile_of_last, recent
from monitoring.dashboard.records import Look
from monitoring.dashboard.words import moment, number, percent, seconds
from monitoring.metric_history import Frame, Source

State = Literal["good", "look", "bad", "unknown"]

SERVED = "online+memory"
"""The variant whose scores are served."""
PATIENCE_MS = 1_800_000
"""A window that has just begun says little: only what lasts is acted on."""
MAX_LAG_RECORDS = 1_000
MAX_SNAPSHOT_AGE_S = 600.0
MAX_MODEL_AGE_S = 1_800.0
MAX_RECOMMEND_S = 0.2
MAX_FAILED_SHARE = 0.01
MAX_FALLBACK_SHARE = 0.05
FAILURES = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS")
_RECENT_MS = 300_000
_QUARTER_MS = 900_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be right.

    Attributes:
        alert: the alert rule that watches the same, so that the runbook's section is known.
    """

    name: str
    state: State
    text: str
    alert: str = ""


def checks(look: Look) -> list[Check]:
    """Return everything that is checked, in the order in which to look at it."""
    return [*_processes(look), *_stream(look), *_snapshots(look), *_quality(look), *_serving(look)]


def worst(found: list[Check]) -> State:
    """Return the state of the whole."""
    states = [check.state for check in found]
    return next((state for state in ("bad", "look") if state in states), _rest(states))


def _rest(states: list[State]) -> State:
    return "good" if "good" in states else "unknown"


def process_check(source: Source | None, name: str, now_ms: int, alert: str) -> Check:
    """Return whether a process runs, has ended in order, or fell silent."""
    if source is None:
        return Check(name, "unknown", "has kept no records yet", alert)
    if source.is_running(now_ms):
        return Check(name, "good", f"runs since {moment(source.started_ms)} UTC", alert)
    if source.ended_ms is not None:
        return Check(name, "look", f"was stopped at {moment(source.ended_ms)} UTC", alert)
    return Check(name, "bad", f"fell silent at {moment(source.newest_ms)} UTC", alert)


def _processes(look: Look) -> Iterator[Check]:
    yield process_check(look.trainer, "Trainer", look.now_ms, "HeadraceTrainerDown")
    servers: Sequence[Source | None] = look.servers or [None]
    for server in servers:
        name = f"S{server.name[1:]}" if server else "Server"
        yield process_check(server, name, look.now_ms, "HeadraceServerDown")
    errors = [
        recent(look.frame(source.name), 3_600_000, "headrace_monitoring_logged_errors_total")
        for source in look.sources
    ]
    count = sum(one for one in errors if one is not None)
    if look.sources:
        text = f"{number(count)} logged in the last hour" if count else "none in the last hour"
        yield Check("Errors", "look" if count else "good", text, "HeadraceErrorsLogged")


def _stream(look: Look) -> Iterator[Check]:
    frame = look.trained
    if not len(frame):
        return
    events = recent(frame, _RECENT_MS, "headrace_stream_events_total")
    text = "none in the last five minutes"
    if events:
        text = f"{number(events)} in the last five minutes"
    yield Check("Events", "good" if events else "look", text, "HeadraceNoEvents")
    lag = frame.last("headrace_stream_consumer_lag_records")
    if lag is not None:
        text = (
            f"the trainer is {number(lag)} records behind" if lag else "the trainer is not behind"
        )
        yield Check("Lag", "look" if lag > MAX_LAG_RECORDS else "good", text, "HeadraceLagGrows")
    for what, series, alert in (
        ("Dead letters", "headrace_stream_dead_letters_total", "HeadraceDeadLetters"),
        ("Quarantine", "headrace_stream_quarantined_examples_total", "HeadraceQuarantine"),
        ("Event log", "headrace_stream_log_failures_total", "HeadraceLogUnavailable"),
    ):
        count = recent(frame, _QUARTER_MS, series)
        unit = {"Dead letters": "records", "Quarantine": "examples", "Event log": "failures"}[what]
        if count:
            yield Check(what, "look", f"{number(count)} {unit} in 15 minutes", alert)


def _snapshots(look: Look) -> Iterator[Check]:
    frame = look.trained
    age = frame.last("headrace_snapshot_age_seconds")
    if age is not None:
        text = (
            f"{seconds(age)} of work is in no snapshot yet" if age else "holds all that was learned"
        )
        state: State = "bad" if age > MAX_SNAPSHOT_AGE_S else "good"
        yield Check("Snapshot", state, text, "HeadraceSnapshotTooOld")
    failed = recent(frame, _QUARTER_MS, "headrace_snapshot_publish_failures_total")
    if failed:
        text = f"publishing failed {number(failed)} times in 15 minutes"
        yield Check("Publishing", "bad", text, "HeadraceSnapshotPublishFails")


def _quality(look: Look) -> Iterator[Check]:
    frame = look.trained
    for own, values in frame.matching(
        "headrace_monitoring_normalized_entropy_ratio", scope="window", variant=SERVED
    ):
        entropy = float(values[-1])
        if entropy != entropy:
            continue
        lasted_ms = _lasted_ms(frame, values >= 1)
        text = f"normalized entropy {number(entropy)}, useful below 1"
        if entropy >= 1:
            text = f"no better than the mean rate for {seconds(lasted_ms / 1_000)}"
            text = f"normalized entropy {number(entropy)}, {text}"
        state: State = "good" if entropy < 1 else "look" if lasted_ms < PATIENCE_MS else "bad"
        yield Check(f"Quality of {own['head']}", state, text, "HeadraceUseless")
    live = look.num_live_signals
    if look.trainer is not None:
        text = f"{live} live signals" if live != 1 else "1 live signal"
        text = text if live else "no live signal"
        yield Check("Drift", "look" if live else "good", text, "HeadraceDrift")


def _lasted_ms(frame: Frame, is_so: NDArray[np.bool_]) -> int:
    """Return for how long something has been so, up to the newest sample."""
    otherwise = np.flatnonzero(~is_so)
    since = int(otherwise[-1]) + 1 if len(otherwise) else 0
    return int(frame.times_ms[-1] - frame.times_ms[since]) if since < len(frame) else 0


def _serving(look: Look) -> Iterator[Check]:
    for server in look.servers:
        if not server.is_running(look.now_ms):
            continue
        frame = look.frame(server.name)
        where = f" at {server.name.removeprefix('server ')}" if len(look.servers) > 1 else ""
        yield from (
            Check(f"{check.name}{where}", check.state, check.text, check.alert)
            for check in (*_models(frame), *_requests(frame))
        )


def _models(frame: Frame) -> Iterator[Check]:
    age = frame.last("headrace_serving_model_age_seconds")
    if age is not None:
        state: State = "look" if age > MAX_MODEL_AGE_S else "good"
        text = f"the newest event they know is {seconds(age)} old"
        yield Check("Served models", state, text, "HeadraceServedModelOld")


def _requests(frame: Frame) -> Iterator[Check]:
    asked = recent(frame, _RECENT_MS, "headrace_serving_requests_total")
    if not asked:
        yield Check("Requests", "good", "none in the last five minutes", "HeadraceRequestsFail")
        return
    failed = sum(
        recent(frame, _RECENT_MS, "headrace_serving_requests_total", code=code) or 0.0
        for code in FAILURES
    )
    state: State = "bad" if failed > MAX_FAILED_SHARE * asked else "good"
    text = f"{number(asked)} in the last five minutes, {percent(failed / asked)} failed"
    yield Check("Requests", state, text, "HeadraceRequestsFail")
    p99 = quantile_of_last(
        frame, _RECENT_MS, 0.99, "headrace_serving_request_seconds", method="recommend"
    )
    if p99 is not None:
        state = "bad" if p99 > MAX_RECOMMEND_S else "good"
        yield Check("Recommend", state, f"99 % within {seconds(p99)}", "HeadraceRecommendSlow")
    answers = recent(frame, _RECENT_MS, "headrace_serving_answers_total") or 0.0
    fallbacks = sum(
        recent(frame, _RECENT_MS, "headrace_serving_answers_total", path=path) or 0.0
        for path in ("retrieved", "popular")
    )
    if answers and fallbacks > MAX_FALLBACK_SHARE * answers:
        text = f"{percent(fallbacks / answers)} are fallbacks"
        yield Check("Answers", "look", text, "HeadraceAnswersDegraded")
