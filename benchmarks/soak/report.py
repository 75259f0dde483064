"""What a soak has shown: a verdict in three sentences, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = Sequence[Mapping[str, Any]]

MOST_GROWTH = 0.05
"""Memory is flat when it grows by less than this share of itself in an hour."""
_JUDGED_FROM_S = 1_200.0
"""Below twenty minutes half of a soak says nothing about an hour: memory is shown, not judged."""
_MOST_LAG_S = 10.0
"""Lag is bounded when it stays below so many seconds' worth of events in the last half."""
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """One question and its answer; `ok` is None where the soak was too short to tell."""

    question: str
    answer: str
    ok: bool | None


def judge(samples: Samples, rate: float) -> list[Judgement]:
    """Return what the last half of a soak says of memory and lag, and all of it of errors."""
    half = samples[len(samples) // 2 :]
    judged = samples[-1]["t_s"] >= _JUDGED_FROM_S
    judgements = []
    for process in ("trainer", "server"):
        level, growth = growth_per_hour(half, process)
        judgements.append(
            Judgement(
                f"memory of the {process}",
                f"{level:.0f} MB, {growth:+.1f} MB an hour ({100 * growth / level:+.1f} %)",
                growth < MOST_GROWTH * level if judged else None,
            )
        )
    lags = [sum(sample["lag"].values()) for sample in half]
    judgements.append(
        Judgement(
            "consumer lag",
            f"{np.median(lags):.0f} records (median), {max(lags):.0f} (most)",
            max(lags) < _MOST_LAG_S * rate,
        )
    )
    errors = samples[-1]["errors"]
    told = ", ".join(f"{name}: {number:.0f}" for name, number in errors.items())
    judgements.append(Judgement("errors", told or "none", not errors))
    return judgements


def growth_per_hour(samples: Samples, process: str) -> tuple[float, float]:
    """Return a process's median memory in MB and by how many MB it grows in an hour.

    The line is laid through the smallest value of each minute, which is what is left when a
    snapshot, written or loaded, has given its memory back.
    """
    times_s = np.array([sample["t_s"] for sample in samples])
    rss_mb = np.array([sample["rss_mb"][process] for sample in samples])
    minutes = (times_s // _MINUTE_S).astype(int)
    lows = [rss_mb[minutes == minute].min() for minute in np.unique(minutes)]
    if len(lows) < 2:
        return float(np.median(rss_mb)), 0.0
    slope_per_minute = np.polyfit(np.arange(len(lows)), lows, 1)[0]
    return float(np.median(rss_mb)), 60.0 * float(slope_per_minute)


_TRAINER, _SERVER, _THIRD = "#1f6feb", "#d1570a", "#57606a"


def draw(samples: Samples, rate: float, path: Path) -> None:
    """Draw memory, events, lag and answers over time; one file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    minutes = np.array([sample["t_s"] for sample in samples]) / 60.0
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(4, 1, figsize=(9, 9.5), sharex=True)
    _lines(
        axes[0],
        minutes,
        {
            "trainer": (_values(samples, "rss_mb", "trainer"), _TRAINER),
            "server": (_values(samples, "rss_mb", "server"), _SERVER),
        },
        "memory (RSS), MB",
    )
    _lines(
        axes[1],
        minutes[1:],
        {"learned": (_values(samples[1:], "events_per_s"), _TRAINER)},
        "events a second",
    )
    axes[1].axhline(rate, color=_THIRD, linewidth=1, linestyle=":", label="asked for")
    lag = np.array([float(sum(sample["lag"].values())) for sample in samples])
    age = _values(samples, "snapshot_age_s")
    _lines(
        axes[2],
        minutes,
        {
            "lag, records": (lag, _TRAINER),
            "queue, events": (_values(samples, "queue_events"), _THIRD),
            "snapshot age, s": (age, _SERVER),
        },
        "lag, queue, age",
    )
    axes[2].set_yscale("symlog", linthresh=10)
    _lines(
        axes[3],
        minutes,
        {
            "p99": (_values(samples, "p99_ms"), _SERVER),
            "p50": (_values(samples, "p50_ms"), _TRAINER),
        },
        "Recommend, ms",
    )
    for axis in axes:
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderpad=0)
    for axis in (axes[0], axes[1], axes[3]):
        axis.set_ylim(bottom=0)
    axes[3].set_xlabel("minutes")
    figure.align_ylabels(axes)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _lines(
    axis: Any,
    minutes: NDArray[np.float64],
    named: Mapping[str, tuple[NDArray[np.float64], str]],
    label: str,
) -> None:
    for name, (values, color) in named.items():
        axis.plot(minutes, values, label=name, color=color, linewidth=1.2)
    axis.set_ylabel(label)
    axis.grid(axis="y", color="#d0d7de", linewidth=0.6)
    axis.set_axisbelow(True)


def _values(samples: Samples, name: str, key: str | None = None) -> NDArray[np.float64]:
    found = [sample[name] if key is None else sample[name][key] for sample in samples]
    return np.array([np.nan if one is None else one for one in found], float)
