"""What a replay recorded of every label and of every item taken: one file beside its report.

Two runs are compared example by example (`replay.compare`), and every number of a report comes from
these columns. The file is a NumPy archive of plain arrays; it holds no ids, only their digests.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError, DatasetError
from replay.intervals import Examples

_FORMAT = 1
_COLUMNS = ("key", "user", "session", "ordinal", "time_ms", "known_actions", "item_shown")
_TAKEN_COLUMNS = ("key", "user", "ordinal")


def digest(*parts: str) -> int:
    """Return 63 bits of a hash: the same for the same strings, in every run.

    >>> digest("p1", "i7") == digest("p1", "i7") != digest("p1i", "7")
    True
    """
    text = "\x1f".join(parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, slots=True, eq=False)
class ExampleRecords:
    """N examples, in the order in which they were measured; H heads.

    Attributes:
        heads: names of the heads.
        columns: int64 (N,) each: `key` (digest of list and item), `user` (digest), `session`,
            `ordinal` (of the demand), `time_ms` (shown), `known_actions` (length of the user's
            history then), `item_shown` (how often the item had been shown before).
        label_NH: float32, NaN where a label is not known.
        scores: by variant, float32 (N, K): probabilities of the first K heads.
    """

    heads: tuple[str, ...]
    columns: Mapping[str, NDArray[np.int64]]
    label_NH: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.label_NH)

    def known(self, head: int, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return which of the chosen rows have a label of a head, in the order they were shown."""
        chosen = np.flatnonzero(rows & ~np.isnan(self.label_NH[:, head]))
        return chosen[np.argsort(self.columns["ordinal"][chosen], kind="stable")]

    def examples(self, head: int, rows: NDArray[np.int64]) -> Examples:
        """Return rows as examples of one head."""
        return Examples(
            self.label_NH[rows, head], self.columns["session"][rows], self.columns["user"][rows]
        )

    def head_scores(self, head: int, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Return the scores of every variant that has an opinion on a head."""
        return {
            name: score_NK[rows, head]
            for name, score_NK in self.scores.items()
            if head < score_NK.shape[1]
        }


@dataclass(frozen=True, slots=True, eq=False)
class TakenRecords:
    """M items that users took, and where retrievers had ranked them; see `target_ranks`.

    Attributes:
        columns: int64 (M,) each: `key` (digest of user, item and time), `user` (digest), `ordinal`
            (demands before it).
        ranks: by retriever, int64 (M,): 1-based, -1 a miss, 0 a user without history.
    """

    columns: Mapping[str, NDArray[np.int64]]
    ranks: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.columns["key"])


@dataclass(frozen=True, slots=True, eq=False)
class ReplayRecords:
    """Everything recorded.

    Attributes:
        split_at: demand at which the second half begins.
        num_demands: demands there were to be in all.
    """

    split_at: int
    num_demands: int
    examples: ExampleRecords
    taken: TakenRecords

    def save(self, path: Path) -> None:
        """Write the records.

        Raises:
            ConfigError: the file cannot be written.
        """
        shown, taken = self.examples, self.taken
        variants, retrievers = list(shown.scores), list(taken.ranks)
        about = {
            "format": _FORMAT,
            "split_at": self.split_at,
            "num_demands": self.num_demands,
            "heads": list(shown.heads),
            "variants": variants,
            "retrievers": retrievers,
        }
        arrays: dict[str, NDArray[Any]] = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "labels": shown.label_NH,
            **{f"example_{name}": shown.columns[name] for name in _COLUMNS},
            **{f"taken_{name}": taken.columns[name] for name in _TAKEN_COLUMNS},
            **{f"scores_{at}": shown.scores[name] for at, name in enumerate(variants)},
            **{f"ranks_{at}": taken.ranks[name] for at, name in enumerate(retrievers)},
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def load_records(path: Path) -> ReplayRecords:
    """Read what `ReplayRecords.save` wrote.

    Raises:
        DatasetError: there is no such file, or it is something else.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file.items())
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != _FORMAT:
            raise DatasetError(
                f"{path}: records of format {about['format']}, this version reads {_FORMAT}"
            )
        return _records(about, arrays)
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: no such file; `headrace replay --out` writes it beside the report"
        ) from None
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not the records of a replay, or cut short") from error


def _records(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ReplayRecords:
    variants: Sequence[str] = about["variants"]
    retrievers: Sequence[str] = about["retrievers"]
    return ReplayRecords(
        split_at=about["split_at"],
        num_demands=about["num_demands"],
        examples=ExampleRecords(
            heads=tuple(about["heads"]),
            columns={name: arrays[f"example_{name}"] for name in _COLUMNS},
            label_NH=arrays["labels"],
            scores={name: arrays[f"scores_{at}"] for at, name in enumerate(variants)},
        ),
        taken=TakenRecords(
            columns={name: arrays[f"taken_{name}"] for name in _TAKEN_COLUMNS},
            ranks={name: arrays[f"ranks_{at}"] for at, name in enumerate(retrievers)},
        ),
    )


def records_path(report: Path) -> Path:
    """Return where the records of a report are kept.

    >>> records_path(Path("runs/out.json")).as_posix()
    'runs/out.records.npz'
    """
    return report.with_name(f"{report.stem}.records.npz")
