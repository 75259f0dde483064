"""`headrace drift list`: filters, a table for people, JSON for programs, and clear refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.drift_signal import DriftSignal
from monitoring.reaction_store import ReactionStore
from monitoring.reactions import Reaction
from monitoring.signal_store import FILE_NAME, SignalStore
from tests.command_line import Headrace, quiet_surroundings

HOUR = 3_600_000
NOON = 1_767_268_800_000  # 2026-01-01 12:00 UTC


def signal(stream: str, at_ms: int, **other: Any) -> DriftSignal:
    given: dict[str, Any] = {
        "kind": "concept", "detector": "adwin", "since_ms": at_ms - 60_000, "before": 0.5,
        "after": 0.75, "deviations": 7.0, "points_before": 50, "points_after": 9,
    } | other  # fmt: skip
    return DriftSignal(stream=stream, time_ms=at_ms, **given)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


@pytest.fixture
def data(tmp_path: Path) -> str:
    store = SignalStore(tmp_path / FILE_NAME)
    store.write(
        [
            signal("loss/online/click", NOON - 7 * HOUR, ended_ms=NOON - 6 * HOUR),
            signal("label_rate/click", NOON, kind="label"),
        ]
    )
    store.close()
    return str(tmp_path)


def streams(headrace: Headrace, data: str, *flags: str) -> list[str]:
    ended = headrace("drift", "list", "--data-dir", data, "--json", *flags)
    assert (ended.code, ended.err) == (0, "")
    return [one["stream"] for one in json.loads(ended.out)]


def test_json_has_every_field_and_what_follows_from_them(headrace: Headrace, data: str) -> None:
    ended = headrace("drift", "list", "--data-dir", data, "--json", "--live")
    [one] = json.loads(ended.out)
    assert one["stream"] == "label_rate/click"
    assert (one["severity"], one["size"], one["ended_ms"]) == ("large", 7.0, None)
    assert one["sentence"].startswith("label_rate/click rose from 0.5 to 0.75 (+7.0 sd)")


def test_filters_narrow_the_list(headrace: Headrace, data: str) -> None:
    both = ["label_rate/click", "loss/online/click"]
    assert streams(headrace, data) == both
    assert streams(headrace, data, "--limit", "1") == both[:1]
    assert streams(headrace, data, "--kind", "concept") == both[1:]
    assert streams(headrace, data, "--stream", "loss/") == both[1:]
    assert streams(headrace, data, "--since", "6h") == both[:1]
    assert streams(headrace, data, "--since", "8h") == both
    assert streams(headrace, data, "--since", "2026-01-01T12:00") == both[:1]
    assert streams(headrace, data, "--since", "2026-01-01T12:01") == []


def test_table_says_when_how_bad_and_what(headrace: Headrace, data: str) -> None:
    ended = headrace("drift", "list", "--data-dir", data)
    assert ended.code == 0
    text = " ".join(ended.out.split())
    assert "2026-01-01 12:00:00" in text
    assert "large" in text
    assert "live" in text
    assert headrace("drift", "list", "--data-dir", data, "--stream", "x").out == (
        "No drift signals.\n"
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--since", "yesterday"), "--since: expected 30m, 6h or 2d"),
        (("--kind", "weather"), "--kind: expected one of covariate, label, concept"),
    ],
)
def test_mistakes_are_one_clear_line(
    flags: tuple[str, ...], reason: str, headrace: Headrace, data: str
) -> None:
    ended = headrace("drift", "list", "--data-dir", data, *flags)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"headrace: {reason}")


def test_folder_without_records_is_named(headrace: Headrace, tmp_path: Path) -> None:
    ended = headrace("drift", "list", "--data-dir", str(tmp_path))
    assert ended.code == 2
    assert "drift.sqlite: no drift records there; a trainer writes them" in ended.err


def test_what_was_done_is_told_as_a_table_and_as_json(headrace: Headrace, tmp_path: Path) -> None:
    store = ReactionStore(tmp_path / FILE_NAME)
    store.write_reactions(
        [Reaction(name="reset_memory", time_ms=NOON, stream="loss/online/click", cause="it rose")]
    )
    store.close()
    told = headrace("drift", "reactions", "--data-dir", str(tmp_path))
    assert "2026-01-01 12:00:00" in told.out
    assert "the error memory was emptied" in told.out
    (row,) = json.loads(headrace("drift", "reactions", "--json", "--data-dir", str(tmp_path)).out)
    assert (row["name"], row["time_ms"], row["until_ms"]) == ("reset_memory", NOON, None)


def test_nothing_done_is_said(headrace: Headrace, tmp_path: Path) -> None:
    SignalStore(tmp_path / FILE_NAME).close()
    assert "Nothing was done" in headrace("drift", "reactions", "--data-dir", str(tmp_path)).out
