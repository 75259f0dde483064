from __future__ import annotations

import pytest

from domain.errors import ConfigError
from domain.state import state_hash
from stream.watermark import Watermark, WatermarkConfig

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def _after(times_ms: list[int], **config: int) -> Watermark:
    watermark = Watermark(WatermarkConfig(**config))
    for time_ms in times_ms:
        watermark.observe(time_ms)
    return watermark


def test_watermark_trails_the_newest_event_by_the_allowed_lateness() -> None:
    watermark = _after([5_000, 9_000, 7_000], allowed_lateness_ms=1_000)
    assert watermark.newest_ms == 9_000
    assert watermark.time_ms == 8_000


def test_watermark_is_zero_before_events_and_never_negative() -> None:
    assert Watermark().time_ms == 0
    assert _after([10, 20], allowed_lateness_ms=1_000).time_ms == 0


def test_event_is_late_only_when_older_than_the_watermark() -> None:
    watermark = _after([1_000, 2_000], allowed_lateness_ms=500)
    assert watermark.observe(1_500) is False  # as old as the watermark
    assert watermark.observe(1_499) is True
    assert watermark.late == 1


def test_one_event_far_in_the_future_is_not_believed() -> None:
    watermark = _after([1_000, 2_000, 100 * DAY_MS, 3_000], allowed_lateness_ms=0)
    assert watermark.time_ms == 3_000
    assert watermark.jumps == 1
    assert watermark.observe(2_999) is True
    assert watermark.observe(3_001) is False


def test_broken_events_are_never_believed_when_honest_ones_come_between() -> None:
    times_ms = [1_000, 2_000]
    for step in range(100):
        times_ms += [100 * DAY_MS + step, 3_000 + step]
    watermark = _after(times_ms, allowed_lateness_ms=0, confirmations=2)
    assert watermark.newest_ms == 3_099
    assert watermark.jumps == 100


def test_night_is_believed_when_enough_events_confirm_it() -> None:
    day = [1_000, 2_000]
    next_day = [DAY_MS + 10, DAY_MS + 20, DAY_MS + 30]
    held = _after(day + next_day[:2], allowed_lateness_ms=0, confirmations=2)
    assert held.newest_ms == 2_000
    through = _after(day + next_day, allowed_lateness_ms=0, confirmations=2)
    assert through.newest_ms == DAY_MS + 30


def test_earliest_suspect_is_believed_when_a_broken_one_is_among_them() -> None:
    times_ms = [1_000, 2_000, DAY_MS, 900 * DAY_MS, DAY_MS + 5]
    watermark = _after(times_ms, allowed_lateness_ms=0, confirmations=2)
    assert watermark.newest_ms == DAY_MS + 5


def test_log_whose_every_step_is_a_jump_gets_through() -> None:
    watermark = _after([day * DAY_MS for day in range(1, 101)], confirmations=3)
    assert watermark.newest_ms == 97 * DAY_MS


def test_first_event_is_not_believed_when_the_second_is_far_behind_it() -> None:
    watermark = _after([900 * DAY_MS], allowed_lateness_ms=0)
    assert watermark.time_ms == 0
    watermark.observe(5_000)
    assert watermark.time_ms == 5_000
    assert watermark.observe(6_000) is False
    assert watermark.jumps == 1


def test_every_event_is_believed_when_jumps_are_switched_off() -> None:
    watermark = _after([1_000, 900 * DAY_MS], allowed_lateness_ms=0, max_jump_ms=0)
    assert watermark.time_ms == 900 * DAY_MS
    assert _after([1_000], allowed_lateness_ms=0, max_jump_ms=0).time_ms == 1_000


def test_watermark_continues_exactly_when_loaded() -> None:
    times_ms = [1_000, 2_000, DAY_MS, 1_500, DAY_MS + 5, DAY_MS + 9, 0, DAY_MS + 7]
    config = WatermarkConfig(allowed_lateness_ms=100, confirmations=2)
    for cut in range(len(times_ms)):
        one, two = Watermark(config), Watermark(config)
        for time_ms in times_ms[:cut]:
            one.observe(time_ms)
        two.load(one.save())
        for time_ms in times_ms[cut:]:
            assert one.observe(time_ms) == two.observe(time_ms)
        assert state_hash(one.save()) == state_hash(two.save())


@pytest.mark.parametrize(
    ("name", "value"), [("allowed_lateness_ms", -1), ("max_jump_ms", -1), ("confirmations", 0)]
)
def test_config_names_the_key_when_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"^watermark\.{name} must be at least"):
        WatermarkConfig(**{name: value})
