"""What choosing, masking and weighing fields is worth: rankers side by side on one stream.

    python -m app.field_study selection --dataset kuairand-pure --path DIR [--seeds 42,43]
    python -m app.field_study masks --dataset kuairand-pure --path DIR [--seeds 42,43]
    python -m app.field_study drift [--lists 20000] [--keep 0.4] [--every 10]

`selection` compares early selection (AEFS) at several shares of fields with looking all of them
up; `masks` AdaF2M2's adapter and masked copies with neither, by activity of user and item; `drift`
leads early selection through the simulator's scenarios and watches what it chooses. All rankers of
a study score and learn the same requests at the same moments; retrieval and error memory take no
part. Prints JSON. Seconds are CPU seconds. Ctrl-C ends a replay; what was seen by then is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import stop_on_signals
from app.learners import LearnerConfigs, build_learners
from app.replay_run import fit_to
from app.selection_watch import WatchedSelector
from app.settings import Settings
from app.trainer_wiring import build_loop
from domain.clock import SystemClock
from domain.examples import LabeledRequest, LearnReport
from domain.requests import CapturedRequest, RankingScores
from monitoring.metrics import Metrics
from monitoring.quality import auc, calibration_ratio, gauc, normalized_entropy
from ranking.adaf2m2 import AdaF2M2Config
from ranking.aefs import AefsConfig
from ranking.averaging import AveragingConfig
from ranking.field_layout import FieldLayout, layout_of
from ranking.id_map import ABSENT
from ranking.learner import RankingConfig, RankingModel
from replay.dataset import Dataset, DatasetOptions
from replay.datasets import open_dataset
from replay.prequential import Prequential
from replay.quiet_learners import QuietMemory, QuietRetrieval
from replay.rankers_side_by_side import Contender, RankersSideBySide, RankerVariant
from replay.records import ExampleRecords
from replay.run import count_demands, replay_events
from replay.scenarios import SCENARIOS
from replay.simulator import SimulatedDataset
from replay.variants import OnlineVariant
from stream.train_loop import TrainLoop

KEEPS = (1.0, 0.75, 0.5, 0.25)
COPIES = 3
DRIFTS = ("stationary", "abrupt", "gradual", "recurring", "broken-field")
_PROBED = 2_000
"""Requests, the last ones, by which look-ups are counted."""
_TENTHS = 10

Numbers = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Runner:
    """A ranker that takes part.

    Attributes:
        passes: gradient steps per micro-batch.
    """

    name: str
    config: RankingConfig
    passes: int = 1


class RepeatedLearner:
    """Learns every micro-batch several times over; predicts as it is.

    Beyond the first pass its calibration hears logits that have met their labels, which a trainer
    never lets it: what it ranks is comparable, how certain it is less so.
    """

    def __init__(self, model: RankingModel, passes: int) -> None:
        self._model = model
        self._passes = passes

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests."""
        return self._model.predict(captured)

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Take as many steps as there are passes; report the first."""
        report = self._model.learn(batch)
        for _ in range(self._passes - 1):
            self._model.learn(batch)
        return report


class LastCaptures:
    """Passes requests on to a contender, and remembers the last of them."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self.captured: list[CapturedRequest] = []

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests."""
        self.captured = [*self.captured, *captured][-_PROBED:]
        return self._contender.predict(captured)

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Take a learning step."""
        return self._contender.learn(batch)


@dataclass(frozen=True, slots=True)
class Raced:
    """What rankers side by side came to.

    Attributes:
        rows: examples of the second half, in the order they were shown.
        costs: see `RankersSideBySide.costs`.
        lists: lists shown, of which the second half is measured.
    """

    records: ExampleRecords
    rows: NDArray[np.int64]
    costs: Mapping[str, Mapping[str, float | int | None]]
    lists: int


def race(
    dataset: Dataset, base: RankingConfig, seed: int, contenders: Mapping[str, Contender]
) -> Raced:
    """Lead a dataset through the loop with `base` live and the contenders beside it."""
    settings = fit_to(dataset, Settings()).model_copy(update={"ranking": base, "seed": seed})
    schema, stopwatch = dataset.schema, SystemClock().cpu_s
    learners = build_learners(schema, LearnerConfigs.of(settings))
    variants = [RankerVariant(name, one, None, stopwatch) for name, one in contenders.items()]
    rankers = RankersSideBySide(learners.ranking, variants, stopwatch)
    heads = tuple(head.name for head in schema.heads)
    prequential = Prequential([*variants, OnlineVariant()], heads=heads)
    metrics = Metrics()
    loop = build_loop(settings, schema, learners, metrics, (prequential,))
    parts = replace(loop.parts, ranking=rankers, memory=QuietMemory(), retrieval=QuietRetrieval())
    total = count_demands(dataset.events(), schema)
    loop = TrainLoop(parts, settings.train_loop, metrics)
    with stop_on_signals() as stop:
        counts = replay_events(dataset.events(), loop, _say, stop.is_set)
    if counts.interrupted:
        total = prequential.num_demands
    records = prequential.records(total // 2, total)
    second = records.examples.columns["ordinal"] >= records.split_at
    rows = records.examples.known(0, second)
    return Raced(records.examples, rows, rankers.costs(OnlineVariant.name), total)


def quality(raced: Raced, name: str, rows: NDArray[np.int64]) -> dict[str, float | None]:
    """Return what a ranker's scores of the first head were worth on some rows."""
    label_N, score_N = raced.records.label_NH[rows, 0], raced.records.scores[name][rows, 0]
    return {
        "auc": auc(label_N, score_N),
        "gauc": gauc(label_N, score_N, raced.records.columns["session"][rows]),
        "ne": normalized_entropy(label_N, score_N),
        "calibration": calibration_ratio(label_N, score_N),
    }


def tenths(values_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each value the tenth it is in, 0 to 9, as even as equal values staying together.

    >>> tenths(np.arange(20)).tolist()[:6]
    [0, 0, 1, 1, 2, 2]
    """
    below_N = np.searchsorted(np.sort(values_N), values_N, side="left")
    return below_N * _TENTHS // max(len(values_N), 1)


def by_activity(raced: Raced, name: str) -> dict[str, list[Numbers]]:
    """Return a ranker's AUC by tenths of examples: by how much was known of user and of item."""
    found: dict[str, list[Numbers]] = {}
    for side, column in (("user", "known_actions"), ("item", "item_shown")):
        values_N = raced.records.columns[column][raced.rows]
        tenth_N = tenths(values_N)
        found[side] = [
            {
                "from": int(values_N[tenth_N == tenth].min()),
                "until": int(values_N[tenth_N == tenth].max()),
                "examples": int((tenth_N == tenth).sum()),
                "auc": quality(raced, name, raced.rows[tenth_N == tenth])["auc"],
            }
            for tenth in np.unique(tenth_N)
        ]
    return found


def looked_up(
    captured: Sequence[CapturedRequest], layout: FieldLayout, model: RankingModel | None
) -> float:
    """Return the look-ups in the large table per example, each as if it came alone.

    Args:
        captured: examples of which every item is one.
        layout: says which ids belong to which field.
        model: chooses; with None all fields are looked up.
    """
    num_request = layout.request.num_fields
    request_columns = layout.request.fields_of_columns()
    item_columns = layout.item.fields_of_columns()
    choices = None if model is None else model.choices(captured)
    examples = wanted = 0
    for number, request in enumerate(captured):
        arrays: Any = request.arrays
        size = len(request.item_ids)
        chosen_NF = np.ones((size, layout.num_fields), bool)
        if choices is not None:
            chosen_NF = choices[number].chosen_NF
        request_NS = chosen_NF[:, :num_request][:, request_columns]
        item_NI = chosen_NF[:, num_request:][:, item_columns]
        wanted += int((request_NS & (arrays["request_ids"] != ABSENT)).sum())
        wanted += int((item_NI & (arrays["item_ids"] != ABSENT)).sum())
        examples += size
    return wanted / max(examples, 1)


def study_selection(dataset: Dataset, seeds: Sequence[int]) -> Numbers:
    """Compare shares of fields looked up."""
    base = Settings().ranking
    layout = layout_of(dataset.schema, base.encoder.max_values)
    found: dict[str, list[Numbers]] = {}
    for seed in seeds:
        models = {
            f"keep {keep:g}": RankingModel(
                dataset.schema, replace(base, aefs=AefsConfig(keep=keep)), seed
            )
            for keep in KEEPS
        }
        last = {name: LastCaptures(model) for name, model in models.items()}
        raced = race(dataset, base, seed, last)
        probe = next(iter(last.values())).captured
        everything = looked_up(probe, layout, None)
        for name in (OnlineVariant.name, *models):
            rows = looked_up(probe, layout, models.get(name))
            width = base.table.dimension
            small = AefsConfig().small_dimension if name in models else 0
            cost = raced.costs[name]
            predict_ms = cost["predict_ms"]
            assert predict_ms is not None
            found.setdefault(name, []).append(
                {
                    **quality(raced, name, raced.rows),
                    "lists": raced.lists,
                    "lookups": rows,
                    "parameters": rows * width + everything * small,
                    "predict_ms": predict_ms,
                    "learn_ms": cost["learn_ms"],
                    "lookups_per_s": 1_000 * rows / predict_ms,
                    "rows": models[name].num_rows if name in models else None,
                }
            )
    return {"fields": layout.num_fields, "variants": found}


def mask_runners() -> list[Runner]:
    """Return adapter and masked copies, each alone and both, and bases of as many passes."""
    plain = replace(Settings().ranking, adaf2m2=AdaF2M2Config(adapter=False))
    masks = AdaF2M2Config(adapter=False, masked_forwards=COPIES)
    return [
        Runner("base", plain),
        Runner(f"base, {COPIES + 1} passes", plain, passes=COPIES + 1),
        Runner("masks", replace(plain, adaf2m2=masks)),
        Runner("adapter", replace(plain, adaf2m2=AdaF2M2Config())),
        Runner("both", replace(plain, adaf2m2=replace(masks, adapter=True))),
    ]


def study_masks(dataset: Dataset, seeds: Sequence[int]) -> Numbers:
    """Compare adapter and masked copies with neither."""
    found: dict[str, list[Numbers]] = {}
    first, *others = mask_runners()
    for seed in seeds:
        contenders: dict[str, Contender] = {}
        for one in others:
            model = RankingModel(dataset.schema, one.config, seed)
            contenders[one.name] = model if one.passes == 1 else RepeatedLearner(model, one.passes)
        raced = race(dataset, first.config, seed, contenders)
        for name, scored in ((first.name, OnlineVariant.name), *((o.name, o.name) for o in others)):
            found.setdefault(name, []).append(
                {
                    **quality(raced, scored, raced.rows),
                    **raced.costs[scored],
                    "lists": raced.lists,
                    "tenths": by_activity(raced, scored),
                }
            )
    return {"copies": COPIES, "variants": found}


def study_drift(names: Sequence[str], num_lists: int, aefs: AefsConfig, windows: int) -> Numbers:
    """Watch early selection through scenarios, beside a ranker that looks everything up.

    Both score with the newest weights: their mean, which is the default, hides how fast they move.
    """
    found: Numbers = {}
    base = replace(Settings().ranking, averaging=AveragingConfig(half_life_examples=0.0))
    for name in names:
        scenario = SCENARIOS[name].resized(num_lists)
        dataset = SimulatedDataset(scenario)
        window_ms = scenario.duration_ms // windows
        model = RankingModel(dataset.schema, replace(base, aefs=aefs), scenario.seed)
        watched = WatchedSelector(model, scenario.start_ms, window_ms)
        raced = race(dataset, base, scenario.seed, {"selecting": watched})
        times_N = (raced.records.columns["time_ms"] - scenario.start_ms) // window_ms
        found[name] = [
            {**asdict(report), **_window_quality(raced, np.flatnonzero(times_N == report.window))}
            for report in watched.finish()
        ]
    return {"aefs": asdict(aefs), "lists": num_lists, "scenarios": found}


def _window_quality(raced: Raced, rows: NDArray[np.int64]) -> Numbers:
    rows = rows[~np.isnan(raced.records.label_NH[rows, 0])]
    return {
        "auc": quality(raced, "selecting", rows)["auc"],
        "auc_all_fields": quality(raced, OnlineVariant.name, rows)["auc"],
    }


def _say(events: int, time_ms: int) -> None:
    if events % 50_000 == 0:
        sys.stderr.write(f"{events} events\n")


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run a study and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("study", choices=("selection", "masks", "drift"))
    parser.add_argument("--dataset", default="kuairand-pure")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--limit", type=int, help="only the first so many impressions")
    parser.add_argument("--seeds", default="42", help="with commas between them")
    parser.add_argument("--scenarios", default=",".join(DRIFTS), help="with commas between them")
    parser.add_argument("--lists", type=int, default=20_000, help="lists shown in a scenario")
    parser.add_argument("--keep", type=float, default=0.4, help="share of fields in a scenario")
    parser.add_argument(
        "--every", type=int, default=10, help="learning steps per step of the controller, there"
    )
    parser.add_argument("--windows", type=int, default=24, help="windows of a scenario")
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    given = parser.parse_args(arguments)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.study == "drift":
        names = given.scenarios.split(",")
        aefs = AefsConfig(keep=given.keep, controller_every=given.every)
        result = study_drift(names, given.lists, aefs, given.windows)
    else:
        if given.path is None:
            parser.error("--path: expected where the dataset is")
        dataset = open_dataset(given.dataset, given.path, DatasetOptions(limit=given.limit))
        study = study_selection if given.study == "selection" else study_masks
        result = study(dataset, seeds)
    text = json.dumps({"study": given.study, **result}, indent=1)
    if given.json:
        given.json.write_text(text + "\n")
    say(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
