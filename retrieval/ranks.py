"""Where each target stands among all scores."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.id_rows import UNKNOWN


def ranks_of_targets(scores_BN: Tensor, target_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the 1-based rank of each target in its row of scores; ties go to the earlier column.

    -1 where the target is UNKNOWN or its own score is -inf (it was taken out).

    >>> ranks_of_targets(torch.tensor([[3.0, 1.0, 3.0]]), np.array([2])).tolist()
    [2]
    """
    column_B1 = torch.from_numpy(np.maximum(target_B, 0)).unsqueeze(1)
    target_score_B1 = scores_BN.gather(1, column_B1)
    better_B = torch.count_nonzero(scores_BN > target_score_B1, dim=1)
    as_good_B = torch.count_nonzero(scores_BN == target_score_B1, dim=1)
    for b in torch.nonzero(as_good_B > 1).flatten().tolist():
        earlier_N = scores_BN[b, : int(column_B1[b])]
        better_B[b] += torch.count_nonzero(earlier_N == target_score_B1[b])
    missed_B = (target_B == UNKNOWN) | torch.isinf(target_score_B1[:, 0]).numpy()
    return np.where(missed_B, -1, better_B.numpy() + 1)
