"""What a backbone is built from: its kind and its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["fuxi-alpha"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShape:
    """Kind and sizes of a backbone. Who reads settings checks them and names the key.

    Attributes:
        width: D, of a token, in and out.
        container: N, the longest sequence ever given, the place of the request or candidate
            included. A constant of the model: attention is divided by it, however long the
            padded batch at hand is.
        d_qk: width of queries and keys per head.
        d_v: width of values per head.
        ffn_multiple: hidden width of the feed-forward part divided by `width`.
        dropout: share of what attention and the feed-forward part read that is dropped while
            training; 0 where every example is seen once.
        initial_std: spread of the first projection's weights at first; 0.02 as published.
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
