"""The streams watched for drift: what is taken from each micro-batch of settled labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring import quality
from monitoring.drift_detectors import WatchedStream
from monitoring.drift_monitor import DriftMonitor
from monitoring.drift_signal import DriftSignal

ITEM_NOVELTY = "item_novelty"
"""Share of shown items that were not shown before, see `ItemNovelty`; fed when lists are shown."""
USER_NOVELTY = "user_novelty"
"""Share of items shown to users who were shown none before; fed when lists are shown."""
LABEL_DELAY = "label_delay"
"""Log of one plus the seconds from a user's last list to what she took; fed with what is taken."""
LATENESS = "lateness"
"""Log of one plus the seconds by which a list is older than the newest event; fed when shown."""

# A model that learns moves its mean prediction by a tenth within hours while nothing changes: it
# knows more, and what is popular rises and falls. Over 20 stationary seeds .12 was the most.
_SCORE_CHANGE = 0.2


def standard_streams(variants: Sequence[str], heads: Sequence[str]) -> list[WatchedStream]:
    """Return the streams `observe_batch` feeds, and `ITEM_NOVELTY`.

    - `item_novelty`, `user_novelty`: only a rise is a signal; at first everything is new and they
      can but fall.
    - `label_delay`, `lateness`: only a rise is a signal.
    - `label_rate/<head>`: share of positives.
    - `loss/<variant>/<head>`: log loss; only a rise is a signal.
    - `score/<variant>/<head>`: mean prediction; only a change by a fifth is a signal.
    - `calibration/<variant>/<head>`: mean prediction *minus* mean label. The ratio that operators
      read has no value in a micro-batch without positives; the difference always has one.
    - `auc/<variant>/<head>`: AUC of a window of examples; only a fall is a signal.
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
                WatchedStream(name=f"auc/{of}", kind="concept", alarm_on="fall"),
            ]
    return streams


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
