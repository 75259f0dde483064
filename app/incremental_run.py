"""`headrace evaluate incremental` at work: a base, slots, and what each method made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from app.learners import LearnerConfigs, build_learners
from app.replay_run import fit_to
from app.settings import Settings
from app.trainer_wiring import build_loop
from domain.clock import SystemClock
from domain.errors import ConfigError
from memory.config import Kind, LambdaRule, MemoryConfig
from memory.learner import ErrorMemoryLearner
from monitoring.log_setup import set_up_logging
from monitoring.metrics import Metrics
from monitoring.session_ids import SessionIds
from replay.dataset import Dataset
from replay.incremental import IncrementalConfig, Slot, run_slots
from replay.incremental_recording import SlotRecorder
from replay.incremental_report import markdown, measure, page, tsv
from replay.quiet_learners import QuietMemory, QuietRetrieval
from replay.run import count_demands, replay_events
from replay.simulator import SimulatedDataset
from stream.train_loop import TrainLoop


def run_incremental(
    settings: Settings,
    dataset: Dataset,
    seeds: Sequence[int],
    config: IncrementalConfig,
    console: Console,
) -> Iterator[dict[str, Any]]:
    """Lead every method through the slots, once for each seed; yield the report after each.

    Raises:
        DatasetError: there is too little to be scored, or feedback without impressions.
    """
    set_up_logging(replace(settings.log, level="error"))
    clock = SystemClock()
    began_s = clock.stopwatch_s()
    settings = fit_memory(fit_to(dataset, settings))
    heads = [head.name for head in dataset.schema.heads]
    runs = []
    for seed in seeds:
        ours = settings.model_copy(update={"seed": seed})
        slots = _slots(ours, _with_seed(dataset, seed), config, console)
        runs.append(measure(slots, heads, seed, config))
        yield {
            "dataset": dataset.name,
            "heads": heads,
            "base_share": config.base_share,
            "live_counters": config.live_counters,
            "window": config.window,
            "seconds": round(clock.stopwatch_s() - began_s, 1),
            "memory": settings.model_dump(mode="json", include={"memory"})["memory"],
            "runs": [*runs],
        }


def fit_memory(settings: Settings) -> Settings:
    """Return settings under which a memory remembers whole slots.

    Slots last for hours or days of event time: with the half-life of a live system only the end of
    a slot would be left of it. ReLoop2 forgets by resets alone. A value that is not the default was
    chosen, and stays.
    """
    if settings.memory.half_life_ms != MemoryConfig().half_life_ms:
        return settings
    return settings.model_copy(update={"memory": replace(settings.memory, half_life_ms=None)})


def _with_seed(dataset: Dataset, seed: int) -> Dataset:
    """Return another draw of the same world where it is simulated."""
    if not isinstance(dataset, SimulatedDataset):
        return dataset
    return dataset.drawn(seed)


def _slots(
    settings: Settings, dataset: Dataset, config: IncrementalConfig, console: Console
) -> list[Slot]:
    """Let the base learn its part, record the rest, and lead every method through it."""
    configs, schema = LearnerConfigs.of(settings), dataset.schema
    learners = build_learners(schema, configs)
    num_base_lists = int(count_demands(dataset.events(), schema) * config.base_share)
    recorder = SlotRecorder(
        learners.ranking,
        SessionIds(settings.session_ids),
        num_base_lists,
        (len(schema.heads), configs.ranking.hidden[-1]),
        config.live_counters,
    )
    loop = build_loop(settings, schema, learners, Metrics())
    parts = replace(loop.parts, ranking=recorder, memory=QuietMemory(), retrieval=QuietRetrieval())
    loop = TrainLoop(replace(parts, rewriting=None), settings.train_loop, Metrics())
    with console.status(f"seed {settings.seed}: the base learns, the rest is recorded"):
        replay_events(dataset.events(), loop, lambda events, time_ms: None)
    slots = recorder.slots(config.num_slots)
    with console.status(f"seed {settings.seed}: slot by slot"):
        return run_slots(
            learners.ranking,
            learners.ranking.copy(),
            slots,
            lambda: _memory(configs, configs.memory, len(schema.heads)),
            config,
            {
                f"memory, {name}": partial(_memory, configs, other, len(schema.heads))
                for name, other in _others(configs.memory).items()
            },
        )


def _memory(configs: LearnerConfigs, memory: MemoryConfig, num_heads: int) -> ErrorMemoryLearner:
    return ErrorMemoryLearner(memory, configs.ranking.hidden[-1], num_heads, configs.seed)


def _others(memory: MemoryConfig) -> dict[str, MemoryConfig]:
    """Return the memory with the other rule for lambda, and the memory of the other kind."""
    rule: LambdaRule = "shares" if memory.lambda_rule == "margin" else "margin"
    kind: Kind = "neighbours" if memory.kind == "sketch" else "sketch"
    return {
        f"lambda by {rule}": replace(memory, lambda_rule=rule),
        kind: replace(memory, kind=kind),
    }


def write_reports(report: dict[str, Any], files: dict[str, Path | None]) -> list[Path]:
    """Write what was asked for: "out" as JSON, "tsv", "markdown", "html"; return where.

    Raises:
        ConfigError: a file cannot be written.
    """
    forms = {
        "out": lambda: json.dumps(report, indent=1, allow_nan=False) + "\n",
        "tsv": lambda: tsv(report),
        "markdown": lambda: markdown(report),
        "html": lambda: page(report),
    }
    written = []
    for name, path in files.items():
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(forms[name](), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--{name} {path}: cannot be written: {error.strerror}") from error
        written.append(path)
    return written
