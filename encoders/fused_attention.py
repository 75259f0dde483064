"""FuXi-alpha's attention by one kernel, where there is a GPU, Triton, and a shape that fits.

The kernels are in `encoders/triton_fuxi.py`; their oracle is what `encoders/fuxi_alpha.py` computes
step by step. There is no softmax in it, so stock attention kernels cannot do it.

Shape legend: B sequences, T events, H heads, K = d_qk, E = d_v.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from domain.errors import ConfigError
from encoders.shape import AttentionMode


class Maps(NamedTuple):
    """What the maps are made of besides queries and keys.

    Attributes:
        time_weight: (129,), weight of each bucket of the gap.
        place_weight: (2 N - 1,), weight of each distance.
        container: N, which the content map is divided by.
    """

    time_weight: Tensor
    place_weight: Tensor
    container: int


def use_fused(mode: AttentionMode, q_BTHK: Tensor, v_BTHE: Tensor, time_BT: Tensor) -> bool:
    """Return whether the kernels are to be used.

    Raises:
        ConfigError: they must be, and cannot: no GPU, no Triton, or a shape that does not fit.
    """
    if mode == "plain" or (mode == "auto" and not q_BTHK.is_cuda):
        return False
    why = _obstacle(q_BTHK, v_BTHE, time_BT)
    if why and mode == "fused":
        raise ConfigError(f"attention: expected what the fused kernel can do, {why}")
    return not why


def _obstacle(q_BTHK: Tensor, v_BTHE: Tensor, time_BT: Tensor) -> str:
    if not q_BTHK.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"got tensors on {q_BTHK.device.type}; it runs on a CUDA GPU"
    kernels = _kernels()
    if kernels is None:
        return "but Triton is not installed here; torch brings it along on Linux with CUDA"
    if not kernels.fits(q_BTHK, v_BTHE, time_BT):
        return (
            f"got heads {q_BTHK.shape[-1]} and {v_BTHE.shape[-1]} wide in {q_BTHK.dtype} and times "
            f"in {time_BT.dtype}; it takes up to 128 in float32 or bfloat16, and whole seconds"
        )
    return ""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attention(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHE: Tensor, maps: Maps, times: tuple[Tensor, Tensor]
) -> Tensor:
    """Return (B, T, H, 3 E): per head the values mixed by where, by when and by what.

    Args:
        q_BTHK: queries.
        k_BTHK: keys.
        v_BTHE: values.
        maps: weights of gaps and distances.
        times: two of (B, T), whole seconds: of the event after each row, and of each event.
    """
    kernels = _kernels()
    assert kernels is not None, "ask use_fused first"
    mixed_BTHX: Tensor = kernels.FusedAttention.apply(q_BTHK, k_BTHK, v_BTHE, *maps[:2], *times,
                                                      maps.container)  # fmt: skip
    return mixed_BTHX


@cache
def _kernels() -> Any:
    """Return the module with the kernels, None where Triton is not installed."""
    try:
        return importlib.import_module("encoders.triton_fuxi")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("triton"):
            raise
        return None
