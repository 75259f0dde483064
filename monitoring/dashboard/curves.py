"""From samples to what a curve shows: rates, quantiles, gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitoring.metric_history import Frame, Values

Times = NDArray[np.int64]


def increases(values: Values) -> Values:
    """Return by how much a counter rose since the sample before, (N,); the first is NaN.

    A counter that fell began again at 0 with its process; one that appears began at 0 too.

    >>> increases(np.array([5.0, 7.0, 1.0, 1.0])).tolist()
    [nan, 2.0, 1.0, 0.0]
    >>> increases(np.array([np.nan, 3.0, 4.0])).tolist()
    [nan, 3.0, 1.0]
    """
    if len(values) == 0:
        return values
    before = np.insert(values[:-1], 0, np.nan)
    steps = values - np.nan_to_num(before)
    steps[0] = np.nan
    return np.where(steps < 0, values, steps)


def rate(frame: Frame, name: str, **labels: str) -> Values:
    """Return a counter's increase per second, (N,), summed over matching series."""
    found = [increases(values) for _, values in frame.matching(name, **labels)]
    if not found or len(frame) == 0:
        return np.full(len(frame), np.nan)
    stacked = np.stack(found)
    total = np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))
    seconds = np.diff(frame.times_ms, prepend=frame.times_ms[0] - 1) / 1_000
    return np.asarray(total / seconds)


def recent(frame: Frame, within_ms: int, name: str, **labels: str) -> float | None:
    """Return by how much a counter rose within the last `within_ms`; None when nobody knows."""
    if len(frame) < 2:
        return None
    is_recent = frame.times_ms > frame.times_ms[-1] - within_ms
    found = [increases(values)[is_recent] for _, values in frame.matching(name, **labels)]
    return float(np.nansum(np.concatenate(found))) if found else None


def quantile(frame: Frame, share: float, name: str, **labels: str) -> Values:
    """Return a quantile of what a histogram took in since the sample before, (N,), as Prometheus.

    Within a bucket values are thought to be spread evenly; what is above the last bucket counts
    as its bound. NaN where nothing came.
    """
    found = [
        (float(own["le"]), increases(values))
        for own, values in frame.matching(f"{name}_bucket", **labels)
    ]
    if not found:
        return np.full(len(frame), np.nan)
    bounds = sorted({bound for bound, _ in found})
    counts_NB = np.stack(
        [np.sum([values for own, values in found if own == bound], axis=0) for bound in bounds],
        axis=1,
    )
    return np.array([_quantile(row, np.array(bounds), share) for row in counts_NB])


def quantile_of_last(
    frame: Frame, within_ms: int, share: float, name: str, **labels: str
) -> float | None:
    """Return a quantile of what a histogram took in within the last `within_ms`."""
    bounds = sorted({float(own["le"]) for own, _ in frame.matching(f"{name}_bucket", **labels)})
    counts = [
        recent(frame, within_ms, f"{name}_bucket", **labels, le=_le(bound)) or 0.0
        for bound in bounds
    ]
    found = _quantile(np.array(counts), np.array(bounds), share) if counts else np.nan
    return None if np.isnan(found) else float(found)


def with_gaps(times_ms: Times, values: Values) -> tuple[Times, Values]:
    """Return the same samples with NaN in every pause, so that no line is drawn across it."""
    if len(times_ms) < 3:
        return times_ms, values
    steps = np.diff(times_ms)
    # Older samples are minutes apart, newer ones seconds: a pause is long for its surroundings.
    nearby = np.maximum(np.append(steps[1:], steps[-1]), np.insert(steps[:-1], 0, steps[0]))
    after = np.flatnonzero(steps > np.maximum(4 * nearby, 60_000))
    return (
        np.insert(times_ms, after + 1, times_ms[after] + 1),
        np.insert(values, after + 1, np.nan),
    )


def processing_time(frame: Frame, event_time_ms: int) -> int | None:
    """Return when the trainer had reached an event time; None outside what the samples cover."""
    event_s = frame.get("headrace_stream_event_time_seconds")
    known = ~np.isnan(event_s)
    if not known.any():
        return None
    reached = np.flatnonzero(known & (event_s * 1_000 >= event_time_ms))
    if len(reached) == 0 or (reached[0] == np.flatnonzero(known)[0] and reached[0] == 0):
        is_first = len(reached) > 0 and event_s[reached[0]] * 1_000 == event_time_ms
        return int(frame.times_ms[0]) if is_first else None
    return int(frame.times_ms[reached[0]])


def _quantile(counts: Values, bounds: Values, share: float) -> float:
    total = counts[-1]
    if not total > 0:
        return float("nan")
    rank = share * total
    bucket = int(np.searchsorted(counts, rank))
    if bucket >= len(bounds) - 1:
        return float(bounds[-2])
    low, before = (0.0, 0.0) if bucket == 0 else (bounds[bucket - 1], counts[bucket - 1])
    inside = counts[bucket] - before
    return float(low + (bounds[bucket] - low) * (rank - before) / inside)


def _le(bound: float) -> str:
    return "+Inf" if np.isinf(bound) else str(bound)
