"""What a report says in words: whether the model earns its keep, and against what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domain.errors import DatasetError
from monitoring import quality
from replay.compare import TITLES, CompareConfig, Difference, compare
from replay.intervals import BootstrapConfig, missing_reasons
from replay.records import ReplayRecords
from replay.report import RANK_METRICS, rank_gains
from replay.retrieval_baselines import ITEM_ITEM, POPULAR, REPEAT

SERVED = "online+memory"
_BASELINE_PREFIXES = ("counters/", "river/")
_RANKING_METRICS = ("auc", "gauc", "ne")
_RETRIEVAL_METRICS = ("recall@20", "mrr")


def in_words(
    records: ReplayRecords,
    bootstrap: BootstrapConfig,
    *,
    snapshot_id: str = "",
    asked: Sequence[str] = (),
) -> list[str]:
    """Return sentences: ranking, variants asked for, learning on, memory, retrieval, repetitions.

    What cannot be said is said. Every comparison is paired and over the second half, as
    `headrace compare` makes it.

    Args:
        records: what was recorded.
        bootstrap: how sure intervals are to be.
        snapshot_id: the snapshot that the replay went on from, "" when from nothing learned.
        asked: names of further rankers that took part; each is told beside the live one.
    """
    if snapshot_id:
        subject = f"snapshot {snapshot_id} as it was"
        said = [
            "Baselines are left out: they would know nothing of what came before the snapshot.",
            _frozen(records, subject, bootstrap),
            _memory(records, bootstrap),
        ]
    else:
        subject = "a copy that stopped learning half-way"
        said = [
            _ranking(records, bootstrap),
            *(_asked(records, name, bootstrap) for name in asked),
            _frozen(records, subject, bootstrap),
            _memory(records, bootstrap),
            _retrieval(records, bootstrap),
            _repetitions(records),
        ]
    return [one for one in said if one]


def _ranking(records: ReplayRecords, bootstrap: BootstrapConfig) -> str:
    best = _best_baseline(records)
    if not best:
        return f"Ranking: nothing to compare, no variant has an AUC: {_why_no_auc(records)}."
    found = _against(records, SERVED, best, _RANKING_METRICS, bootstrap)
    return _verdict("Ranking", f"the best baseline, {best}", SERVED, best, found)


def _asked(records: ReplayRecords, name: str, bootstrap: BootstrapConfig) -> str:
    found = _against(records, name, "online", _RANKING_METRICS, bootstrap)
    return _verdict(f"Variant {name}", "online", name, "online", found)


def _frozen(records: ReplayRecords, subject: str, bootstrap: BootstrapConfig) -> str:
    scores = records.examples.scores
    if "frozen" not in scores:
        return ""
    if len(records.examples) and np.array_equal(scores["frozen"], scores.get("online", ())):
        return f"Learning on: nothing to compare, {subject} was not there yet or never differed."
    found = _against(records, SERVED, "frozen", _RANKING_METRICS, bootstrap)
    return _verdict("Learning on", subject, SERVED, "the frozen copy", found)


def _memory(records: ReplayRecords, bootstrap: BootstrapConfig) -> str:
    scores = records.examples.scores
    if "online" not in scores or not len(records.examples):
        return ""
    if np.array_equal(scores["online"], scores[SERVED]):
        return "Error memory: it changed no score; a server answers what the ranker says."
    found = _against(records, SERVED, "online", _RANKING_METRICS, bootstrap)
    return _verdict("Error memory", "the ranker alone", SERVED, "the ranker alone", found)


def _retrieval(records: ReplayRecords, bootstrap: BootstrapConfig) -> str:
    names = [name for name in (POPULAR, ITEM_ITEM) if name in records.taken.ranks]
    recall = {name: _recall(records, name) for name in names}
    known = {name: value for name, value in recall.items() if value is not None}
    if not known:
        return "Retrieval: nothing to compare, nobody with a history took an item."
    best = max(known, key=lambda name: known[name])
    found = _against(records, "online", best, _RETRIEVAL_METRICS, bootstrap)
    said = _verdict("Retrieval", f"the best baseline, {best}", "the retriever", best, found)
    return said + "".join(
        f" {name} wins against it too: {told}."
        for name in known
        if name != best and (told := _what_wins(records, name, bootstrap))
    )


def _what_wins(records: ReplayRecords, baseline: str, bootstrap: BootstrapConfig) -> str:
    """Return what a baseline is better in than the retriever; "" when in nothing, or not in all."""
    found = _against(records, "online", baseline, _RETRIEVAL_METRICS, bootstrap)
    if any(one.verdict == "better" for one in found):
        return ""
    return ", ".join(_told(one) for one in found if one.verdict == "worse")


def _repetitions(records: ReplayRecords) -> str:
    if REPEAT not in records.taken.ranks:
        return ""
    taken = records.taken
    second = taken.columns["ordinal"] >= records.split_at
    repeat = taken.ranks[REPEAT][second]
    asked = repeat != 0
    if not asked.any():
        return ""
    # What the others miss and `repeat` finds among the last items taken, is a repetition.
    others = taken.ranks[POPULAR][second]
    share = float(((others == -1) & (repeat > 0))[asked].mean())
    return (
        f"Repetitions: {share:.1%} of the items taken had been shown to or taken by the same user "
        "before; retrieval leaves those out and counts them as misses, only repeat ranks them."
    )


def _best_baseline(records: ReplayRecords) -> str:
    shown = records.examples
    if not len(shown):
        return ""
    rows = shown.known(0, shown.columns["ordinal"] >= records.split_at)
    found = {
        name: quality.auc(shown.label_NH[rows, 0], score_NK[rows, 0])
        for name, score_NK in shown.scores.items()
        if name.startswith(_BASELINE_PREFIXES)
    }
    known = {name: value for name, value in found.items() if value is not None}
    return max(known, key=lambda name: known[name]) if known else ""


def _why_no_auc(records: ReplayRecords) -> str:
    shown = records.examples
    second = shown.columns["ordinal"] >= records.split_at
    rows = shown.known(0, second) if len(shown) else np.zeros(0, np.int64)
    if not any(name.startswith(_BASELINE_PREFIXES) for name in shown.scores):
        return "there is no baseline"
    return missing_reasons(shown.examples(0, rows))["auc"]


def _recall(records: ReplayRecords, name: str) -> float | None:
    taken = records.taken
    rank_M = taken.ranks[name][taken.columns["ordinal"] >= records.split_at]
    rank_M = rank_M[rank_M != 0]
    if not len(rank_M):
        return None
    return float(np.mean(rank_gains(rank_M)[:, RANK_METRICS.index("recall@20")]))


def _against(
    records: ReplayRecords,
    variant: str,
    other: str,
    metrics: tuple[str, ...],
    bootstrap: BootstrapConfig,
) -> list[Difference]:
    config = CompareConfig(variant=variant, against=other, metrics=metrics, bootstrap=bootstrap)
    try:
        return compare(records, records, config)
    except DatasetError:
        return []


def _verdict(
    topic: str, subject: str, model: str, other: str, differences: Sequence[Difference]
) -> str:
    better = [one for one in differences if one.verdict == "better"]
    worse = [one for one in differences if one.verdict == "worse"]
    told = {True: ", ".join(map(_told, better)), False: ", ".join(map(_told, worse))}
    if better and not worse:
        return f"{topic}: {model} earns its keep against {subject}: {told[True]}."
    if worse and not better:
        return f"{topic}: {other} WINS against {model}, which is behind: {told[False]}."
    if better and worse:
        return (
            f"{topic}: {model} against {subject}: better on {told[True]}; worse on {told[False]}."
        )
    if any(one.verdict == "no difference" for one in differences):
        titles = ", ".join(TITLES[one.metric] for one in differences if one.change is not None)
        return f"{topic}: {model} is no better and no worse than {subject} (on {titles})."
    reasons = dict.fromkeys(one.reason for one in differences if one.reason)
    why = "; ".join(reasons) or "nothing was measured"
    return f"{topic}: {model} cannot be told from {subject}: {why}."


def _told(one: Difference) -> str:
    return f"{TITLES[one.metric]} {one.change:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
