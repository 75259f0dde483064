"""MemoryConfig refuses what makes no sense, naming the key."""

from __future__ import annotations

import pytest

from domain.errors import ConfigError
from memory.config import MemoryConfig, NeighboursConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_arrays", 0),
        ("num_bits", 21),
        ("centring", "sometimes"),
        ("half_life_ms", 0),
        ("reset_every_ms", -5),
        ("similarity", "cosine"),
        ("tau", 0.0),
        ("tau", float("nan")),
        ("gamma", 1.5),
        ("min_count", 0.0),
        ("prior_count", -1.0),
        ("prior_count", float("inf")),
        ("lambda_grid", ()),
        ("lambda_grid", (0.1, 0.2)),
        ("lambda_grid", (0.0, 0.4, 0.2)),
        ("lambda_grid", (0.0, 1.2)),
        ("kind", "cache"),
        ("lambda_rule", "hope"),
        ("lambda_switch_rate", 0.0),
        ("lambda_switch_rate", 1.0),
        ("lambda_margin", 0.0),
        ("lambda_margin", float("inf")),
    ],
)
def test_memory_config_names_the_key_when_a_value_is_out_of_range(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^memory\.{key} must be .*, got "):
        MemoryConfig(**{key: value})


def test_memory_config_accepts_its_own_defaults_and_none_for_never() -> None:
    assert MemoryConfig() == MemoryConfig()
    assert MemoryConfig(half_life_ms=None, reset_every_ms=None).half_life_ms is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("window", 0),
        ("count", 0),
        ("tau", float("inf")),
        ("min_error", 1.0),
        ("keep_rate", 0.0),
        ("keep_rate", 1.1),
    ],
)
def test_neighbours_config_names_the_key_when_a_value_is_out_of_range(
    key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"^memory\.neighbours\.{key} must be .*, got "):
        NeighboursConfig(**{key: value})
