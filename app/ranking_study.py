"""The table of docs/evaluation.md: every ranker beside every baseline, over several seeds.

    python -m app.ranking_study --dataset kuairand-pure --path DIR [--seeds 42,43,44] [--json FILE]

Each seed is one replay: all rankers score and learn the same requests at the same moments, with
labels as late as they were. Prints one Markdown table of the second half, mean and deviation over
seeds. Milliseconds are wall time per example (encoding, scoring and learning), so they mean
something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from app.dataset_options import open_chosen
from app.ranker_variants import ranker_wishes
from app.replay_run import ReplayWishes, run_replay
from app.settings import load_settings
from replay.dataset import Dataset
from replay.intervals import BootstrapConfig

_PLAIN = "ranking.adaf2m2.adapter=false"
ROWS: Mapping[str, tuple[str, ...]] = {
    "dcnv2": ("ranking.backbone.blocks=0", "ranking.interaction=dcnv2", _PLAIN),
    "hstu": ("ranking.backbone.kind=hstu", _PLAIN),
    "fuxi-alpha": ("ranking.backbone.kind=fuxi-alpha", _PLAIN),
    "fuxi-alpha+adaf2m2": (
        "ranking.backbone.kind=fuxi-alpha",
        "ranking.adaf2m2.adapter=true",
        "ranking.adaf2m2.masked_forwards=1",
    ),
    "fuxi-alpha+aefs": ("ranking.backbone.kind=fuxi-alpha", _PLAIN, "ranking.aefs.keep=0.5"),
    "newest weights": ("ranking.averaging.half_life_examples=0",),
}
"""Rankers beside the live one, with the settings that make them."""
_METRICS = ("auc", "gauc", "ne", "ece")
_TITLES = ("AUC", "session GAUC", "NE", "ECE")

Numbers = dict[str, dict[str, float | None]]


def study(
    dataset: Dataset, seed: int, overrides: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> Numbers:
    """Replay once; return for each variant its metrics, its milliseconds and what it touches."""
    base = [*overrides, f"seed={seed}"]
    texts = [f"{name.replace(' ', '-')}={','.join(changes)}" for name, changes in rows.items()]
    wishes = ReplayWishes(
        # Seeds give the deviation here; intervals over users are for single reports.
        bootstrap=BootstrapConfig(num_draws=2),
        rankers=ranker_wishes(texts, lambda more: load_settings(None, [*base, *more])),
        rivals=True,
    )
    report = run_replay(load_settings(None, base), dataset, Console(stderr=True), wishes).report
    (head, *_) = report["heads"].values()
    found: Numbers = {}
    for name, metrics in head["second_half"]["variants"].items():
        cost = report["costs"].get(name, {})
        parts = [cost.get(f"{verb}_ms") for verb in ("capture", "predict", "learn")]
        found[name] = {
            **{metric: metrics[metric]["value"] for metric in _METRICS},
            "ms": sum(part for part in parts if part is not None) if cost else None,
            "touched": cost.get("parameters_touched"),
        }
    return found


def table(runs: Sequence[Numbers]) -> str:
    """Return Markdown: mean and, of several runs, deviation of each number."""
    titles = ("scored by", *_TITLES, "ms per example", "parameters touched")
    lines = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}"]
    for name in runs[0]:
        cells = [_cell([run[name][metric] for run in runs], 4) for metric in _METRICS]
        cells.append(_cell([run[name]["ms"] for run in runs], 2, deviation=False))
        cells.append(_cell([run[name]["touched"] for run in runs], 0, deviation=False))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None], digits: int, *, deviation: bool = True) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ""
    text = f"{statistics.fmean(known):,.{digits}f}"
    if deviation and len(known) > 1:
        text += f" ± {statistics.stdev(known):.{digits}f}"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study as the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m app.ranking_study", description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--path", type=Path)
    parser.add_argument("--seeds", default="42,43,44")
    parser.add_argument("--rows", help=f"some of: {', '.join(ROWS)}; all by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = options.rows.split(",") if options.rows else list(ROWS)
    rows = {name: ROWS[name] for name in names}
    runs = []
    for seed in map(int, options.seeds.split(",")):
        dataset = open_chosen(
            options.dataset, options.path, limit=None, positive_at=None, columns=None, named={}
        )
        runs.append(study(dataset, seed, options.set, rows))
        sys.stderr.write(f"seed {seed} done\n")
        if options.json is not None:
            options.json.write_text(json.dumps(runs, indent=1) + "\n")
    sys.stdout.write(table(runs) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
