"""Datasets are opened by name, with options they have a use for."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import ConfigError, DatasetError
from replay.datasets import DATASETS, DatasetOptions, EventFileColumns, open_dataset


def test_datasets_are_described_in_one_line() -> None:
    assert list(DATASETS) == ["kuairand-pure", "movielens", "movietweetings", "events"]
    for name, info in DATASETS.items():
        assert info.name == name
        assert 20 < len(info.description) < 90
        assert "\n" not in info.description


def test_open_dataset_lists_what_there_is_when_the_name_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset 'netflix'; there are: kuairand-pure"):
        open_dataset("netflix", tmp_path)


@pytest.mark.parametrize("name", ["kuairand-pure", "movielens", "movietweetings"])
def test_open_dataset_refuses_columns_for_published_layouts(tmp_path: Path, name: str) -> None:
    columns = EventFileColumns(user="u", item="i", time="t")
    with pytest.raises(ConfigError, match=rf"^dataset\.columns: {name} has no use for it"):
        open_dataset(name, tmp_path, DatasetOptions(columns=columns))


def test_dataset_options_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.limit must be positive, got 0"):
        DatasetOptions(limit=0)
    with pytest.raises(ConfigError, match=r"^dataset\.session_gap_ms must be positive, got -1"):
        DatasetOptions(session_gap_ms=-1)
