"""The compiled detectors give river's alarms, at river's places; river is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river import drift

from domain.state import state_hash
from monitoring.adwin_bank import AdwinBank, AdwinRule
from monitoring.drift_kernels import PageHinkleyBank, PageHinkleyRule


def abrupt(n: int = 6_000) -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    return rng.normal(0.4, 0.1, n) + 0.3 * (np.arange(n) >= n // 2)


def recurring(n: int = 6_000) -> NDArray[np.float64]:
    rng = np.random.default_rng(2)
    return 0.5 + 0.3 * np.sign(np.sin(np.arange(n) / 200)) + 0.1 * rng.standard_normal(n)


def clicks(n: int = 20_000) -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    return (rng.random(n) < np.where(np.arange(n) < n // 2, 0.05, 0.12)).astype(np.float64)


STREAMS = {"abrupt": abrupt(), "recurring": recurring(), "clicks": clicks()}


def rivers(detector: Any, values: NDArray[np.float64]) -> list[int]:
    alarms = []
    for index, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            alarms.append(index)
    return alarms


@pytest.mark.parametrize("clock", [1, 32])
@pytest.mark.parametrize("name", STREAMS)
def test_adwin_alarms_where_rivers_does_and_its_window_is_as_wide(name: str, clock: int) -> None:
    oracle = drift.ADWIN(clock=clock)  # type: ignore[no-untyped-call]
    bank = AdwinBank(1, AdwinRule(clock=clock))
    expected = rivers(oracle, STREAMS[name])
    assert bank.run(0, STREAMS[name]).tolist() == expected
    assert expected
    assert bank.widths[0] == oracle.width
    assert bank.totals[0] == oracle.total


def odd(kind: str, n: int = 3_000) -> NDArray[np.float64]:
    """Streams on which a shortcut would go wrong first."""
    rng = np.random.default_rng(4)
    step = (np.arange(n) >= 1_000).astype(np.float64)
    match kind:
        case "constant, then another constant":
            return 1.0 + step
        case "far from zero":
            return 1e9 + rng.normal(0.0, 1.0, n) + step
        case "tiny":
            return 1e-12 * (rng.normal(0.0, 1.0, n) + step)
        case "huge, of both signs":
            return 1e15 * rng.normal(0.0, 1.0, n) + 1e15 * step
        case "one wild value":
            return rng.normal(0.0, 1e-3, n) + 1e12 * (np.arange(n) == 700) + step
        case "small steps, over and over":
            return rng.normal(0.0, 1.0, n) + 0.4 * (np.arange(n) // 500 % 2)
    raise AssertionError(kind)


@pytest.mark.parametrize("clock", [1, 5, 32, 100])
@pytest.mark.parametrize(
    "kind",
    [
        "constant, then another constant",
        "far from zero",
        "tiny",
        "huge, of both signs",
        "one wild value",
        "small steps, over and over",
    ],
)
def test_adwin_takes_no_shortcut_that_river_would_not_agree_with(kind: str, clock: int) -> None:
    oracle = drift.ADWIN(clock=clock)  # type: ignore[no-untyped-call]
    bank, values = AdwinBank(1, AdwinRule(clock=clock)), odd(kind)
    assert bank.run(0, values).tolist() == rivers(oracle, values)
    assert bank.widths[0] == oracle.width
    assert bank.totals[0] == oracle.total


@pytest.mark.parametrize("sizes", [[1], [7, 50, 3], [33, 64, 1_000]])
def test_adwin_does_not_care_in_what_pieces_values_come(sizes: list[int]) -> None:
    values, whole, pieces = recurring(3_000), AdwinBank(1, AdwinRule()), AdwinBank(1, AdwinRule())
    expected = whole.run(0, values).tolist()
    found, begin, number = [], 0, 0
    while begin < len(values):
        end = begin + sizes[number % len(sizes)]
        found += (pieces.run(0, values[begin:end]) + begin).tolist()
        begin, number = end, number + 1
    assert found == expected != []
    assert state_hash(pieces.save()) == state_hash(whole.save())


@pytest.mark.parametrize("threshold", [5.0, 50.0])
@pytest.mark.parametrize("name", STREAMS)
def test_page_hinkley_alarms_where_rivers_does(name: str, threshold: float) -> None:
    oracle = drift.PageHinkley(threshold=threshold)
    bank = PageHinkleyBank(1, PageHinkleyRule(threshold=threshold))
    expected = rivers(oracle, STREAMS[name])
    assert bank.run(0, STREAMS[name]).tolist() == expected
    assert expected


def test_parameters_mean_what_they_mean_in_river() -> None:
    values = recurring()
    adwin = {"delta": 0.3, "max_buckets": 3, "min_window_length": 11, "grace_period": 40}
    expected = rivers(drift.ADWIN(clock=7, **adwin), values)  # type: ignore[no-untyped-call]
    assert AdwinBank(1, AdwinRule(clock=7, **adwin)).run(0, values).tolist() == expected  # type: ignore[arg-type]
    ph = {"min_instances": 9, "delta": 0.1, "threshold": 8.0, "alpha": 0.99}
    expected = rivers(drift.PageHinkley(**ph), values)  # type: ignore[arg-type]
    assert PageHinkleyBank(1, PageHinkleyRule(**ph)).run(0, values).tolist() == expected  # type: ignore[arg-type]


BANKS = {
    "adwin": lambda count: AdwinBank(count, AdwinRule(clock=4)),
    "page_hinkley": lambda count: PageHinkleyBank(count, PageHinkleyRule(threshold=5.0)),
}


@pytest.mark.parametrize("make", BANKS.values(), ids=BANKS)
def test_many_streams_at_once_are_each_as_if_alone(make: Any) -> None:
    value_NS = np.stack([abrupt(3_000), recurring(3_000), np.zeros(3_000)], axis=1)
    value_NS[::7, 2] = np.nan  # nothing to say at these moments
    together = make(3)
    alarm_NS = np.stack([together.update(row_S) for row_S in value_NS])
    for s in range(2):
        assert np.flatnonzero(alarm_NS[:, s]).tolist() == make(1).run(0, value_NS[:, s]).tolist()
        single = make(2)
        shown = [single.show(1, value) for value in value_NS[:, s].tolist()]
        assert shown == alarm_NS[:, s].tolist()
    assert alarm_NS.sum(axis=0)[:2].all()
    assert not alarm_NS[:, 2].any()


@pytest.mark.parametrize("make", BANKS.values(), ids=BANKS)
def test_load_continues_bit_for_bit_where_save_stood(make: Any) -> None:
    values = recurring(3_000)
    straight = make(1)
    whole = straight.run(0, values).tolist()
    for cut in (1, 500, whole[0] + 1, 2_000):
        before, after = make(1), make(1)
        first = before.run(0, values[:cut]).tolist()
        after.load(before.save())
        before.run(0, values[:99])  # what was saved is a copy
        rest = (after.run(0, values[cut:]) + cut).tolist()
        assert first + rest == whole
        assert state_hash(after.save()) == state_hash(straight.save())
