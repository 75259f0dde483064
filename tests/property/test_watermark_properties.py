from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.watermark import Watermark, WatermarkConfig

TIMES = st.lists(st.integers(0, 10_000), max_size=60)


@given(times_ms=TIMES, max_jump_ms=st.sampled_from([0, 10, 500, 20_000]))
def test_watermark_never_goes_back_nor_past_the_newest_event(
    times_ms: list[int], max_jump_ms: int
) -> None:
    config = WatermarkConfig(allowed_lateness_ms=50, max_jump_ms=max_jump_ms, confirmations=2)
    watermark, before_ms = Watermark(config), 0
    for count, time_ms in enumerate(times_ms, 1):
        was_late = watermark.observe(time_ms)
        assert was_late == (time_ms < before_ms)
        assert before_ms <= watermark.time_ms
        assert watermark.newest_ms <= max(times_ms[:count])
        before_ms = watermark.time_ms


@given(times_ms=TIMES)
def test_watermark_is_the_plain_maximum_when_nothing_jumps(times_ms: list[int]) -> None:
    watermark = Watermark(WatermarkConfig(allowed_lateness_ms=50, max_jump_ms=20_000))
    for count, time_ms in enumerate(times_ms, 1):
        watermark.observe(time_ms)
        if count > 1:
            assert watermark.time_ms == max(max(times_ms[:count]) - 50, 0)
    assert watermark.jumps == 0


@given(times_ms=TIMES, place=st.integers(0, 60), confirmations=st.integers(1, 4))
def test_one_broken_clock_changes_nothing_when_the_log_goes_on(
    times_ms: list[int], place: int, confirmations: int
) -> None:
    config = WatermarkConfig(
        allowed_lateness_ms=50, max_jump_ms=20_000, confirmations=confirmations
    )
    honest, broken = Watermark(config), Watermark(config)
    times_ms = [*sorted(times_ms), 10_001, 10_002]  # the log goes on after the broken event
    late = [honest.observe(time_ms) for time_ms in times_ms]
    place = min(place, len(times_ms) - 2)
    broken_late = []
    for at, time_ms in enumerate(times_ms):
        if at == place:
            broken.observe(10**15)
        broken_late.append(broken.observe(time_ms))
    assert broken.time_ms == honest.time_ms
    assert broken_late == late
