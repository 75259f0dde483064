"""`headrace evaluate sequential` at work: flags in; progress, a table and a folder out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from app.errors import EXIT_INTERRUPTED, stop_on_signals
from app.progress_bar import progress_bar
from domain.errors import ConfigError
from evaluation import comparison
from evaluation.config import RULES, SequentialConfig, configured
from evaluation.curves_page import page
from evaluation.movielens import read_movielens
from evaluation.run_folder import RunFolder
from evaluation.sequences import Sequences
from evaluation.sequential import (
    EpochResult,
    Run,
    Task,
    Watch,
    choose_device,
    new_trainer,
    train,
)

DATASETS = ("movielens",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked besides the model's settings, in the words of the flags."""

    dataset: str
    path: Path
    seeds: str = "1,2,3"
    rule: str = "both"
    out: Path | None = None
    resume: bool = False
    device: str = "auto"

    @property
    def runs(self) -> list[Run]:
        """Return the trainings to make, in order.

        Raises:
            ConfigError: a rule is not known, or a seed is no whole number, or is there twice.
        """
        if self.rule not in ("both", *RULES):
            raise ConfigError(f"--rule: expected both, {' or '.join(RULES)}, got {self.rule!r}")
        try:
            seeds = [int(word) for word in self.seeds.split(",")]
        except ValueError:
            seeds = []
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ConfigError(
                f"--seeds: expected different whole numbers, as in 1,2,3, got {self.seeds!r}"
            )
        rules = [rule for rule in RULES if self.rule in ("both", rule)]
        return [Run(rule, seed) for rule in rules for seed in seeds]


def run_sequential(wanted: Wanted, model: str, preset: str, changes: Mapping[str, Any]) -> int:
    """Train and rank as asked; print the table; return the exit code.

    Raises:
        ConfigError: a flag cannot be.
        DatasetError: the files cannot be read, or hold too little.
    """
    runs, config = wanted.runs, configured(model, preset, changes)
    if wanted.dataset not in DATASETS:
        raise ConfigError(f"--dataset: expected {', '.join(DATASETS)}, got {wanted.dataset!r}")
    if wanted.resume and wanted.out is None:
        raise ConfigError("--resume: expected the folder of the run as --out")
    device = choose_device(wanted.device)
    sequences = read_movielens(wanted.path)
    task = Task(sequences, config)
    folder = None if wanted.out is None else RunFolder(wanted.out)
    if folder is not None:
        folder.open(_settings(sequences, config, device.type), resume=wanted.resume)
    results: dict[Run, list[EpochResult]] = {}
    with _progress(Console(stderr=True), len(runs)) as progress, stop_on_signals() as stop:
        for run in runs:
            trainer = new_trainer(sequences, config, run, device)
            watch = progress.watch(run, trainer.steps_per_epoch, config.epochs, stop)
            checkpoints = None if folder is None else folder.checkpoints(run)
            results[run] = train(trainer, run, task, checkpoints, watch)
            progress.finished()
            if stop.is_set():
                break
    report = comparison.report(sequences, config, results)
    if report["chosen"]:
        typer.echo(comparison.markdown(report), nl=False)
    if folder is not None:
        _write(folder, report)
    return EXIT_INTERRUPTED if stop.is_set() else 0


def _settings(sequences: Sequences, config: SequentialConfig, device: str) -> dict[str, Any]:
    """Return what decides the numbers: other data or another device would not come to the same."""
    return {**config.to_plain(), "dataset": sequences.fingerprint, "device": device}


def _write(folder: RunFolder, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    for name, content in (
        ("report.json", text),
        ("report.md", comparison.markdown(report)),
        ("epochs.tsv", comparison.tsv(report)),
        ("curves.html", page(report)),
    ):
        typer.echo(f"Wrote {folder.write(name, content)}")


class _Bars:
    """One bar over all trainings, with the newest loss and NDCG."""

    def __init__(self, bar: Progress, num_runs: int) -> None:
        self._bar = bar
        self._num_runs = num_runs
        self._begun = 0
        self._task: TaskID | None = None

    def watch(self, run: Run, steps_per_epoch: int, epochs: int, stop: StopSignal) -> Watch:
        """Begin to show a run."""
        self._begun += 1
        what = f"{run.name} ({self._begun}/{self._num_runs})"
        task = self._task = self._bar.add_task(what, total=steps_per_epoch * epochs, newest="")

        def after_epoch(result: EpochResult) -> None:
            newest = f"epoch {result.epoch} loss {result.loss:.3f}"
            newest += f" NDCG@10 {result.test['ndcg@10']:.4f}"
            # A resumed run begins in the middle.
            self._bar.update(task, newest=newest, completed=result.epoch * steps_per_epoch)

        return Watch(
            after_step=lambda: self._bar.advance(task),
            after_epoch=after_epoch,
            is_stopped=stop.is_set,
        )

    def finished(self) -> None:
        """Take the bar of a run away."""
        if self._task is not None:
            self._bar.remove_task(self._task)


@contextmanager
def _progress(console: Console, num_runs: int) -> Iterator[_Bars]:
    shown = progress_bar(console, "{task.description}", "{task.fields[newest]}")
    with shown as bar:
        yield _Bars(bar, num_runs)
