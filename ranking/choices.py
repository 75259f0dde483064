"""What early selection chose for a request, to be looked at: fields, and how two models agree.

Shape legend: N items of a request, F fields, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ranking.aefs import AefsOutput, embedding_gaps


@dataclass(frozen=True, slots=True, eq=False)
class RequestChoices:
    """Choices of one request.

    Attributes:
        fields: names of the F fields.
        chosen_NF: whether an item's field is looked up.
        small_NH: probabilities of the small model, not calibrated.
        main_NH: probabilities of the main model, not calibrated.
        embedding_gap_N: each item's part of the embedding alignment loss.
    """

    fields: tuple[str, ...]
    chosen_NF: NDArray[np.bool_]
    small_NH: NDArray[np.float32]
    main_NH: NDArray[np.float32]
    embedding_gap_N: NDArray[np.float32]


def request_choices(
    fields: tuple[str, ...], out: AefsOutput, logits_MH: Tensor, sizes: Sequence[int]
) -> list[RequestChoices]:
    """Return one per request of a batch; `sizes` says how many items each has."""
    whole = (
        out.choice.chosen_MF,
        out.small_logits_MH.sigmoid(),
        logits_MH.sigmoid(),
        embedding_gaps(out),
    )
    ends = np.cumsum(sizes)[:-1]
    parts = [np.split(each.cpu().numpy(), ends) for each in whole]
    return [RequestChoices(fields, *each) for each in zip(*parts, strict=True)]
