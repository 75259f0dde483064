"""The streams watched for drift: what is taken from each micro-batch of settled labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring import quality
from monitoring.drift_detectors import WatchedStream
from monitoring.drift_monitor import DriftMonitor
from monitoring.drift_signal import DriftSignal
from monitoring.quality_windows import WindowQuality
from monitoring.score_skew import SkewPoint

ITEM_NOVELTY = "item_novelty"
"""Share of shown items that were not shown before, see `ItemNovelty`; fed when lists are shown."""
USER_NOVELTY = "user_novelty"
"""Share of items shown to users who were shown none before; fed when lists are shown."""
LABEL_DELAY = "label_delay"
"""Log of one plus the seconds from a user's last list to what she took; fed with what is taken."""
LATENESS = "lateness"
"""Log of one plus the seconds by which a list is older than the newest event; fed when shown."""
DUPLICATES = "duplicates"
"""Share of events whose id was seen before; fed when lists are shown."""
DEAD_LETTERS = "dead_letters"
"""Share of events that were set aside; fed when lists are shown."""
UNRANKED = "unranked"
"""Share of served lists that were not in the ranker's order; fed when lists are shown."""
SKEW_DISTANCE = "skew/distance"
"""How far served scores are from the trainer's, see `ScoreSkew`; fed with settled labels."""
SKEW_ORDER = "skew/order"
"""Rank correlation of served scores and the trainer's; fed with settled labels."""
VECTOR_NORM = "vectors/norm"
"""Mean length of item vectors; fed by the learners, as are all below."""
VECTOR_MOVEMENT = "vectors/movement"
"""How far item vectors moved, as a share of their length, per hour."""
VECTOR_NEIGHBOURS = "vectors/neighbours"
"""Share of the nearest items of an item that are no longer its nearest."""
EMPTY_BUCKETS = "memory/empty"
"""Share of the error memory's buckets that hold nothing."""

# Windows are eight and four times as large as ordinary points, of which 100 are passed over.
_SETTLED_WINDOWS = 13
_SETTLED_SKEWS = 25

# A model that learns moves its mean prediction by a tenth within hours while nothing changes: it
# knows more, and what is popular rises and falls; that of a rare label moves by a fifth in a real
# ranker's first day.
_SCORE_CHANGE = 0.3


def standard_streams(variants: Sequence[str], heads: Sequence[str]) -> list[WatchedStream]:
    """Return every stream that is watched, whoever feeds it.

    - `item_novelty`, `user_novelty`: only a rise is a signal; at first everything is new and they
      can but fall.
    - `label_delay`, `lateness`: only a rise is a signal.
    - `label_rate/<head>`: share of positives.
    - `loss/<variant>/<head>`: log loss; only a rise is a signal.
    - `score/<variant>/<head>`: mean prediction; only a change by three tenths is a signal.
    - `calibration/<variant>/<head>`: mean prediction *minus* mean label. The ratio that operators
      read has no value in a micro-batch without positives; the difference always has one.
    - `auc/<variant>/<head>`: AUC of a window of examples; only a fall is a signal.
    - `ne/<variant>/<head>`: normalized entropy of the same window; only a rise is a signal.
    - and those of `_serving_streams`, `_model_streams` and `_arrival_streams`.
    """
    streams = [
        WatchedStream(name=ITEM_NOVELTY, kind="covariate", alarm_on="rise"),
        WatchedStream(name=USER_NOVELTY, kind="covariate", alarm_on="rise"),
        WatchedStream(name=LABEL_DELAY, kind="label", alarm_on="rise"),
        WatchedStream(name=LATENESS, kind="stream", alarm_on="rise"),
    ]
    streams += [WatchedStream(name=f"label_rate/{head}", kind="label") for head in heads]
    for variant in variants:
        for head in heads:
            of = f"{variant}/{head}"
            streams += [
                WatchedStream(name=f"loss/{of}", kind="concept", alarm_on="rise"),
                WatchedStream(name=f"score/{of}", kind="covariate", least_change=_SCORE_CHANGE),
                WatchedStream(name=f"calibration/{of}", kind="concept"),
                WatchedStream(
                    name=f"auc/{of}", kind="concept", alarm_on="fall", settle=_SETTLED_WINDOWS
                ),
                WatchedStream(
                    name=f"ne/{of}", kind="concept", alarm_on="rise", settle=_SETTLED_WINDOWS
                ),
            ]
    return [*streams, *_arrival_streams(), *_serving_streams(), *_model_streams(heads)]


def lambda_stream(head: str) -> str:
    """Return the name of the stream of a head's lambda.

    >>> lambda_stream("click")
    'memory/lambda/click'
    """
    return f"memory/lambda/{head}"


def _arrival_streams() -> list[WatchedStream]:
    """Return what says how events arrive: shares that are often 0, and of which a rise is bad."""
    return [
        WatchedStream(
            name=name, kind="stream", alarm_on="rise", least_move=0.02, least_deviation=0.01
        )
        for name in (DUPLICATES, DEAD_LETTERS)
    ]


def _serving_streams() -> list[WatchedStream]:
    """Return what says whether servers answer as the trainer would.

    A tenth in log-odds is 2 points of a probability of .3: less is nothing that a user could see.
    """
    return [
        WatchedStream(
            name=UNRANKED, kind="model", alarm_on="rise", least_move=0.05, least_deviation=0.02
        ),
        WatchedStream(
            name=SKEW_DISTANCE, kind="model", alarm_on="rise", least_move=0.1, least_deviation=0.01,
            settle=_SETTLED_SKEWS,
        ),
        WatchedStream(
            name=SKEW_ORDER, kind="model", alarm_on="fall", least_move=0.05, least_deviation=0.005,
            settle=_SETTLED_SKEWS,
        ),
    ]  # fmt: skip


def _model_streams(heads: Sequence[str]) -> list[WatchedStream]:
    """Return what says whether the models are still what they were.

    All of them move while a model learns, and slowly ever after: only a change that leaves the
    ordinary far behind is a signal.
    """
    return [
        WatchedStream(name=VECTOR_NORM, kind="model", least_change=0.5),
        WatchedStream(
            name=VECTOR_MOVEMENT, kind="model", alarm_on="rise", least_change=1.0, least_move=0.05
        ),
        WatchedStream(
            name=VECTOR_NEIGHBOURS, kind="model", alarm_on="rise", least_move=0.1,
            least_deviation=0.01,
        ),
        WatchedStream(name=EMPTY_BUCKETS, kind="model", least_move=0.1, least_deviation=0.01),
        *(
            WatchedStream(
                name=lambda_stream(head), kind="model", least_move=0.5, least_deviation=0.05
            )
            for head in heads
        ),
    ]  # fmt: skip


def observe_batch(
    monitor: DriftMonitor,
    heads: Sequence[str],
    label_NH: NDArray[np.float32],
    scores: Mapping[str, NDArray[np.float32]],
    event_time_ms: int,
) -> list[DriftSignal]:
    """Feed one micro-batch of N examples to the monitor; return the new signals.

    Labels are 0, 1, or NaN for not known; `scores` has the probabilities (N, H) of each variant,
    made before the labels were known.
    """
    signals: list[DriftSignal] = []
    for head, name in enumerate(heads):
        known_N = ~np.isnan(label_NH[:, head])
        for score_NH in scores.values():
            known_N &= np.isfinite(score_NH[:, head])
        examples = int(known_N.sum())
        if examples == 0:
            continue
        label_N = label_NH[known_N, head]
        rate = float(label_N.mean(dtype=np.float64))
        signals += monitor.observe(f"label_rate/{name}", rate, examples, event_time_ms)
        for variant, score_NH in scores.items():
            score_N = score_NH[known_N, head]
            loss = float(quality.log_losses(label_N, score_N).mean())
            score = float(score_N.mean(dtype=np.float64))
            of = f"{variant}/{name}"
            signals += monitor.observe(f"loss/{of}", loss, examples, event_time_ms)
            signals += monitor.observe(f"score/{of}", score, examples, event_time_ms)
            signals += monitor.observe(f"calibration/{of}", score - rate, examples, event_time_ms)
    return signals


def observe_windows(
    monitor: DriftMonitor,
    heads: Sequence[str],
    windows: Sequence[WindowQuality],
    event_time_ms: int,
) -> list[DriftSignal]:
    """Feed what full windows say; return the new signals."""
    signals: list[DriftSignal] = []
    for window in windows:
        of = f"{window.variant}/{heads[window.head]}"
        for name, value in (("auc", window.auc), ("ne", window.normalized_entropy)):
            if value is not None:
                signals += monitor.observe_point(f"{name}/{of}", value, event_time_ms)
    return signals


def observe_skew(
    monitor: DriftMonitor, point: SkewPoint | None, event_time_ms: int
) -> list[DriftSignal]:
    """Feed what a full window of served scores says, if there is one; return the new signals."""
    if point is None:
        return []
    signals = monitor.observe_point(SKEW_DISTANCE, point.distance, event_time_ms)
    if point.order is not None:
        signals += monitor.observe_point(SKEW_ORDER, point.order, event_time_ms)
    return signals
