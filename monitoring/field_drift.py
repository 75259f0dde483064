"""From what is known of fields to drift signals: a threshold, twice in a row, and a way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from domain.state import State
from monitoring.drift_signal import DriftSignal, Measure
from monitoring.drift_sinks import DriftSink
from monitoring.field_watch import FieldState, FieldWatch, FieldWatchConfig, field_windows
from monitoring.signal_book import SignalBook

_IN_A_ROW = 2
_CALM_TIMES = 2.0
"""A field must move by this many times what its reference shows between its own halves."""
_WAY_BACK = 0.5
"""A signal ends when less than this share of the threshold is left."""
_DEVIATIONS = 6.0
"""A share must rise by as many standard errors; values of one user or item come together, so each
counts as a tenth of one."""
_TOGETHER = 10.0

_Contributors: TypeAlias = tuple[tuple[str, float], ...]


class FieldDrift:
    """Gives signals for fields, and says which fields moved when something else changes."""

    def __init__(
        self,
        watch: FieldWatch,
        config: FieldWatchConfig,
        book: SignalBook,
        sinks: Sequence[DriftSink] = (),
    ) -> None:
        self._watch = watch
        self._config = config
        self._book = book
        self._sinks = tuple(sinks)
        self._in_a_row: dict[str, tuple[int, int]] = {}  # by stream: how often, since when
        self._excess_F = np.zeros(len(watch.names))
        self._reported_ms = 0

    def take(self, state: FieldState) -> list[DriftSignal]:
        """Look at the fields after a step; return the new signals."""
        config = self._config
        from_F = config.psi_from + _CALM_TIMES * state.calm
        self._excess_F = np.nan_to_num(np.maximum(state.psi_reference - from_F, 0.0))
        found: list[DriftSignal] = []
        for index, name in enumerate(self._watch.names):
            found += self._judge(
                f"field/{name}", "psi", state, (state.psi_reference[index], from_F[index]),
                float(state.calm[index]), index,
            )  # fmt: skip
            for what, now_F, before_F in (
                ("missing", state.missing, state.missing_before),
                ("unseen", state.unseen, state.unseen_before),
            ):
                before = float(before_F[index])
                if np.isnan(now_F[index]) or np.isnan(before):
                    continue
                least = _least_rise(before, float(state.examples[index]), config.share_from)
                found += self._judge(
                    f"{what}/{name}", "share", state, (now_F[index], before + least), before, index
                )
        self._report(state)
        return found

    def explain(self, signal: DriftSignal) -> _Contributors:
        """Return which fields moved, each with its part of all movement; at most 3."""
        del signal
        total = float(self._excess_F.sum())
        order = np.argsort(-self._excess_F, kind="stable")[:3].tolist()
        return tuple(
            (self._watch.names[f], float(self._excess_F[f]) / total)
            for f in order
            if self._excess_F[f] > 0.0
        )

    def _judge(
        self,
        stream: str,
        measure: Measure,
        state: FieldState,
        now_and_from: tuple[float, float],
        before: float,
        index: int,
    ) -> list[DriftSignal]:
        """Compare one number with the threshold; return the signal, if there is a new one."""
        now, least = (float(number) for number in now_and_from)
        live = self._book.live_of(stream)
        if np.isnan(now) or now < least:
            self._in_a_row.pop(stream, None)
            if live is not None and now - before < _WAY_BACK * (least - before):
                self._book.end(stream, state.ended_ms)
            return []
        times, since_ms = self._in_a_row.get(stream, (0, state.step_ms))
        self._in_a_row[stream] = (times + 1, since_ms)
        if times + 1 < _IN_A_ROW:
            return []
        signal = DriftSignal(
            stream=stream,
            kind="covariate",
            detector=measure,
            time_ms=state.ended_ms,
            since_ms=since_ms,
            before=before,
            after=now,
            deviations=0.0,
            points_before=self._config.reference_steps,
            points_after=self._config.window_steps,
            measure=measure,
            compared_with="the last day" if stream.startswith("unseen/") else "the reference",
            contributors=self._watch.psi_parts(index) if measure == "psi" else (),
        )
        return [signal] if self._book.give(signal) else []

    def _report(self, state: FieldState) -> None:
        if state.ended_ms - self._reported_ms < self._config.report_ms:
            return
        self._reported_ms = state.ended_ms
        names = self._watch.names
        if not self._sinks:
            return
        windows = field_windows(names, state, range(len(names)))
        distributions = self._watch.distributions()
        for sink in self._sinks:
            sink.write_fields(windows, distributions)

    def save(self) -> State:
        """Return what must survive a restart beside the counts."""
        return {
            "in_a_row": {name: list(one) for name, one in self._in_a_row.items()},
            "excess": self._excess_F.copy(),
            "reported_ms": self._reported_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described; of other fields than there are now nothing is taken."""
        if len(state["excess"]) != len(self._excess_F):
            return
        self._in_a_row = {name: (int(a), int(b)) for name, (a, b) in state["in_a_row"].items()}
        self._excess_F = state["excess"].copy()
        self._reported_ms = state["reported_ms"]


def _least_rise(before: float, examples: float, share_from: float) -> float:
    """Return by how much a share must rise to be more than chance, and more than nothing."""
    independent = max(examples / _TOGETHER, 1.0)
    # Where a share was 0, one in all the examples is the least that can be said.
    rate = max(before, 1.0 / independent)
    return max(
        share_from, _DEVIATIONS * float(np.sqrt(rate * (1.0 - min(rate, 1.0)) / independent))
    )
