"""MovieLens of any size as sequences: every rating counts as positive, no one is filtered out.

Candidates are all ids of the film table, never-rated films included, as in the research trainer of
arXiv 2402.17152. Ids are numbered anew in the order of that table: the table of ML-20M would have
131,263 rows, most of them unused. Events of one user in one second keep the order of the file: the
published sort leaves it open which of them is the last.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from domain.errors import DatasetError
from evaluation.sequences import PADDING, Sequences
from replay.films import read_films
from replay.ratings import RatingLog, read_rating_log


def read_movielens(folder: Path) -> Sequences:
    """Read `ratings.dat` or `ratings.csv` and the film table beside it, as published.

    Raises:
        DatasetError: the folder or one of its tables is missing, or a line cannot be read.
    """
    log = read_rating_log("movielens", folder)
    films = read_films(folder)
    if not films:
        raise DatasetError(
            f"{folder}: expected movies.dat or movies.csv beside the ratings: its films are what "
            "is ranked, got none"
        )
    return _in_order(log, list(films))


def _in_order(log: RatingLog, films: list[str]) -> Sequences:
    row_of = {film: row for row, film in enumerate(films, start=PADDING + 1)}
    for item in log.items:
        row_of.setdefault(item, len(row_of) + 1)
    row_I = np.array([row_of[item] for item in log.items], np.int64)
    order = np.asarray(log.order, np.int64)
    user_E = np.frombuffer(log.user_of, np.int64)[order]
    by_user = order[np.argsort(user_E, kind="stable")]
    counts_U = np.bincount(user_E, minlength=len(log.users))
    return Sequences(
        item_E=row_I[np.frombuffer(log.item_of, np.int64)[by_user]],
        time_s_E=np.frombuffer(log.time_ms_of, np.int64)[by_user] // 1_000,
        start_U1=np.concatenate(([0], np.cumsum(counts_U))).astype(np.int64),
        num_candidates=len(films),
        num_rows=len(row_of) + 1,
    )
