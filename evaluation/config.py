"""Everything that a comparison of sequence models fixes: sizes, optimiser, epochs; the presets.

The presets are the settings published for the research trainer of arXiv 2402.17152 (SASRec, HSTU)
and of arXiv 2502.03036 (FuXi-alpha); FuXi-beta takes those of FuXi-alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from domain.errors import ConfigError
from encoders.shape import AttentionMode, BackboneShape
from evaluation.sequences import SPARE_SLOTS

Model = Literal["fuxi-alpha", "fuxi-beta", "hstu", "sasrec"]
Rule = Literal["upstream", "validation"]

MODELS: tuple[Model, ...] = get_args(Model)
RULES: tuple[Rule, ...] = get_args(Rule)

_POSITIVE = (
    "blocks", "width", "heads", "d_qk", "d_v", "ffn_multiple", "history_length", "epochs",
    "batch_size", "negatives",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialConfig:
    """How a sequence model is trained and compared; the defaults are those for MovieLens-1M."""

    model: Model = "fuxi-alpha"
    """Backbone."""
    blocks: int = 2
    """Blocks on top of each other."""
    width: int = 50
    """Width of item vectors and tokens (D)."""
    heads: int = 1
    """Attention heads."""
    d_qk: int = 50
    """Width of queries and keys per head; SASRec's is width / heads."""
    d_v: int = 50
    """Width of values per head; SASRec's is width / heads."""
    ffn_multiple: int = 1
    """Hidden width of the feed-forward part, in multiples of the width."""
    dropout: float = 0.2
    """Share of inputs dropped while training."""
    history_length: int = 200
    """How many of a user's most recent events the model sees (L); the container is L + 11."""
    epochs: int = 101
    """Passes over the users."""
    batch_size: int = 128
    """Users per step."""
    negatives: int = 128
    """Candidates drawn per place (R)."""
    temperature: float = 0.05
    """What the cosine is divided by."""
    learning_rate: float = 1e-3
    """Of AdamW, constant."""
    weight_decay: float = 0.0
    """Of AdamW."""
    attention: AttentionMode = "plain"
    """How FuXi-alpha attends: plain, fused (one kernel on a GPU), or auto: fused where it can."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ConfigError(f"--model: expected one of {', '.join(MODELS)}, got {self.model!r}")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{_flag(name)} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"--dropout must lie in [0, 1), got {self.dropout}")
        if not self.temperature > 0.0:
            raise ConfigError(f"--temperature must be positive, got {self.temperature}")
        if not self.learning_rate > 0.0:
            raise ConfigError(f"--learning-rate must be positive, got {self.learning_rate}")
        if not self.weight_decay >= 0.0:
            raise ConfigError(f"--weight-decay must not be negative, got {self.weight_decay}")
        modes = get_args(AttentionMode)
        if self.attention not in modes:
            raise ConfigError(
                f"--attention: expected one of {', '.join(modes)}, got {self.attention!r}"
            )
        if self.model == "sasrec" and self.width % self.heads:
            raise ConfigError(
                f"--heads: SASRec shares its width of {self.width} among them, got {self.heads}"
            )

    @property
    def container(self) -> int:
        """Return N, which attention is divided by."""
        return self.history_length + SPARE_SLOTS

    @property
    def shape(self) -> BackboneShape:
        """Return what the backbone is built from."""
        share = self.width // self.heads
        return BackboneShape(
            kind=self.model,
            width=self.width,
            container=self.container,
            blocks=self.blocks,
            heads=self.heads,
            d_qk=share if self.model == "sasrec" else self.d_qk,
            d_v=share if self.model == "sasrec" else self.d_v,
            ffn_multiple=self.ffn_multiple,
            dropout=self.dropout,
            attention=self.attention,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_ML_20M = {"width": 256, "heads": 4, "d_qk": 64, "d_v": 64, "ffn_multiple": 4}
_ML_20M_LARGE = {"width": 256, "heads": 8, "d_qk": 32, "d_v": 32, "ffn_multiple": 4, "blocks": 8}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ml-1m": {},
    "ml-1m-large": {"blocks": 8, "heads": 2, "d_qk": 25, "d_v": 25},
    "ml-20m": _ML_20M,
    "ml-20m-large": _ML_20M_LARGE,
}
"""What differs from the defaults, by name."""

_OF_MODEL: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("ml-20m", "sasrec"): {"blocks": 4, "ffn_multiple": 1},
    ("ml-20m", "hstu"): {"blocks": 4},
    ("ml-20m-large", "hstu"): {"blocks": 16},
}
"""Where a published setting differs between models: Meta's, which are its stronger ones."""


def configured(model: str, preset: str, changes: Mapping[str, Any]) -> SequentialConfig:
    """Return a preset with some values changed; None means unchanged.

    Raises:
        ConfigError: there is no such preset or model, or a value is out of range.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    values = {**PRESETS[preset], **_OF_MODEL.get((preset, model), {})}
    values |= {name: value for name, value in changes.items() if value is not None}
    return SequentialConfig(**{**values, "model": model})
