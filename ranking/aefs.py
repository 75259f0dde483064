"""AEFS: a small model that chooses, example by example, which fields are looked up at all.

After "AEFS: Adaptive Early Feature Selection for Deep Recommender Systems" (arXiv 2509.12076) and
its basis AdaFS (KDD 2022). Every field has a narrow row in a small table of its own. A controller
reads those and keeps k of the F fields; only these are then asked of the large table. Two alignment
losses pull the small model towards the large one, never the other way.

Differences from the authors' code, all of them because this one learns in a single pass and answers
single requests: batch normalisation uses running statistics in training and prediction alike, so
that no row depends on its batch; they take a batch in after it was learned from. The small model
sees the numbers (counters above all) too, which cost no look-up. There is no weight decay.

Shape legend: M examples, F fields, S width of a small row, D width of a large one, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class AefsConfig:
    """Early selection of fields."""

    keep: float = 0.0
    """Share of the fields whose embeddings are looked up, at least one; 0.0 switches it off."""
    small_dimension: int = 4
    """Width of the rows that the choice is made from."""
    hidden: tuple[int, ...] = (16, 8)
    """Widths of the small model's hidden layers."""
    small_weight: float = 1.0
    """Weight of the small model's own loss."""
    prediction_alignment: float = 0.3
    """Weight of the distance between the small model's probabilities and the main one's."""
    embedding_alignment: float = 0.3
    """Weight of the distance between projected small embeddings and large ones."""
    controller_every: int = 10
    """The controller takes a step once in so many, with that step's gradient alone."""
    dropout: float = 0.2
    """Chance that the controller's say on a field is left out of a learning step."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.keep <= 1.0:
            raise ConfigError(f"ranking.aefs.keep must lie within 0 and 1, got {self.keep}")
        for name in ("small_dimension", "controller_every"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"ranking.aefs.{name} must be at least 1, got {value}")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"ranking.aefs.hidden must be one or more positive widths, got {self.hidden}"
            )
        for name in ("small_weight", "prediction_alignment", "embedding_alignment"):
            value = getattr(self, name)
            if not value >= 0.0:
                raise ConfigError(f"ranking.aefs.{name} must not be negative, got {value}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"ranking.aefs.dropout must be at least 0 and below 1, got {self.dropout}"
            )

    def num_kept(self, num_fields: int) -> int:
        """Return k, how many of the fields are looked up.

        >>> AefsConfig(keep=0.5).num_kept(39), AefsConfig(keep=0.25).num_kept(3)
        (19, 1)
        """
        return max(1, math.floor(self.keep * num_fields + 1e-9))


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """Which fields of each example were chosen, and what that was decided from.

    Attributes:
        mask_MF: weights of the chosen fields, which sum to 1; 0 elsewhere. Gradients flow.
        chosen_MF: whether a field was chosen.
        raw_MFS: the small embeddings.
        normal_MFS: the same, normalised.
        says_MF: the controller's say before normalisation.
    """

    mask_MF: Tensor
    chosen_MF: Tensor
    raw_MFS: Tensor
    normal_MFS: Tensor
    says_MF: Tensor


@dataclass(frozen=True, slots=True)
class AefsOutput:
    """What the losses of AEFS are made of.

    Attributes:
        small_logits_MH: what the small model says.
        projected_MFD: small embeddings, projected to the width of large ones.
        main_MFD: large embeddings after normalisation, before the mask.
        scattered_MFD: the same before normalisation; zeros where a field was not chosen.
    """

    choice: FieldChoice
    small_logits_MH: Tensor
    projected_MFD: Tensor
    main_MFD: Tensor
    scattered_MFD: Tensor


def renormalised_top_k(weights_MF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep each row's k largest weights, made to sum to 1 again; of equal ones the first.

    Returns the weights, 0 where not kept, and which were kept.

    >>> renormalised_top_k(torch.tensor([[0.1, 0.4, 0.05, 0.45]]), 2)[0]
    tensor([[0.0000, 0.4706, 0.0000, 0.5294]])
    """
    order = weights_MF.detach().sort(dim=1, descending=True, stable=True).indices[:, :k]
    chosen_MF = torch.zeros_like(weights_MF, dtype=torch.bool).scatter(1, order, value=True)
    kept_MF = weights_MF * chosen_MF
    return kept_MF / kept_MF.sum(dim=1, keepdim=True), chosen_MF


def prediction_alignment(small_logits_MH: Tensor, main_logits_MH: Tensor) -> Tensor:
    """Return PAL: mean squared distance of probabilities; only the small model feels it."""
    return (small_logits_MH.sigmoid() - main_logits_MH.detach().sigmoid()).square().mean()


def embedding_alignment(out: AefsOutput) -> Tensor:
    """Return EAL: mean squared distance of masked embeddings; only the small model feels it.

    The mean is over all fields; those that were not chosen add exact zeros.
    """
    return embedding_gaps(out).mean()


def embedding_gaps(out: AefsOutput) -> Tensor:
    """Return each example's part of EAL, (M,)."""
    mask_MF1 = out.choice.mask_MF[..., None]
    target_MFD = (out.main_MFD * mask_MF1).detach()
    return (out.projected_MFD * mask_MF1 - target_MFD).square().mean(dim=(1, 2))


def aefs_loss(config: AefsConfig, out: AefsOutput, logits_MH: Tensor, small_loss: Tensor) -> Tensor:
    """Return what AEFS adds to the main model's loss; `small_loss` is the small model's own."""
    return (
        config.small_weight * small_loss
        + config.prediction_alignment * prediction_alignment(out.small_logits_MH, logits_MH)
        + config.embedding_alignment * embedding_alignment(out)
    )


class RunningNorm(nn.Module):
    """Batch normalisation over the last dimension by running statistics, then a learned scale.

    Statistics are constants to the gradient, the same in training and prediction, and move only by
    `observe`. They are parameters without a gradient, so that they travel with the weights.
    Normalised values are cut: where nothing varied so far, the first thing that does is no outlier
    of its own batch, as it would be in training by batch, but may be a thousand deviations off.
    """

    _MOMENTUM = 0.1
    _EPSILON = 1e-5
    _LARGEST = 5.0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(width), requires_grad=False)
        self.share = nn.Parameter(torch.ones(1), requires_grad=False)
        """Share of the next batch: 1, 1/2, 1/3 and so on, then the momentum."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, (..., W), normalised."""
        normal = (x - self.mean) * torch.rsqrt(self.variance + self._EPSILON)
        return normal.clamp(-self._LARGEST, self._LARGEST) * self.scale + self.shift

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take a batch into account, (..., W).

        Means of batches differ, and that counts as spread too: batches may be of one example.
        """
        flat = x.detach().reshape(-1, x.shape[-1])
        mean = flat.mean(dim=0)
        gap = mean - self.mean
        self.variance.lerp_((flat - mean).square().mean(dim=0), self.share)
        self.variance.add_(self.share * (1.0 - self.share) * gap.square())
        self.mean.add_(self.share * gap)
        self.share.copy_((self.share / (1.0 + self.share)).clamp(min=self._MOMENTUM))


class SmallModel(nn.Module):
    """Chooses fields, predicts from what it chose, and projects its rows to the large width."""

    def __init__(
        self,
        config: AefsConfig,
        num_fields: int,
        widths: tuple[int, int, int],
        generator: torch.Generator,
    ) -> None:
        """Build it untrained.

        Args:
            config: what can be chosen.
            num_fields: F.
            widths: how many numbers there are beside the fields, the width of a large row, and how
                many heads there are.
            generator: draws the first weights.
        """
        super().__init__()
        self._config = config
        self._num_kept = config.num_kept(num_fields)
        num_numbers, width, num_heads = widths
        S = config.small_dimension
        self.defaults = nn.Parameter(
            torch.empty(num_fields, S).normal_(0, 0.05, generator=generator)
        )
        self.norm = RunningNorm(S)
        self.controller = _linear(num_fields * S, num_fields, generator)
        self.controller_norm = RunningNorm(num_fields)
        layers = (num_fields * S + num_numbers, *config.hidden)
        self.layers = nn.ModuleList(_linear(*pair, generator) for pair in pairwise(layers))
        self.heads = _linear(layers[-1], num_heads, generator)
        self.projector = _linear(S, width, generator)
        self.main_norm = RunningNorm(width)
        self.steps = nn.Parameter(torch.zeros(1), requires_grad=False)
        """Learning steps since the controller's last."""

    def choose(self, small_MFS: Tensor, dropout: torch.Generator | None = None) -> FieldChoice:
        """Choose fields by their small rows; with a generator, as in learning.

        Rectification and dropout come before the softmax, as in the authors' code.
        """
        raw_MFS = small_MFS + self.defaults
        normal_MFS = self.norm(raw_MFS)
        says_MF = self.controller(normal_MFS.flatten(1))
        heard_MF = relu(self.controller_norm(says_MF))
        rate = self._config.dropout
        if dropout is not None and rate:
            # Drawn on the CPU, where the generator lives, so that every device draws the same.
            left = (torch.rand(heard_MF.shape, generator=dropout) >= rate).to(heard_MF.device)
            heard_MF = heard_MF * left / (1.0 - rate)
        mask_MF, chosen_MF = renormalised_top_k(heard_MF.softmax(dim=1), self._num_kept)
        return FieldChoice(mask_MF, chosen_MF, raw_MFS, normal_MFS, says_MF)

    def look(
        self, choice: FieldChoice, numbers: Tensor, fields_MFD: Tensor
    ) -> tuple[Tensor, AefsOutput]:
        """Return the large embeddings that the main model goes on with, and what losses need.

        Args:
            choice: what `choose` returned.
            numbers: what else the models see, (M, ...).
            fields_MFD: large embeddings; those not chosen are not looked at.
        """
        scattered_MFD = fields_MFD * choice.chosen_MF[..., None]
        main_MFD = self.main_norm(scattered_MFD)
        mask_MF1 = choice.mask_MF[..., None]
        hidden = torch.cat(((choice.normal_MFS * mask_MF1).flatten(1), numbers), dim=1)
        for layer in self.layers:
            hidden = relu(layer(hidden))
        out = AefsOutput(
            choice=choice,
            small_logits_MH=self.heads(hidden),
            projected_MFD=self.projector(choice.normal_MFS),
            main_MFD=main_MFD,
            scattered_MFD=scattered_MFD,
        )
        return main_MFD * mask_MF1, out

    def before_step(self, out: AefsOutput) -> None:
        """Hold the controller's gradient back, but for every so many steps; take a batch in.

        A gradient that is held back is lost, not added up: its parameters do not take the step.
        """
        self.steps.add_(1.0)
        if int(self.steps) >= self._config.controller_every:
            self.steps.zero_()
        else:
            for part in (self.controller, self.controller_norm):
                for parameter in part.parameters():
                    parameter.grad = None
        self.norm.observe(out.choice.raw_MFS)
        self.controller_norm.observe(out.choice.says_MF)
        self.main_norm.observe(out.scattered_MFD)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
