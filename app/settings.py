"""Settings: defaults < TOML < environment < flags; an unknown key is an error that names it.

Each section is the configuration of one component, declared beside the component that reads it.
`deploy/config/default.toml` shows every key with its default and what it means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app.deployment import DataConfig, MetricsConfig
from app.evaluation import EvaluationConfig
from app.replay_checkpoints import ReplayConfig
from app.setting_keys import SettingKeys, nested
from app.setting_layers import read_layers
from domain.errors import ConfigError
from domain.features import FeatureSchema
from memory.config import MemoryConfig
from monitoring.dashboard.config import DashboardConfig
from monitoring.drift_monitor import DriftMonitorConfig
from monitoring.log_setup import LogConfig
from monitoring.metric_history import HistoryConfig
from monitoring.prequential_quality import PrequentialQualityConfig
from monitoring.prequential_ranks import PrequentialRanksConfig
from monitoring.session_ids import SessionIdsConfig
from monitoring.tracing import TracingConfig
from ranking.learner import RankingConfig
from retrieval.learner import RetrievalConfig
from serving.delta_follower import DeltaFollowerConfig
from serving.impression_log import ImpressionLogConfig
from serving.index_keeper import IndexKeeperConfig
from serving.publish import PublisherConfig
from serving.recommend import RecommenderConfig
from serving.server import ServerConfig
from serving.tail import TailConfig
from serving.watcher import WatcherConfig
from snapshot.deltas import DeltaStoreConfig
from snapshot.local_store import SnapshotConfig
from stream.batcher import BatcherConfig
from stream.checkpoint import CheckpointConfig
from stream.deduplicator import DeduplicatorConfig
from stream.delta_publishing import DeltasConfig
from stream.feature_store import FeatureStoreConfig
from stream.joiner import JoinerConfig
from stream.journal import JournalConfig
from stream.kafka_settings import KafkaConfig
from stream.memory_rewriting import MemoryRewritingConfig
from stream.reaction_config import ReactionsConfig
from stream.train_loop import TrainLoopConfig
from stream.trainer_config import TrainerConfig
from stream.watermark import WatermarkConfig

_NONE = "none"
"""How a key that may be None is switched off: TOML has no word for it."""


class Settings(BaseModel):
    """Every section of the configuration, in the order an event meets the components."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=42, ge=0)
    schema_declared: FeatureSchema = Field(default=FeatureSchema(), alias="schema")
    data: DataConfig = DataConfig()
    log: LogConfig = LogConfig()
    kafka: KafkaConfig = KafkaConfig()
    metrics: MetricsConfig = MetricsConfig()
    tracing: TracingConfig = TracingConfig()
    history: HistoryConfig = HistoryConfig()
    dashboard: DashboardConfig = DashboardConfig()
    trainer: TrainerConfig = TrainerConfig()
    deduplicator: DeduplicatorConfig = DeduplicatorConfig()
    watermark: WatermarkConfig = WatermarkConfig()
    joiner: JoinerConfig = JoinerConfig()
    session_ids: SessionIdsConfig = SessionIdsConfig()
    feature_store: FeatureStoreConfig = FeatureStoreConfig()
    batcher: BatcherConfig = BatcherConfig()
    train_loop: TrainLoopConfig = TrainLoopConfig()
    ranking: RankingConfig = RankingConfig()
    memory: MemoryConfig = MemoryConfig()
    memory_rewriting: MemoryRewritingConfig = MemoryRewritingConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    journal: JournalConfig = JournalConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    deltas: DeltasConfig = DeltasConfig()
    delta_store: DeltaStoreConfig = DeltaStoreConfig()
    server: ServerConfig = ServerConfig()
    recommender: RecommenderConfig = RecommenderConfig()
    impression_log: ImpressionLogConfig = ImpressionLogConfig()
    publisher: PublisherConfig = PublisherConfig()
    tail: TailConfig = TailConfig()
    watcher: WatcherConfig = WatcherConfig()
    index_keeper: IndexKeeperConfig = IndexKeeperConfig()
    delta_follower: DeltaFollowerConfig = DeltaFollowerConfig()
    prequential_quality: PrequentialQualityConfig = PrequentialQualityConfig()
    prequential_ranks: PrequentialRanksConfig = PrequentialRanksConfig()
    drift: DriftMonitorConfig = DriftMonitorConfig()
    reactions: ReactionsConfig = ReactionsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    replay: ReplayConfig = ReplayConfig()

    @model_validator(mode="after")
    def _deltas_have_a_cluster(self) -> Settings:
        if self.deltas.via == "kafka" and not self.data.log_url.startswith("kafka://"):
            raise ConfigError(
                'deltas.via: "kafka" needs an event log in Kafka, got data.log '
                f"{self.data.log_url!r}"
            )
        return self

    @model_validator(mode="after")
    def _rules_name_declared_fields(self) -> Settings:
        self.recommender.availability.check(self.schema_declared)
        self.recommender.diversity.check(self.schema_declared)
        return self


KEYS = SettingKeys(
    {field.alias or name: field.annotation for name, field in Settings.model_fields.items()}
)
"""Every key there is, with its type."""


def load_settings(path: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Read settings from a TOML file, the environment and flags.

    Args:
        path: TOML file; None reads none.
        overrides: flags of the form "section.key=value"; they win over everything.

    Raises:
        ConfigError: naming the file or the dotted key, what was expected and what came.
    """
    layers = read_layers(KEYS, path, os.environ, overrides)
    values = {
        dotted: None if value == _NONE and _may_be_none(dotted) else value
        for dotted, value in layers.values.items()
    }
    try:
        return Settings.model_validate(nested(values))
    except ValidationError as error:
        raise ConfigError(_explain(error.errors()[0], layers.sources)) from None


def _may_be_none(dotted: str) -> bool:
    return type(None) in get_args(KEYS.types[dotted])


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dataclass_type": "a table of keys",
}
_WRONG_KEYS = {
    "unexpected_keyword_argument": ": unknown key",
    "missing_keyword_only_argument": " is missing",
    "missing": " is missing",
}


def _explain(error: ErrorDetails, sources: Mapping[str, str]) -> str:
    """Say on one line which key is wrong, what was expected, what came and where it was set."""
    dotted = _written(error["loc"])
    reason = error.get("ctx", {})
    source = sources.get(dotted.partition("[")[0], "")
    if error["type"] == "value_error":
        message, key = _named_in_full(str(reason["error"]), dotted)
        return message + sources.get(key, source)
    if error["type"] in _WRONG_KEYS:
        return f"{dotted}{_WRONG_KEYS[error['type']]}{source}"
    if error["type"] == "greater_than_equal":
        return f"{dotted} must be at least {reason['ge']}, got {error['input']!r}{source}"
    if error["type"] == "literal_error":
        expected = str(reason["expected"])
    else:
        expected = _EXPECTED.get(error["type"], error["msg"].lower())
    return f"{dotted}: expected {expected}, got {error['input']!r}{source}"


def _written(location: Sequence[int | str]) -> str:
    """Return ("schema", "fields", 0, "kind") as schema.fields[0].kind."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _named_in_full(message: str, section: str) -> tuple[str, str]:
    """Return a component's message, which begins with a key, and that key's dotted name.

    A component that serves in several places names its key by its own name; here it is known in
    which section it stands.
    """
    named, space, rest = message.partition(" ")
    key = f"{section}.{named.rstrip(':').rpartition('.')[2]}"
    if key not in KEYS.types:
        return message, ""
    colon = ":" if named.endswith(":") else ""
    return f"{key}{colon}{space}{rest}", key
