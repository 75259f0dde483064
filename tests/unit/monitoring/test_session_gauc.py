"""Progressive GAUC: sessions that wait for their labels, sessions that are over, and a limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domain.errors import ConfigError
from monitoring import quality
from monitoring.session_gauc import SessionGauc, SessionGaucConfig


def update(
    gauc: SessionGauc, labels: list[int], scores: list[float], session: int, ms: int
) -> None:
    column = (len(labels), 1)
    gauc.update(
        np.array(labels, np.float32).reshape(column),
        np.array(scores, np.float32).reshape(column),
        np.full(len(labels), session),
        np.full(len(labels), ms),
    )


def test_session_counts_as_one_when_its_labels_come_in_several_updates() -> None:
    gauc = SessionGauc(1)
    update(gauc, [1], [0.3], session=7, ms=0)  # the click comes early...
    update(gauc, [0], [0.9], session=8, ms=500)
    update(gauc, [0, 0], [0.1, 0.4], session=7, ms=1_000)  # ...what was not clicked at the end
    assert gauc.get(0) == (0.5, 3)


def test_finished_sessions_leave_memory_and_stay_in_the_value() -> None:
    gauc = SessionGauc(1, SessionGaucConfig(close_after_ms=1_000))
    for session in range(3_000):  # every session is over when the next begins
        scores = [0.9, 0.1] if session % 4 else [0.1, 0.9]
        update(gauc, [1, 0], scores, session, ms=2_000 * session)
    assert gauc.num_open < 4_200
    assert gauc.finished_early == 0
    assert gauc.get(0) == (0.75, 6_000)


def test_oldest_sessions_are_finished_early_and_counted_when_too_many_are_open() -> None:
    gauc = SessionGauc(1, SessionGaucConfig(max_open_examples=8))
    for session in range(5):
        update(gauc, [1, 0], [0.9, 0.1], session, ms=session)
    assert gauc.num_open == 6  # a quarter is free again
    assert gauc.finished_early == 2
    assert gauc.get(0) == (1.0, 10)


def test_sweeps_stay_rare_when_more_sessions_are_open_than_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeps: list[int] = []
    sweep = SessionGauc._finish_sessions

    def counted(gauc: SessionGauc) -> None:
        sweeps.append(gauc.num_open)
        sweep(gauc)

    monkeypatch.setattr(SessionGauc, "_finish_sessions", counted)
    gauc = SessionGauc(1, SessionGaucConfig(max_open_examples=400))
    for session in range(2_000):
        update(gauc, [1, 0], [0.9, 0.1], session, ms=session)
    # 4,000 examples, and each sweep makes room for at least 100.
    assert 0 < len(sweeps) <= 40
    assert max(sweeps) <= 402


def test_session_torn_apart_by_the_limit_counts_as_two() -> None:
    gauc = SessionGauc(1, SessionGaucConfig(max_open_examples=2))
    update(gauc, [1], [0.1], session=0, ms=0)
    update(gauc, [1, 0], [0.9, 0.1], session=1, ms=1)  # finishes session 0, of one class so far
    update(gauc, [0], [0.9], session=0, ms=2)
    assert gauc.get(0) == (1.0, 2)
    assert quality.gauc([1, 1, 0, 0], [0.1, 0.9, 0.1, 0.9], [0, 1, 1, 0]) == 0.5


def test_heads_are_measured_apart_when_labels_are_unknown_for_one() -> None:
    gauc = SessionGauc(2)
    labels = np.array([[1.0, np.nan], [0.0, 1.0], [0.0, 0.0]], np.float32)
    scores = np.array([[0.9, 0.9], [0.5, 0.1], [0.1, 0.5]], np.float32)
    gauc.update(labels, scores, np.zeros(3, np.int64), np.zeros(3, np.int64))
    assert gauc.get(0) == (1.0, 3)
    assert gauc.get(1) == (0.0, 2)


@pytest.mark.parametrize("bad", [{"close_after_ms": 0}, {"max_open_examples": 0}])
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"^session_gauc\.{next(iter(bad))} "):
        replace(SessionGaucConfig(), **bad)
