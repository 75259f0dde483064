"""The folder of a comparison: its settings, the newest checkpoint of each run, and its reports.

    settings.json                        what was asked; a resumed run must ask the same
    upstream-seed1/epoch-00007/          newest checkpoint: state.json, state.safetensors
    epochs.tsv, report.json, report.md, curves.html

A checkpoint is written aside and put in its place by one rename; the one before goes afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domain.errors import ConfigError, SnapshotDamagedError
from domain.state import State
from evaluation.sequential import Run
from snapshot import disk
from snapshot.state_files import ARRAYS, OTHERS, read_state, write_state

SETTINGS = "settings.json"

_COMPONENT = "state"
_CHECKPOINT = re.compile(r"epoch-\d{5}")


class RunFolder:
    """Files of one comparison below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Begin a comparison here, or go on with the one that is here.

        Args:
            settings: what decides the numbers, as JSON values; `epochs` may grow.
            resume: whether there is to be one.

        Raises:
            ConfigError: there is one here already and it is not to be resumed; there is none; or
                it was asked for something else.
        """
        path = self.root / SETTINGS
        before = self._settings()
        if before is None and resume:
            raise ConfigError(f"--resume: expected a run in {self.root}, there is no {SETTINGS}")
        if before is not None and not resume:
            raise ConfigError(f"--out {self.root}: holds a run already; --resume goes on with it")
        for name, value in settings.items():
            if before is not None and before.get(name) != value and name != "epochs":
                raise ConfigError(
                    f"--resume: {self.root} was made with {name} {before.get(name)}, got {value}"
                )
        if before is not None and before["epochs"] > settings["epochs"]:
            raise ConfigError(
                f"--epochs: {self.root} was asked for {before['epochs']} epochs, expected no fewer,"
                f" got {settings['epochs']}"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        disk.replace_text(path, json.dumps(settings, indent=1) + "\n")

    def checkpoints(self, run: Run) -> FolderCheckpoints:
        """Return where a run is kept."""
        return FolderCheckpoints(self.root / run.name)

    def write(self, name: str, text: str) -> Path:
        """Write a report; return its path."""
        path = self.root / name
        disk.replace_text(path, text)
        return path

    def _settings(self) -> dict[str, Any] | None:
        path = self.root / SETTINGS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("epochs"), int):
            raise ConfigError(f"{path}: expected the settings of a run")
        return found


class FolderCheckpoints:
    """The newest checkpoint of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> State | None:
        """Return what was saved last, None when nothing was.

        Raises:
            SnapshotDamagedError: naming a file that is missing or is not what was written.
        """
        found = self._all()
        if not found:
            return None
        others, arrays = (found[-1] / f"{_COMPONENT}{end}" for end in (OTHERS, ARRAYS))
        try:
            contents = others.read_bytes(), arrays.read_bytes()
        except FileNotFoundError as error:
            raise SnapshotDamagedError(f"{error.filename}: is missing") from error
        return read_state(*contents, str(found[-1]))

    def save(self, state: State) -> None:
        """Keep a state in the place of the one before.

        Raises:
            SnapshotError: naming the file that could not be written.
        """
        done: int = state["trainer"]["epochs_done"]
        aside = self._folder / ".writing"
        with disk.naming(self._folder):
            disk.remove_folder(aside)
            aside.mkdir(parents=True)
            for name in write_state(aside, _COMPONENT, state):
                disk.sync(aside / name)
            before = self._all()
            aside.rename(self._folder / f"epoch-{done:05d}")
            disk.sync(self._folder)
            for path in before:
                disk.remove_folder(path)

    def _all(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _CHECKPOINT.fullmatch(path.name))
