"""What a backbone is built from: its kind and its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["fuxi-alpha", "fuxi-beta", "hstu", "sasrec"]
AttentionMode = Literal["auto", "plain", "fused"]
TimeFunctionName = Literal["pow", "exp", "linear", "log", "sin", "mixed", "nn", "zero"]

MAP_STD = 0.02
"""Spread of new weights of distances and time buckets, as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShape:
    """Kind and sizes of a backbone. Who reads settings checks them and names the key.

    Attributes:
        width: D, of a token, in and out.
        container: N, the longest sequence ever given, the place of the request or candidate
            included. A constant of the model: attention is divided by it (but in SASRec), however
            long the padded batch at hand is.
        d_qk: width of queries and keys per head; FuXi-beta has none.
        d_v: width of values per head.
        ffn_multiple: hidden width of the feed-forward part divided by `width`; HSTU has none.
        dropout: share of what the last linear layers of a block read that is dropped while
            training; 0 where every example is seen once.
        initial_std: spread of the first projection's weights at first; 0.02 as published.
            SASRec's are Xavier-normal whatever this says.
        time_function: FuXi-beta's weight of a time gap.
        attention: how FuXi-alpha attends over whole sequences: plainly, by one kernel (an error
            where it cannot be), or by the kernel wherever it can be. See `fused_attention`.
    """

    kind: Kind = "fuxi-alpha"
    width: int
    container: int
    blocks: int = 2
    heads: int = 1
    d_qk: int = 32
    d_v: int = 32
    ffn_multiple: int = 1
    dropout: float = 0.0
    initial_std: float = 0.02
    time_function: TimeFunctionName = "pow"
    attention: AttentionMode = "plain"
