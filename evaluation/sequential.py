"""Leave-one-out on sequences: which epoch is believed, and what it was worth.

Two rules, each with a training of its own:

- upstream: everything but each user's last event is learned, the last is the test, and the epoch
  that is best *on the test* counts. That is how the published numbers were made (there is no
  validation split), and why they are a little too good.
- validation: the last two events are held back. The epoch that ranks the last but one best counts;
  its rank of the last, asked with everything before it as history, is the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from domain.errors import ConfigError, DatasetError
from domain.state import State
from evaluation.config import Rule, SequentialConfig
from evaluation.full_ranking import CHOSEN_BY, ranking_metrics, target_ranks
from evaluation.sequences import Ints, Sequences
from evaluation.training import SequenceTrainer

_HELD_BACK: dict[Rule, int] = {"upstream": 1, "validation": 2}


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one pass came to.

    Attributes:
        epoch: passes so far, from 1.
        loss: mean over places while learning.
        validation: metrics on the last but one item; None under the upstream rule, which learns it.
        test: metrics on the last item.
    """

    epoch: int
    loss: float
    validation: dict[str, float] | None
    test: dict[str, float]

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class Checkpoints(Protocol):
    """Where a run is kept between two epochs."""

    def load(self) -> State | None:
        """Return what was saved last, None when nothing was."""

    def save(self, state: State) -> None:
        """Keep a state in the place of the one before."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how a run gets on, and who may end it between two epochs."""

    after_step: Callable[[], None] = lambda: None
    after_epoch: Callable[[EpochResult], None] = lambda _result: None
    is_stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a rule and a seed."""

    rule: Rule
    seed: int

    @property
    def name(self) -> str:
        """Return a name for folders and tables."""
        return f"{self.rule}-seed{self.seed}"


def new_trainer(
    sequences: Sequences, config: SequentialConfig, run: Run, device: torch.device
) -> SequenceTrainer:
    """Return a trainer that holds back what the rule says."""
    cut = _HELD_BACK[run.rule]
    return SequenceTrainer(sequences, config, cut=cut, seed=run.seed, device=device)


def train(
    trainer: SequenceTrainer,
    run: Run,
    task: Task,
    checkpoints: Checkpoints | None = None,
    watch: Watch | None = None,
) -> list[EpochResult]:
    """Make the passes that are still to be made; return what each came to, earlier ones too.

    1. Go on from the checkpoint, if there is one.
    2. One pass, then the ranks of everybody's held-out items.
    3. Keep weights, optimiser and results. A crash before that repeats the pass, with the same
       draws; so a run that was interrupted ends with the numbers of one that was not.
    """
    watch = watch or Watch()
    results: list[EpochResult] = []
    saved = checkpoints.load() if checkpoints is not None else None
    if saved is not None:
        trainer.restore(saved["trainer"])
        results = [EpochResult(**one) for one in saved["results"]]
    while trainer.epochs_done < task.config.epochs and not watch.is_stopped():
        loss = trainer.epoch(watch.after_step)
        results.append(task.measure(trainer, run.rule, loss))
        if checkpoints is not None:
            plain = [one.to_plain() for one in results]
            checkpoints.save({"trainer": trainer.state(), "results": plain})
        watch.after_epoch(results[-1])
    return results


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is asked of every model: whom, and with which settings."""

    sequences: Sequences
    config: SequentialConfig

    def __post_init__(self) -> None:
        if not len(self.users):
            raise DatasetError("expected users with at least 4 events, got none")

    @property
    def users(self) -> Ints:
        """Return who is asked: whoever has an event to learn from, and two to be asked about."""
        return self.sequences.users_with(4)

    def measure(self, trainer: SequenceTrainer, rule: Rule, loss: float) -> EpochResult:
        """Rank everybody's held-out items."""
        validation = self._metrics(trainer, 1) if rule == "validation" else None
        return EpochResult(trainer.epochs_done, loss, validation, self._metrics(trainer, 0))

    def _metrics(self, trainer: SequenceTrainer, cut: int) -> dict[str, float]:
        ranks = target_ranks(trainer.model, self.sequences, self.users, self.config, cut)
        return ranking_metrics(ranks)


def chosen(results: Sequence[EpochResult], rule: Rule) -> EpochResult:
    """Return the epoch that the rule believes; of equal ones the first."""

    def quality(result: EpochResult) -> float:
        metrics = result.test if rule == "upstream" else result.validation
        assert metrics is not None, "the validation rule measures the last but one item"
        return metrics[CHOSEN_BY]

    return max(results, key=quality)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the deviation among seeds (n - 1); None for a single one.

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


def choose_device(name: str) -> torch.device:
    """Return a device by name; "auto" is a CUDA GPU where there is one, else the CPU.

    Float32 matrices are multiplied in TF32 on a GPU, as in the published runs.

    Raises:
        ConfigError: there is no such device here.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device: expected auto, cpu or cuda, got {name!r}")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("--device cuda: torch finds no CUDA GPU here")
    if name == "cpu" or not has_cuda:
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")
