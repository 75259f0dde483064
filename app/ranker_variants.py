"""`--variant NAME=SETTINGS`: further rankers in one replay, each with settings of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.settings import Settings
from domain.errors import ConfigError
from domain.features import FeatureSchema
from ranking.adaf2m2 import AdaF2M2Config
from ranking.averaging import AveragingConfig
from ranking.calibration import CalibrationConfig
from ranking.clipping import ClippingConfig
from ranking.history_encoder import BackboneConfig
from ranking.learner import RankingConfig, RankingModel
from ranking.trees import TreesRival
from replay.rankers_side_by_side import RankerVariant, Stopwatch

_NAME = re.compile(r"[\w.+-]+(/[\w.+-]+)*")
_TAKEN = ("frozen", "online", "online+memory")
_BETWEEN_SETTINGS = re.compile(r",\s*(?=[a-z_0-9]+(?:\.[a-z_0-9]+)+\s*=)")
"""A comma that a key follows: commas within lists of values do not part settings."""

TREES, NETWORK = "rival/trees", "rival/network"
"""What others would do with the same captures, and the same labels at the same delay."""

ReadSettings = Callable[[Sequence[str]], Settings]


@dataclass(frozen=True, slots=True)
class RankerWish:
    """A ranker that is to take part.

    Attributes:
        changes: the settings in which it differs from the live ranker, as they were written.
    """

    name: str
    changes: tuple[str, ...]
    config: RankingConfig
    seed: int


def ranker_wishes(texts: Sequence[str], read: ReadSettings) -> tuple[RankerWish, ...]:
    """Read what --variant asks for.

    Args:
        texts: "NAME=ranking.KEY=VALUE[,ranking.KEY=VALUE...]" each.
        read: returns the live settings with some changed.

    Raises:
        ConfigError: a name is taken or no name, or a setting is not one of the ranker's.
    """
    wishes: dict[str, RankerWish] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        changes = tuple(part.strip() for part in _BETWEEN_SETTINGS.split(rest) if part.strip())
        if not _NAME.fullmatch(name) or not changes:
            raise ConfigError(
                f"--variant {text}: expected NAME=ranking.KEY=VALUE[,ranking.KEY=VALUE...]"
            )
        if name in wishes or name in _TAKEN or name.startswith(("counters/", "river/", "rival/")):
            raise ConfigError(f"--variant {text}: there is a variant {name} already")
        for change in changes:
            if not change.startswith(("ranking.", "seed=")):
                raise ConfigError(
                    f"--variant {text}: expected settings of the ranker (ranking.KEY, or seed), "
                    f"got {change!r}; for others replay twice, and compare"
                )
        settings = read(changes)
        wishes[name] = RankerWish(name, changes, settings.ranking, settings.seed)
    return tuple(wishes.values())


def build_variants(
    schema: FeatureSchema,
    live: RankingConfig,
    wishes: Sequence[RankerWish],
    stopwatch: Stopwatch,
) -> list[RankerVariant]:
    """Build untrained rankers; those that encode as the live one does share its captures."""
    variants = []
    for wish in wishes:
        ranker = RankingModel(schema, wish.config, wish.seed)
        alike = (wish.config.encoder, wish.config.counters) == (live.encoder, live.counters)
        capturer = None if alike else ranker
        variants.append(RankerVariant(wish.name, ranker, capturer, stopwatch, ranker))
    return variants


def build_rivals(
    schema: FeatureSchema, live: RankingConfig, seed: int, stopwatch: Stopwatch
) -> list[RankerVariant]:
    """Build boosted trees and a plain network, both on the live ranker's captures.

    Raises:
        ConfigError: LightGBM is not installed.
    """
    network = RankingModel(schema, plain_network(live), seed)
    trees = TreesRival(seed)
    return [
        RankerVariant(TREES, trees, None, stopwatch, saved=trees),
        RankerVariant(NETWORK, network, None, stopwatch, saved=network),
    ]


def plain_network(live: RankingConfig) -> RankingConfig:
    """Return embeddings and counters in a feed-forward network, scored as it was last learned.

    No history, no adapter, no mean of weights, no clipping, no calibration; with the captures of
    `live`.
    """
    return replace(
        RankingConfig(encoder=live.encoder, counters=live.counters, device=live.device),
        backbone=BackboneConfig(blocks=0),
        adaf2m2=AdaF2M2Config(adapter=False),
        averaging=AveragingConfig(half_life_examples=0.0),
        clipping=ClippingConfig(factor=0.0),
        calibration=CalibrationConfig(method="none"),
    )
