"""The folder of a run: settings that must match, checkpoints that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from domain.errors import ConfigError, SnapshotDamagedError
from evaluation.run_folder import RunFolder
from evaluation.sequential import Run

SETTINGS = {"model": "hstu", "epochs": 3}
RUN = Run("upstream", 1)


def state(epochs: int) -> dict[str, object]:
    weights = {"item_VD": np.full((2, 2), epochs, np.float32)}
    return {"trainer": {"epochs_done": epochs, "weights": weights}, "results": [{"epoch": epochs}]}


def test_newest_checkpoint_comes_back_and_is_the_only_one(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path).checkpoints(RUN)
    assert kept.load() is None
    for epochs in (1, 2, 10):
        kept.save(state(epochs))
    found = kept.load()
    assert found is not None
    assert found["results"] == [{"epoch": 10}]
    assert found["trainer"]["weights"]["item_VD"].tolist() == [[10.0, 10.0], [10.0, 10.0]]
    assert [path.name for path in (tmp_path / RUN.name).iterdir()] == ["epoch-00010"]


def test_a_checkpoint_half_written_is_not_looked_at(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path).checkpoints(RUN)
    kept.save(state(1))
    (tmp_path / RUN.name / ".writing").mkdir()
    (tmp_path / RUN.name / ".writing" / "state.json").write_text("{")
    found = kept.load()
    assert found is not None
    assert found["trainer"]["epochs_done"] == 1
    kept.save(state(2))


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    kept = RunFolder(tmp_path).checkpoints(RUN)
    kept.save(state(1))
    path = tmp_path / RUN.name / "epoch-00001" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SnapshotDamagedError, match="epoch-00001"):
        kept.load()
    path.unlink()
    with pytest.raises(SnapshotDamagedError, match=name):
        kept.load()


def test_a_folder_is_begun_once_and_resumed_with_the_same_settings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match="--resume: expected a run in"):
        folder.open(SETTINGS, resume=True)
    folder.open(SETTINGS, resume=False)
    with pytest.raises(ConfigError, match="holds a run already"):
        folder.open(SETTINGS, resume=False)
    folder.open({**SETTINGS, "epochs": 5}, resume=True)
    with pytest.raises(ConfigError, match=r"--epochs: .* asked for 5 epochs, .* got 3"):
        folder.open(SETTINGS, resume=True)
    with pytest.raises(ConfigError, match="made with model hstu, got sasrec"):
        folder.open({"model": "sasrec", "epochs": 5}, resume=True)


def test_settings_that_are_none_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(ConfigError, match="expected the settings of a run"):
        RunFolder(tmp_path).open(SETTINGS, resume=True)
