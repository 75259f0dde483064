"""The three learners, built from settings or from what a snapshot says it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.settings import Settings
from app.validation import first_complaint
from domain.errors import SnapshotError
from domain.features import FeatureSchema
from memory.config import MemoryConfig
from memory.learner import ErrorMemoryLearner
from ranking.learner import RankingConfig, RankingModel
from retrieval.learner import RetrievalConfig, RetrievalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfigs:
    """Everything that decides the shape of the learners; stored in every snapshot."""

    ranking: RankingConfig
    memory: MemoryConfig
    retrieval: RetrievalConfig
    seed: int

    @classmethod
    def of(cls, settings: Settings) -> LearnerConfigs:
        """Return the configurations that the settings ask for."""
        return cls(
            ranking=settings.ranking,
            memory=settings.memory,
            retrieval=settings.retrieval,
            seed=settings.seed,
        )

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> LearnerConfigs:
        """Return what `to_plain` described.

        Raises:
            SnapshotError: it describes learners this version does not know.
        """
        try:
            return TypeAdapter(cls).validate_python(dict(plain))
        except ValidationError as error:
            raise SnapshotError(
                "the snapshot's learners were configured by another version: "
                f"{first_complaint(error)}"
            ) from None

    def to_plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Learners:
    """The slow learner, the fast learner, and the one that finds candidates."""

    ranking: RankingModel
    memory: ErrorMemoryLearner
    retrieval: RetrievalModel


def build_learners(schema: FeatureSchema, configs: LearnerConfigs) -> Learners:
    """Build untrained learners; the same seed gives the same weights."""
    ranking = RankingModel(schema, configs.ranking, configs.seed)
    return Learners(
        ranking=ranking,
        memory=ErrorMemoryLearner(
            configs.memory, configs.ranking.hidden[-1], len(schema.heads), configs.seed
        ),
        retrieval=RetrievalModel(schema, configs.retrieval, configs.seed),
    )
