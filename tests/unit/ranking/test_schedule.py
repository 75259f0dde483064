"""Step sizes over an endless stream: never zero, never above what was configured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigError
from ranking.schedule import ScheduleConfig, rate_factor

SCHEDULES = st.builds(
    ScheduleConfig,
    kind=st.sampled_from(["constant", "inverse_sqrt"]),
    warmup_steps=st.integers(0, 100),
    decay_after=st.integers(100, 10_000),
    floor=st.floats(0.01, 1.0),
)


@given(SCHEDULES, st.integers(0, 10**9))
def test_factor_is_positive_and_at_most_one(config: ScheduleConfig, steps: int) -> None:
    assert 0.0 < rate_factor(config, steps) <= 1.0


@given(SCHEDULES, st.integers(0, 10**6))
def test_factor_rises_while_warming_up_and_never_after(config: ScheduleConfig, steps: int) -> None:
    now, then = rate_factor(config, steps), rate_factor(config, steps + 1)
    assert now <= then if steps < config.warmup_steps else now >= then


def test_default_changes_nothing() -> None:
    assert {rate_factor(ScheduleConfig(), steps) for steps in (0, 10, 10**8)} == {1.0}


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"kind": "cosine"}, "kind"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"decay_after": 0}, "decay_after"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_config_names_the_key(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.schedule\.{key} must"):
        ScheduleConfig(**values)  # type: ignore[arg-type]
