"""Numbers of a comparison as one report: per epoch, per seed under both rules, mean and deviation.

A report is JSON; its table is Markdown, its curve of metric per epoch a TSV that any tool reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.config import Rule, SequentialConfig
from evaluation.full_ranking import CHOSEN_BY, DEEPEST, METRICS
from evaluation.sequences import Sequences
from evaluation.sequential import EpochResult, Run, chosen, mean_and_deviation

TITLES = {
    name: name.upper() if name == "mrr" else name.replace("hr", "HR").replace("ndcg", "NDCG")
    for name in METRICS
}
_IN_TABLE = ("ndcg@10", "hr@10", "ndcg@50", "hr@50", "ndcg@200", "hr@200", "mrr")
_PARTS = ("validation", "test")


def report(
    sequences: Sequences, config: SequentialConfig, results: Mapping[Run, Sequence[EpochResult]]
) -> dict[str, Any]:
    """Return everything there is to say, as JSON values; runs without an epoch are left out.

    Returns:
        `config`; `dataset` in numbers; `retrieved`, how deep ranks go; `chosen`, one entry per run
        (rule, seed, epoch, epochs, metrics on the test); `rules`, `{rule: {metric: {"mean",
        "deviation"}}}`, the deviation null for one seed; `epochs`, one entry per run and epoch.
    """
    begun = {run: found for run, found in results.items() if found}
    picked = [_picked(run, found) for run, found in begun.items()]
    return {
        "config": config.to_plain(),
        "dataset": {
            "users": int(sequences.num_users),
            "users_asked": len(sequences.users_with(4)),
            "events": len(sequences.item_E),
            "candidates": sequences.num_candidates,
        },
        "retrieved": min(DEEPEST, sequences.num_candidates),
        "chosen_by": CHOSEN_BY,
        "chosen": picked,
        "rules": {
            rule: _over_seeds([one for one in picked if one["rule"] == rule])
            for rule in dict.fromkeys(one["rule"] for one in picked)
        },
        "epochs": [
            {"rule": run.rule, "seed": run.seed, **one.to_plain()}
            for run, found in begun.items()
            for one in found
        ],
    }


def _picked(run: Run, found: Sequence[EpochResult]) -> dict[str, Any]:
    best = chosen(found, run.rule)
    return {
        "rule": run.rule,
        "seed": run.seed,
        "epoch": best.epoch,
        "epochs": found[-1].epoch,
        "metrics": dict(best.test),
    }


def _over_seeds(picked: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    found = {}
    for metric in METRICS:
        mean, deviation = mean_and_deviation([one["metrics"][metric] for one in picked])
        found[metric] = {"mean": mean, "deviation": deviation}
    return found


def tsv(report: Mapping[str, Any]) -> str:
    """Return the epochs, one line each; metrics that were not measured are empty."""
    names = [f"{part}.{metric}" for part in _PARTS for metric in METRICS]
    lines = [["rule", "seed", "epoch", "loss", *names]]
    for one in report["epochs"]:
        values = [
            "" if one[part] is None else f"{one[part][metric]:.6f}"
            for part in _PARTS
            for metric in METRICS
        ]
        head = [one["rule"], str(one["seed"]), str(one["epoch"]), f"{one['loss']:.6f}"]
        lines.append([*head, *values])
    return "".join("\t".join(line) + "\n" for line in lines)


_RULES: Mapping[Rule, str] = {
    "upstream": "best epoch on the test itself",
    "validation": "best epoch on the last but one item, which is not learned",
}


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table: a line per run, and the mean per rule where there are several seeds."""
    config, dataset = report["config"], report["dataset"]
    rows = [["rule", "seed", "epoch", *(TITLES[name] for name in _IN_TABLE)]]
    for one in report["chosen"]:
        values = [f"{one['metrics'][name]:.4f}" for name in _IN_TABLE]
        rows.append([one["rule"], str(one["seed"]), f"{one['epoch']}/{one['epochs']}", *values])
    for rule, metrics in report["rules"].items():
        if metrics[CHOSEN_BY]["deviation"] is not None:
            values = [_mean(metrics[name]) for name in _IN_TABLE]
            rows.append([f"**{rule}**", "mean ± sd", "", *values])
    sizes = f"{config['blocks']} blocks, width {config['width']}, {config['heads']} heads"
    return (
        f"# {config['model']}: {sizes}\n\n"
        f"Leave-one-out, {dataset['users_asked']:,} users asked, full ranking over "
        f"{dataset['candidates']:,} items with the last {config['history_length']} seen removed; "
        f"{dataset['events']:,} events.\n\n"
        f"{_table(rows)}\n"
        + "".join(f"- {rule}: {_RULES[rule]}, by {TITLES[CHOSEN_BY]}\n" for rule in report["rules"])
    )


def _mean(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4f} ± {value['deviation']:.4f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as Markdown that reads well unrendered; the first holds the titles."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
