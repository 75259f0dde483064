"""Settings: defaults < TOML < environment < flags; an unknown key is an error that names it.

Each section is the configuration of one component, declared beside the component that reads it.
`deploy/config/default.toml` shows every key with its default and what it means.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.deployment import DataConfig, MetricsConfig
from app.evaluation import EvaluationConfig
from domain.errors import ConfigError
from domain.features import FeatureSchema, schema_from_mapping
from memory.config import MemoryConfig
from monitoring.drift_monitor import DriftMonitorConfig
from monitoring.log_setup import LogConfig
from monitoring.prequential_quality import PrequentialQualityConfig
from monitoring.prequential_ranks import PrequentialRanksConfig
from monitoring.session_ids import SessionIdsConfig
from ranking.learner import RankingConfig
from retrieval.learner import RetrievalConfig
from serving.impression_log import ImpressionLogConfig
from serving.publish import PublisherConfig
from serving.recommend import RecommenderConfig
from serving.server import ServerConfig
from serving.tail import TailConfig
from serving.watcher import WatcherConfig
from snapshot.local_store import SnapshotConfig
from stream.batcher import BatcherConfig
from stream.checkpoint import CheckpointConfig
from stream.deduplicator import DeduplicatorConfig
from stream.feature_store import FeatureStoreConfig
from stream.joiner import JoinerConfig
from stream.kafka_settings import KafkaConfig
from stream.train_loop import TrainLoopConfig
from stream.trainer import TrainerConfig
from stream.watermark import WatermarkConfig

ENV_PREFIX = "HEADRACE_"
_DELIMITER = "__"


class Settings(BaseSettings):
    """Every section of the configuration, in the order an event meets the components."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=_DELIMITER,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
    )

    seed: int = 42
    raw_schema: dict[str, Any] = Field(default_factory=dict, alias="schema")
    data: DataConfig = DataConfig()
    log: LogConfig = LogConfig()
    kafka: KafkaConfig = KafkaConfig()
    metrics: MetricsConfig = MetricsConfig()
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
    retrieval: RetrievalConfig = RetrievalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    server: ServerConfig = ServerConfig()
    recommender: RecommenderConfig = RecommenderConfig()
    impression_log: ImpressionLogConfig = ImpressionLogConfig()
    publisher: PublisherConfig = PublisherConfig()
    tail: TailConfig = TailConfig()
    watcher: WatcherConfig = WatcherConfig()
    prequential_quality: PrequentialQualityConfig = PrequentialQualityConfig()
    prequential_ranks: PrequentialRanksConfig = PrequentialRanksConfig()
    drift: DriftMonitorConfig = DriftMonitorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def schema_declared(self) -> FeatureSchema:
        """Return the feature schema that the `[schema]` tables declare."""
        return schema_from_mapping(self.raw_schema)


def load_settings(path: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Read settings from a TOML file, the environment and flags.

    Args:
        path: TOML file; None reads none.
        overrides: flags of the form "section.key=value"; they win over everything.

    Raises:
        ConfigError: naming the file or the dotted key, what was expected and what came.
    """
    if path is not None:
        _check_readable(path)
    _check_environment()

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml = TomlConfigSettingsSource(settings_cls, path)
            return (init_settings, env_settings, toml)

    try:
        loaded = Loaded(**_parse_overrides(overrides))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    loaded.schema_declared  # noqa: B018 - a schema that contradicts itself is said at once
    return loaded


def _check_readable(path: Path) -> None:
    try:
        tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _check_environment() -> None:
    """A mistyped variable would be ignored without a word; sections are told by the delimiter."""
    for name in sorted(os.environ):
        if not name.startswith(ENV_PREFIX) or _DELIMITER not in name:
            continue
        section = name.removeprefix(ENV_PREFIX).split(_DELIMITER)[0].lower()
        if section not in Settings.model_fields:
            raise ConfigError(f"environment variable {name}: {_unknown(section, _sections())}")


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: expected section.key=value")
        *parents, last = key.strip().split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = _parse_value(value.strip())
    return raw


def _parse_value(text: str) -> Any:
    """Read a flag's value as TOML (numbers, true, lists); anything else is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _sections() -> list[str]:
    return [field.alias or name for name, field in Settings.model_fields.items()]


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        return f"{dotted}: {_unknown(dotted, _sections())}"
    if first["type"] == "unexpected_keyword_argument":
        section, key = str(first["loc"][0]), str(first["loc"][-1])
        return f"{dotted}: {_unknown(key, _keys(section))}"
    return f"{dotted}: {first['msg'].lower()}, got {first['input']!r}"


def _keys(section: str) -> list[str]:
    return list(getattr(Settings.model_fields[section].annotation, "__dataclass_fields__", {}))


def _unknown(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"
    return f"unknown setting{hint}"
