"""Counts against slow twins that shrink every number at every action."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.popularity import DecayedPopularity
from retrieval.transitions import DecayedTransitions

HALF_LIFE = 1_000
NUM = 6

rows = st.integers(0, NUM - 1)
gaps = st.one_of(st.integers(0, 3 * HALF_LIFE), st.integers(0, 700 * HALF_LIFE))


class SlowPopularity:
    """The dictionary twin: all counts are shrunk to the newest time, then one is raised."""

    def __init__(self) -> None:
        self.counts: dict[int, float] = {}
        self.now = 0

    def learn(self, row: int, time_ms: int) -> None:
        later = max(self.now, time_ms)
        shrink = 2.0 ** (-(later - self.now) / HALF_LIFE)
        self.counts = {item: count * shrink for item, count in self.counts.items()}
        self.now = later
        worth = 2.0 ** (-(later - time_ms) / HALF_LIFE)
        self.counts[row] = self.counts.get(row, 0.0) + worth

    def share(self, row: int) -> float:
        return self.counts.get(row, 0.0) / sum(self.counts.values())


class SlowTransitions:
    """The dictionary twin: per origin, successors in the order of their slots."""

    def __init__(self, max_successors: int) -> None:
        self.max_successors = max_successors
        self.slots: dict[int, list[list[float]]] = {}
        self.totals: dict[int, float] = {}
        self.now = 0

    def learn(self, origin: int, successor: int, time_ms: int) -> None:
        shrink = 2.0 ** (-(time_ms - self.now) / HALF_LIFE)
        self.now = time_ms
        for entries in self.slots.values():
            for entry in entries:
                entry[1] *= shrink
        self.totals = {item: total * shrink for item, total in self.totals.items()}
        self.totals[origin] = self.totals.get(origin, 0.0) + 1.0
        entries = self.slots.setdefault(origin, [])
        for entry in entries:
            if entry[0] == successor:
                entry[1] += 1.0
                return
        if len(entries) == self.max_successors:
            weakest = min(range(len(entries)), key=lambda slot: entries[slot][1])
            entries[weakest] = [successor, 1.0]
        else:
            entries.append([successor, 1.0])

    def shares(self, origin: int, time_ms: int) -> dict[int, float]:
        shrink = 2.0 ** (-(time_ms - self.now) / HALF_LIFE)
        whole = self.totals.get(origin, 0.0) * shrink + 0.3
        return {int(s): count * shrink / whole for s, count in self.slots.get(origin, [])}


@given(
    actions=st.lists(st.tuples(rows, gaps, st.integers(0, 5_000)), min_size=1, max_size=40),
    size=st.integers(1, 7),
)
def test_popularity_equals_its_slow_twin_however_the_stream_is_cut(
    actions: list[tuple[int, int, int]], size: int
) -> None:
    fast, slow = DecayedPopularity((HALF_LIFE,)), SlowPopularity()
    fast.grow(NUM)
    newest, stream = 0, []
    for row, gap, lateness in actions:
        newest += gap
        stream.append((row, max(newest - lateness, 0)))
    for first in range(0, len(stream), size):
        part = np.array(stream[first : first + size], np.int64)
        fast.learn(part[:, 0], part[:, 1])
        for row, time_ms in part.tolist():
            slow.learn(row, time_ms)
        expected = [slow.share(row) for row in range(NUM)]
        np.testing.assert_allclose(fast.shares()[0], expected, rtol=1e-9, atol=1e-12)


@given(
    # Without long silences: counts that underflow to zero tie, and ties may be broken either way.
    steps=st.lists(st.tuples(rows, rows, st.integers(1, 20 * HALF_LIFE)), max_size=40),
    size=st.integers(1, 7),
    wait=st.integers(0, 10 * HALF_LIFE),
)
def test_transitions_equal_their_slow_twin_however_the_stream_is_cut(
    steps: list[tuple[int, int, int]], size: int, wait: int
) -> None:
    fast = DecayedTransitions((HALF_LIFE,), max_successors=3, smoothing=0.3)
    slow = SlowTransitions(3)
    fast.grow(NUM)
    now, stream = 0, []
    for origin, successor, gap in steps:
        now += gap
        stream.append((origin, successor, now))
    for first in range(0, len(stream), size):
        part = np.array(stream[first : first + size], np.int64)
        fast.learn(part[:, 0], part[:, 1], part[:, 2])
    for origin, successor, time_ms in stream:
        slow.learn(origin, successor, time_ms)
    for origin in range(NUM):
        found = fast.successors(np.array([origin]), np.array([now + wait]))
        got = dict(zip(found.rows.tolist(), found.shares[0].tolist(), strict=True))
        expected = slow.shares(origin, now + wait)
        assert got.keys() == expected.keys()
        for successor, share in expected.items():
            np.testing.assert_allclose(got[successor], share, rtol=1e-9)
