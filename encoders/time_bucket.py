"""Time gaps to buckets of growing width."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_BUCKETS = 129
_BUCKET_WIDTH = 0.301
"""Natural-log width of a bucket, hence a base of 1.351: log10(2) in the code of HSTU's and FuXi's
authors, where base 2 was meant. Kept, because published results were made with it."""


def time_bucket(gap_s: Tensor) -> Tensor:
    """Return clamp(floor(ln(max(|gap|, 1)) / 0.301), 0, 128) as int64.

    Args:
        gap_s: seconds; whole ones are looked at in double precision, others in their own.

    >>> time_bucket(torch.tensor([0, 10, 60, 3600, 86400])).tolist()
    [0, 7, 13, 27, 37]
    """
    size = gap_s.abs().clamp(min=1)
    logs = (size if size.is_floating_point() else size.to(torch.float64)).log()
    return (logs / _BUCKET_WIDTH).floor().clamp(max=NUM_BUCKETS - 1).long()
