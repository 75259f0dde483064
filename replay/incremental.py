"""ReLoop2's incremental protocol: slot by slot, predict, then train or write or both.

A base model has learned the first part of a log. The rest is cut into slots of equally many
examples, in order of time (ReLoop2, KDD 2023, section 4.4). For each slot every method predicts
with what it knew before; then its labels are known, and

- base does nothing;
- incctr trains on the slot, one pass (IncCTR: incremental training);
- memory writes the slot into an error memory, keyed by the base's hidden states;
- incctr+memory does both, in three ways: the memory "keeps" what it knows under hidden states of
  before the training, or it is "reset" and only the slot is written, under the model as it is now,
  or the last `window` examples are "rewritten" under it.

The first slot is the same for all. A memory begins empty, with lambda 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.learners import MemoryLearner, RankingLearner
from replay.incremental_recording import ShownList
from stream.memory_rewriting import MemoryRewriting, MemoryRewritingConfig, Taught

OnModelChange = Literal["keep", "reset", "rewrite"]


class SlotMemory(MemoryLearner, Protocol):
    """An error memory that says what lambda it uses."""

    @property
    def lambdas(self) -> NDArray[np.float32]:
        """Return the lambda in use for each head, float32 (H,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncrementalConfig:
    """How slots are made and learned.

    Attributes:
        num_slots: slots after the base's part.
        base_share: share of the lists that the base learns from.
        batch_examples: examples of a training step and of a write.
        window: examples that are written again under a changed model ("rewritten").
        live_counters: whether label counters, as features, go on after the base's part, for all
            methods alike; else they stop with it.
        lambdas: fixed values of lambda that are measured beside the one that was earned.
    """

    num_slots: int = 10
    base_share: float = 0.5
    batch_examples: int = 256
    window: int = 20_000
    live_counters: bool = True
    lambdas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)

    def __post_init__(self) -> None:
        for name, least in (("num_slots", 2), ("batch_examples", 1), ("window", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"incremental.{name} must be at least {least}, got {getattr(self, name)}"
                )
        if not 0.0 < self.base_share < 1.0:
            raise ConfigError(
                f"incremental.base_share must be between 0 and 1, got {self.base_share}"
            )


@dataclass(slots=True, eq=False)
class SlotScores:
    """What one method predicted for one slot; N examples, H heads.

    Attributes:
        score_NH: with the lambda of the moment.
        lambda_H: that lambda; None where there is no memory.
        base_NH: before the memory's correction.
        error_NH: what the memory said; None where there is no memory.
    """

    score_NH: NDArray[np.float32]
    base_NH: NDArray[np.float32]
    error_NH: NDArray[np.float32] | None = None
    lambda_H: NDArray[np.float32] | None = None


@dataclass(slots=True, eq=False)
class Slot:
    """The examples of a slot as arrays, and what each method made of it; N examples, H heads."""

    label_NH: NDArray[np.float32]
    session_N: NDArray[np.int64]
    from_ms: int
    until_ms: int
    scores: dict[str, SlotScores] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Method:
    """A ranker, which may train, and a memory, which may be there."""

    name: str
    ranker: str
    memory: SlotMemory | None = None
    on_change: OnModelChange = "keep"
    rewriting: MemoryRewriting | None = None


def run_slots(
    base: RankingLearner,
    incremental: RankingLearner,
    slots: Sequence[Sequence[ShownList]],
    make_memory: Callable[[], SlotMemory],
    config: IncrementalConfig,
    others: Mapping[str, Callable[[], SlotMemory]] | None = None,
) -> list[Slot]:
    """Lead every method through the slots.

    Args:
        base: a ranker that has learned its part, and learns no more.
        incremental: the same, to be trained on.
        slots: shown lists with their labels.
        make_memory: makes an empty error memory.
        config: how slots are learned.
        others: memories of another make, by name, that are compared with it over the base.
    """
    rankers = {"base": base, "incctr": incremental}
    methods = _methods(make_memory, config)
    methods += [_Method(name, "base", make()) for name, make in (others or {}).items()]
    done = []
    for lists in slots:
        lists = [one for one in lists if one.labels]
        slot = _arrays(lists)
        predicted = {name: _predict(ranker, lists) for name, ranker in rankers.items()}
        for method in methods:
            slot.scores[method.name] = _score(method, *predicted[method.ranker])
        _train(incremental, lists, config.batch_examples)
        for method in methods:
            if method.memory is not None:
                _write(method, rankers[method.ranker], lists, predicted[method.ranker], config)
        done.append(slot)
    return done


def _methods(make_memory: Callable[[], SlotMemory], config: IncrementalConfig) -> list[_Method]:
    rewriting = MemoryRewritingConfig(window=config.window)
    return [
        _Method("base", "base"),
        _Method("incctr", "incctr"),
        _Method("memory", "base", make_memory()),
        _Method("incctr+memory, kept", "incctr", make_memory()),
        _Method("incctr+memory, reset", "incctr", make_memory(), "reset"),
        _Method(
            "incctr+memory, rewritten",
            "incctr",
            make_memory(),
            "rewrite",
            MemoryRewriting(rewriting),
        ),
    ]


def _arrays(lists: Sequence[ShownList]) -> Slot:
    labeled = [one.labeled() for one in lists]
    sizes = [len(one.item_indices) for one in labeled]
    return Slot(
        label_NH=np.concatenate([one.labels for one in labeled]),
        session_N=np.repeat([one.session for one in lists], sizes),
        from_ms=lists[0].captured.time_ms,
        until_ms=lists[-1].captured.time_ms,
    )


def _predict(
    ranker: RankingLearner, lists: Sequence[ShownList]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return base scores (N, H) and hidden states (N, D) of the labelled examples."""
    results = ranker.predict([one.captured for one in lists])
    rows = [one.labeled().item_indices for one in lists]
    pairs = list(zip(results, rows, strict=True))
    return (
        np.concatenate([result.probabilities[items] for result, items in pairs]),
        np.concatenate([result.hidden[items] for result, items in pairs]),
    )


def _score(
    method: _Method, base_NH: NDArray[np.float32], hidden_ND: NDArray[np.float32]
) -> SlotScores:
    if method.memory is None:
        return SlotScores(base_NH, base_NH)
    return SlotScores(
        score_NH=method.memory.compensate(hidden_ND, base_NH),
        base_NH=base_NH,
        error_NH=method.memory.read_errors(hidden_ND, base_NH),
        lambda_H=method.memory.lambdas.copy(),
    )


def _train(ranker: RankingLearner, lists: Sequence[ShownList], batch_examples: int) -> None:
    """Take one pass over a slot, in order of time."""
    batch, num_examples = [], 0
    for one in lists:
        batch.append(one.labeled())
        num_examples += len(one.labels)
        if num_examples >= batch_examples:
            ranker.learn(batch)
            batch, num_examples = [], 0
    if batch:
        ranker.learn(batch)


def _write(
    method: _Method,
    ranker: RankingLearner,
    lists: Sequence[ShownList],
    predicted: tuple[NDArray[np.float32], NDArray[np.float32]],
    config: IncrementalConfig,
) -> None:
    """Let a memory measure its lambdas on a slot and remember it.

    Errors are those of scoring time; so are base scores, whatever the model would say now that it
    has been trained on these very labels.
    """
    memory = method.memory
    assert memory is not None
    base_NH, hidden_ND = predicted
    error_NH = memory.read_errors(hidden_ND, base_NH)
    start = 0
    taught = []
    for one in lists:
        labeled = one.labeled()
        rows = slice(start, start + len(labeled.item_indices))
        taught.append(
            Taught(
                labeled.captured,
                labeled.item_indices,
                labeled.labels,
                base_NH[rows],
                labeled.captured.time_ms,
            )
        )
        start = rows.stop
    start = 0
    for part in _batches(taught, config.batch_examples):
        rows = slice(start, start + sum(len(one.item_indices) for one in part))
        labels_NH = np.concatenate([one.labels_MH for one in part])
        memory.learn(
            hidden_ND[rows], base_NH[rows], labels_NH, part[-1].time_ms, errors_NH=error_NH[rows]
        )
        start = rows.stop
    if method.on_change == "keep":
        return
    rewriting = method.rewriting or MemoryRewriting(MemoryRewritingConfig(window=start))
    rewriting.observe(taught)
    rewriting.begin(memory)
    while rewriting.write_some(ranker, memory, 8 * config.batch_examples):
        pass


def _batches(taught: Sequence[Taught], batch_examples: int) -> list[list[Taught]]:
    batches: list[list[Taught]] = [[]]
    num_examples = 0
    for one in taught:
        if num_examples >= batch_examples:
            batches.append([])
            num_examples = 0
        batches[-1].append(one)
        num_examples += len(one.item_indices)
    return batches
