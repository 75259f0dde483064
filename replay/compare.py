"""Two replays of the same events: which is better, by how much, and how sure that is.

Differences are paired: both runs scored the same examples, and every draw of users takes the same
users from both, so what all runs find hard cancels out. Two things must hold before a difference
counts (`Difference.verdict`): the whole 95 % interval lies on one side of zero, and beyond the
margin. The margin is there for what the interval cannot know: another seed of the same model moves
every number a little, for all users alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError, DatasetError
from replay.intervals import METRICS, BootstrapConfig, Draws, draw_means, draw_measures, estimate
from replay.records import ReplayRecords
from replay.report import RANK_METRICS, rank_gains

Verdict = Literal["better", "worse", "no difference", "n/a"]

LOWER_IS_BETTER = ("ne", "log_loss", "ece")
TITLES = {
    "auc": "AUC",
    "gauc": "session GAUC",
    "naive_gauc": "naive GAUC",
    "ne": "NE",
    "log_loss": "log loss",
    "calibration": "calibration",
    "ece": "ECE",
    **{name: name.replace("ndcg", "NDCG").replace("hr@", "HR@") for name in RANK_METRICS},
    "mrr": "MRR",
}
DEFAULT_METRICS = ("auc", "gauc", "ne", "recall@20", "mrr")

# A choice: about a tenth of what separates the models from the counters on KuaiRand-Pure. Two seeds
# of the same model over its first 20,000 impressions differ by .0000 to .0017 in AUC, .024 to .029
# in session GAUC, .0003 to .0015 in NE and .0022 in recall@20; there the intervals are wider still.
# Over the whole log two seeds differ by .0002 in AUC, .0042 in session GAUC, .0002 in NE, .0003 in
# recall@20 and .0021 in recall@100.
DEFAULT_MARGINS = {
    "auc": 0.001,
    "gauc": 0.006,
    "naive_gauc": 0.006,
    "ne": 0.001,
    "log_loss": 0.001,
    "calibration": 0.01,
    "ece": 0.005,
    **dict.fromkeys(RANK_METRICS, 0.005),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """What is compared.

    Attributes:
        variant: of the later runs.
        against: variant of the first run; the same one when "".
        head: label head; the primary one when "".
        metrics: measures of a head and of retrieval; a difference is a verdict on each.
        margins: smallest difference that matters by metric, on top of `DEFAULT_MARGINS`.
        bootstrap: draws of users behind the intervals.
    """

    variant: str = "online+memory"
    against: str = ""
    head: str = ""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    margins: Mapping[str, float] = field(default_factory=dict)
    bootstrap: BootstrapConfig = field(default_factory=lambda: BootstrapConfig(num_draws=400))

    def __post_init__(self) -> None:
        for name in (*self.metrics, *self.margins):
            if name not in TITLES:
                raise ConfigError(f"compare.metric: no metric {name!r}; there are: {_all()}")
        for name, margin in self.margins.items():
            if not margin >= 0.0:
                raise ConfigError(f"compare.margin: {name} must not be negative, got {margin}")
        if not self.metrics:
            raise ConfigError("compare.metric must name at least one metric")

    def margin(self, metric: str) -> float:
        """Return the smallest difference of a metric that matters."""
        return self.margins.get(metric, DEFAULT_MARGINS[metric])


def _all() -> str:
    return ", ".join(TITLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of two runs.

    Attributes:
        before, after: the metric in the first and in the later run; None when undefined.
        change: after minus before, with its interval; of calibration, the change of its distance
            from 1.
        margin: smallest change that matters.
        reason: why there is no verdict, "" when there is one.
    """

    metric: str
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    margin: float
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Return what the change means: all of its interval must lie beyond the margin."""
        if self.low is None or self.high is None:
            return "n/a"
        low, high = self.low, self.high
        if self.metric in LOWER_IS_BETTER or self.metric == "calibration":
            low, high = -high, -low
        if low > self.margin:
            return "better"
        return "worse" if high < -self.margin else "no difference"


def compare(first: ReplayRecords, later: ReplayRecords, config: CompareConfig) -> list[Difference]:
    """Return the difference of each metric over the second half.

    Raises:
        DatasetError: the runs measured different events, or lack what is to be compared.
    """
    ranks = [name for name in config.metrics if name in RANK_METRICS]
    heads = [name for name in config.metrics if name in METRICS]
    found: dict[str, Difference] = {}
    if heads:
        found |= _compare_heads(first, later, config, heads)
    if ranks:
        found |= _compare_ranks(first, later, config, ranks)
    return [found[name] for name in config.metrics]


def _compare_heads(
    first: ReplayRecords, later: ReplayRecords, config: CompareConfig, metrics: Sequence[str]
) -> dict[str, Difference]:
    head = _head(first, later, config.head)
    before_name, after_name = config.against or config.variant, config.variant
    rows, partner = _pairs(first, later, head)
    before = _score(first, before_name, head, rows, "first")
    after = _score(later, after_name, head, partner, "later")
    draws = draw_measures(
        first.examples.examples(head, rows), {"before": before, "after": after}, config.bootstrap
    )
    at = {name: METRICS.index(name) for name in metrics}
    return {
        name: _difference(name, column, draws["before"], draws["after"], config)
        for name, column in at.items()
    }


def _head(first: ReplayRecords, later: ReplayRecords, wanted: str) -> int:
    names = first.examples.heads
    if names != later.examples.heads:
        raise DatasetError(
            f"the runs have different label heads: {', '.join(names)} and "
            f"{', '.join(later.examples.heads)}"
        )
    if wanted and wanted not in names:
        raise DatasetError(f"no label head {wanted!r}; there are: {', '.join(names)}")
    return names.index(wanted) if wanted else 0


def _score(
    records: ReplayRecords, variant: str, head: int, rows: NDArray[np.int64], which: str
) -> NDArray[np.float32]:
    scores = records.examples.scores
    if variant not in scores:
        raise DatasetError(f"the {which} run has no variant {variant!r}, it has: {_names(scores)}")
    score_NK = scores[variant]
    if head >= score_NK.shape[1]:
        name = records.examples.heads[head]
        raise DatasetError(f"{variant} says nothing of the head {name!r}")
    chosen: NDArray[np.float32] = score_NK[rows, head]
    return chosen


def _names(named: Mapping[str, object]) -> str:
    return ", ".join(named) or "none"


def _pairs(
    first: ReplayRecords, later: ReplayRecords, head: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the first run's second half, and the later run's rows of the same."""
    sides = []
    for records in (first, later):
        shown = records.examples
        second = shown.columns["ordinal"] >= records.split_at
        rows = shown.known(head, second) if len(shown) else np.zeros(0, np.int64)
        sides.append(rows[np.argsort(shown.columns["key"][rows], kind="stable")])
    ours, theirs = sides
    keys = first.examples.columns["key"][ours], later.examples.columns["key"][theirs]
    if not np.array_equal(*keys):
        raise DatasetError(_apart("examples", *keys))
    known = first.examples.label_NH[ours, head], later.examples.label_NH[theirs, head]
    if not np.array_equal(*known):
        raise DatasetError(
            f"the runs disagree about {int((known[0] != known[1]).sum()):,} labels of the same "
            "examples: were they joined with the same settings?"
        )
    return ours, theirs


def _apart(what: str, ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> str:
    shared = len(np.intersect1d(ours, theirs))
    return (
        f"the runs measured different {what}: {len(ours):,} and {len(theirs):,} in the second "
        f"half, {shared:,} of them the same; compare replays of the same events (dataset, --limit, "
        "--from, --until; where negatives are sampled, also --seed)"
    )


def _compare_ranks(
    first: ReplayRecords, later: ReplayRecords, config: CompareConfig, metrics: Sequence[str]
) -> dict[str, Difference]:
    names = _retriever(config.against or config.variant), _retriever(config.variant)
    sides = []
    for records, name in zip((first, later), names, strict=True):
        taken = records.taken
        if name not in taken.ranks:
            return {
                metric: _no_verdict(metric, config, f"no retriever {name!r} in both runs")
                for metric in metrics
            }
        rank_M = taken.ranks[name]
        rows = np.flatnonzero((taken.columns["ordinal"] >= records.split_at) & (rank_M != 0))
        rows = rows[np.argsort(taken.columns["key"][rows], kind="stable")]
        sides.append((taken.columns["key"][rows], taken.columns["user"][rows], rank_M[rows]))
    (keys, users, before), (other_keys, _, after) = sides
    if not np.array_equal(keys, other_keys):
        raise DatasetError(_apart("actions", keys, other_keys))
    # One set of columns for both, so that both are under the same draws.
    gains = np.concatenate([rank_gains(before), rank_gains(after)], axis=1)
    draws = draw_means(gains, users, config.bootstrap)
    width = len(RANK_METRICS)
    before_draws = Draws(draws.value_M[:width], draws.draw_DM[:, :width])
    after_draws = Draws(draws.value_M[width:], draws.draw_DM[:, width:])
    return {
        metric: _difference(metric, RANK_METRICS.index(metric), before_draws, after_draws, config)
        for metric in metrics
    }


def _retriever(variant: str) -> str:
    """Return the retriever that a variant of the ranker goes with: all but baselines share one."""
    return "online" if variant.startswith(("online", "frozen")) else variant


def _difference(
    metric: str, at: int, before: Draws, after: Draws, config: CompareConfig
) -> Difference:
    values = before.value_M[at], after.value_M[at]
    if np.isnan(values).any():
        return _no_verdict(metric, config, "it cannot be computed over these examples")
    from_D, to_D = before.draw_DM[:, at], after.draw_DM[:, at]
    if metric == "calibration":
        change, change_D = abs(values[1] - 1) - abs(values[0] - 1), abs(to_D - 1) - abs(from_D - 1)
    else:
        change, change_D = values[1] - values[0], to_D - from_D
    found = estimate(float(change), change_D, "")
    return Difference(
        metric=metric,
        before=float(values[0]),
        after=float(values[1]),
        change=found.value,
        low=found.low,
        high=found.high,
        margin=config.margin(metric),
        reason=found.reason,
    )


def _no_verdict(metric: str, config: CompareConfig, reason: str) -> Difference:
    return Difference(
        metric=metric,
        before=None,
        after=None,
        change=None,
        low=None,
        high=None,
        margin=config.margin(metric),
        reason=reason,
    )


def verdict_line(later: str, first: str, differences: Sequence[Difference]) -> str:
    """Return one line that says how the later run compares with the first."""
    by_verdict: dict[Verdict, list[Difference]] = {}
    for one in differences:
        by_verdict.setdefault(one.verdict, []).append(one)
    parts = []
    for verdict in ("worse", "better"):
        if verdict in by_verdict:
            told = ", ".join(_told(one) for one in by_verdict[verdict])
            parts.append(f"{verdict} on {told}")
    if "no difference" in by_verdict:
        titles = ", ".join(TITLES[one.metric] for one in by_verdict["no difference"])
        parts.append(f"no difference on {titles}")
    if "n/a" in by_verdict:
        titles = ", ".join(f"{TITLES[one.metric]} ({one.reason})" for one in by_verdict["n/a"])
        parts.append(f"no verdict on {titles}")
    return f"{later} against {first}: {'; '.join(parts)}"


def _told(one: Difference) -> str:
    return f"{TITLES[one.metric]}: {one.change:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
