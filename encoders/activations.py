"""SiLU that takes no room of its own where no gradient will be asked for.

Hundreds of candidates by hundreds of events is more than the processor's caches hold, and new
memory costs more than the function does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def silu(fresh: Tensor) -> Tensor:
    """Return x * sigmoid(x) of a tensor that nobody else holds."""
    return functional.silu(fresh, inplace=not torch.is_grad_enabled())


def silu_share(fresh: Tensor, container: int) -> Tensor:
    """Return x * sigmoid(x) / N of a tensor that nobody else holds."""
    activated = silu(fresh)
    return activated / container if torch.is_grad_enabled() else activated.div_(container)
