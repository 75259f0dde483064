"""Where the held-out item stands among all candidates, and what that makes of a model.

Full ranking as in the research trainer of arXiv 2402.17152: every candidate the model could see in
the user's (truncated) history is taken out first; an item she met before that is not. Of equal
scores, the film that stands first in the film table is first.

Shape legend: B users in a batch, C candidates, D width, U users.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.config import SequentialConfig
from evaluation.model import SequenceModel
from evaluation.sampled_softmax import unit
from evaluation.sequences import PADDING, Ints, Sequences, batch, lengths
from monitoring.quality import mrr, ndcg_at_k, recall_at_k

DEEPEST = 2_500
"""How many items are retrieved; an item that is not among them has rank DEEPEST + 1."""
DEPTHS = (10, 50, 200)
CHOSEN_BY = "ndcg@10"
METRICS = (*(f"{name}@{depth}" for depth in DEPTHS for name in ("hr", "ndcg")), "mrr")

_PLACES_AT_ONCE = 16_384
_SCORES_AT_ONCE = 8_000_000


@torch.no_grad()
def target_ranks(
    model: SequenceModel, sequences: Sequences, users_U: Ints, config: SequentialConfig, cut: int
) -> Ints:
    """Return the rank of each user's target, from 1; DEEPEST + 1 when it was not found.

    The last `cut` events of each user are hidden, the one before them is the target.
    """
    model.eval()
    device = model.item_VD.device
    items_CD = unit(model.item_VD[1 : sequences.num_candidates + 1])
    rank_U = np.zeros(len(users_U), np.int64)
    length_U = lengths(sequences, users_U, cut=cut, longest=config.history_length)
    for rows in _groups(length_U, sequences.num_candidates):
        part = batch(sequences, users_U[rows], cut=cut, longest=config.history_length)
        item_BT = torch.from_numpy(part.histories()).to(device)
        query_BD = model.newest(
            item_BT,
            torch.from_numpy(part.time_s_BT1).to(device),
            torch.from_numpy(part.length_B).to(device),
        )
        target_B = torch.from_numpy(part.targets()).to(device)
        rank_U[rows] = ranks_of(query_BD @ items_CD.T, item_BT, target_B).cpu().numpy()
    return rank_U


def _groups(length_U: Ints, num_candidates: int) -> Iterator[Ints]:
    """Yield users of about the same length together."""
    order = np.argsort(length_U, kind="stable")
    most = max(1, _SCORES_AT_ONCE // num_candidates)
    while len(order):
        longest = length_U[order[min(most, len(order)) - 1]]
        size = max(1, min(most, _PLACES_AT_ONCE // int(longest)))
        yield order[:size]
        order = order[size:]


def ranks_of(score_BC: Tensor, history_BT: Tensor, target_B: Tensor) -> Tensor:
    """Return ranks among the candidates that are not in the history; scores are written over.

    Args:
        score_BC: score of the candidate in row c + 1 of the item table.
        history_BT: rows of the item table; padding, and items that are no candidates, count not.
        target_B: rows of the item table. One that is no candidate, or is in the history, is not
            found.
    """
    num_users, num_candidates = score_BC.shape
    is_seen_BX = torch.zeros(
        (num_users, num_candidates + 1), dtype=torch.bool, device=score_BC.device
    )
    # Row 0, the padding, takes what is to have no effect.
    seen_BT = history_BT.where(history_BT <= num_candidates, PADDING)
    is_seen_BX.scatter_(1, seen_BT, True)
    is_seen_BC = is_seen_BX[:, 1:]
    score_BC.masked_fill_(is_seen_BC, -torch.inf)
    column_B1 = (target_B - 1).clamp(max=num_candidates - 1)[:, None]
    own_B1 = score_BC.gather(1, column_B1)
    is_before_BC = torch.arange(num_candidates, device=score_BC.device) < column_B1
    better_B = ((score_BC > own_B1) | ((score_BC == own_B1) & is_before_BC)).sum(dim=1)
    is_missing_B = (target_B > num_candidates) | is_seen_BC.gather(1, column_B1).squeeze(1)
    return (better_B + 1).clamp(max=DEEPEST + 1).masked_fill(is_missing_B, DEEPEST + 1)


def ranking_metrics(rank_U: NDArray[np.int64]) -> dict[str, float]:
    """Return HR@k, NDCG@k and MRR as means over users, by the names in METRICS.

    >>> ranking_metrics(np.array([1, 2501]))["ndcg@10"]
    0.5
    """
    found: dict[str, float] = {}
    for depth in DEPTHS:
        found[f"hr@{depth}"] = recall_at_k(rank_U, depth) or 0.0
        found[f"ndcg@{depth}"] = ndcg_at_k(rank_U, depth) or 0.0
    return {**found, "mrr": mrr(rank_U) or 0.0}
