"""Settings of the error memory, each with the choice its source leaves open."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

from domain.errors import ConfigError

Kind = Literal["sketch", "neighbours"]
Similarity = Literal["density", "count", "log_count"]
LambdaRule = Literal["margin", "shares"]
Centring = Literal["running", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighboursConfig:
    """The window of `memory.kind = "neighbours"`: what is kept, and how it is read."""

    window: int = 20_000
    """Examples kept; a read compares with all of them."""

    count: int = 32
    """Most similar examples that a read takes."""

    tau: float = 0.1
    """Temperature of the softmax over their cosines; the paper suggests 0.1."""

    min_error: float = 0.0
    """Examples whose scores were all nearer to their labels than this are not kept. The paper's
    option; it biases what is read towards the errors that are kept."""

    keep_rate: float = 1.0
    """Share of the examples that are kept, drawn at random: a longer window of fewer."""

    def __post_init__(self) -> None:
        _require(self.window >= 1, "neighbours.window", "at least 1", self.window)
        _require(self.count >= 1, "neighbours.count", "at least 1", self.count)
        tau, error, rate = self.tau, self.min_error, self.keep_rate
        _require(math.isfinite(tau) and tau > 0, "neighbours.tau", "positive", tau)
        _require(0 <= error < 1, "neighbours.min_error", "from 0 to below 1", error)
        _require(0 < rate <= 1, "neighbours.keep_rate", "above 0 and up to 1", rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """How the error memory hashes, forgets, reads and decides how far to trust itself.

    The sketch takes `12 * num_heads * num_arrays * 2**num_bits` bytes, 768 KiB per head as it
    stands. What ReLoop2 (KDD 2023) does not settle is an option here. Where a default differs from
    the paper it did so because it gained more log loss and AUC on synthetic streams with drift in
    clusters, in items and in the overall rate.
    """

    kind: Kind = "sketch"
    """"sketch" adds errors up in buckets of a hash (the paper's proposal), in constant time;
    "neighbours" keeps the last of them and compares with each."""

    num_arrays: int = 16
    """K: independent hash arrays. Each gives one estimate, so more make less noise and more work;
    the paper uses 70 to 180."""

    num_bits: int = 12
    """L: bits per hash, so 2**L buckets per array. One more bit wants about twice the examples per
    half-life; 12 suits 10**5, the paper's example is 16."""

    centring: Centring = "running"
    """"running" subtracts the mean of past hidden states before hashing, without which states
    that share a large common part (the output of a ReLU above all) fall into few buckets."""

    half_life_ms: int | None = 3_600_000
    """Event time after which a written error counts half; None never forgets."""

    reset_every_ms: int | None = None
    """Event time between complete resets; None leaves forgetting to the half-life."""

    similarity: Similarity = "log_count"
    """How array k's counter becomes the similarity s_k: "density", its share of all that was
    written (the RACE estimate), "count", the counter itself, or "log_count", ln(1 + counter). The
    paper's formula is not known; its words fit "density"."""

    tau: float = 1.0
    """Temperature of the softmax over the K similarities. At 1, "log_count" weighs each array by
    1 + counter, which pools their examples; for "density" the paper suggests 0.1."""

    gamma: float = 0.0
    """1 estimates the error as (labels nearby) - (this score), 0 as (labels - scores) nearby. The
    paper uses 1, which also pulls a score towards its neighbourhood's mean."""

    min_count: float = 0.01
    """Buckets that hold fewer (decayed) examples than this count as empty, and so do neighbours
    that weigh less together."""

    prior_count: float = 5.0
    """An array's estimate is multiplied by count / (count + prior_count), so that a bucket with
    little in it says little; 0 is the paper's plain mean."""

    lambda_grid: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Values of lambda that compete; the first is 0 and the rest grow up to 1."""

    lambda_rule: LambdaRule = "margin"
    """How one of them is chosen: "margin" follows the leader once it is ahead by `lambda_margin`;
    "shares" weighs all of them by what they gained over about 1 / `lambda_switch_rate` examples,
    and uses 0 while that has half of the weight."""

    lambda_margin: float = 10.0
    """Nats of log loss by which the lambda in use must fall behind another before that one takes
    over. Against a calibrated base the lead of any other value is the logarithm of a likelihood
    ratio, so it reaches 10 by chance no more often than once in e**10 = 22,000 examples."""

    lambda_switch_rate: float = 1e-4
    """By "shares": how often, per example, the best value is expected to change."""

    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    """The window of "neighbours"."""

    def __post_init__(self) -> None:
        kinds = ("sketch", "neighbours")
        _require(self.kind in kinds, "kind", "sketch or neighbours", self.kind)
        _require(1 <= self.num_arrays <= 256, "num_arrays", "from 1 to 256", self.num_arrays)
        _require(1 <= self.num_bits <= 20, "num_bits", "from 1 to 20", self.num_bits)
        _require(self.centring in ("running", "none"), "centring", "running or none", self.centring)
        for name in ("half_life_ms", "reset_every_ms"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, "positive or None", value)
        _require(
            self.similarity in ("density", "count", "log_count"),
            "similarity",
            "density, count or log_count",
            self.similarity,
        )
        _require(math.isfinite(self.tau) and self.tau > 0, "tau", "positive", self.tau)
        _require(0 <= self.gamma <= 1, "gamma", "from 0 to 1", self.gamma)
        _require(
            math.isfinite(self.min_count) and self.min_count > 0,
            "min_count",
            "positive",
            self.min_count,
        )
        _require(
            math.isfinite(self.prior_count) and self.prior_count >= 0,
            "prior_count",
            "at least 0",
            self.prior_count,
        )
        self._check_lambda()

    def _check_lambda(self) -> None:
        grid = self.lambda_grid
        rises = all(low < high for low, high in itertools.pairwise(grid))
        _require(
            len(grid) > 0 and grid[0] == 0 and rises and grid[-1] <= 1,
            "lambda_grid",
            "0 first, then growing values up to 1",
            grid,
        )
        margin = self.lambda_margin
        _require(math.isfinite(margin) and margin > 0, "lambda_margin", "positive", margin)
        rate, rules = self.lambda_switch_rate, ("margin", "shares")
        _require(self.lambda_rule in rules, "lambda_rule", "margin or shares", self.lambda_rule)
        _require(0 < rate < 1, "lambda_switch_rate", "between 0 and 1", rate)


def _require(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"memory.{name} must be {expected}, got {got!r}")
