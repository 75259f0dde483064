"""FuXi-alpha, for candidates: the history is encoded once, every candidate attends to it.

Ye et al., "FuXi-alpha: Scaling Recommendation Model with Feature Interaction Enhanced Transformer",
WWW Companion 2025. Three attention maps act side by side without softmax: what (SiLU of query times
key), when (a learned weight per bucket of the time gap) and where (a learned weight per distance).

Shape legend: B requests, T history entries (oldest first, padding at the end), C candidates,
D width, h heads, d width of a head, N container length (longest history plus the candidate).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from domain.errors import ConfigError

NUM_BUCKETS = 129
_BUCKET_WIDTH = 0.301
"""Natural-log width of a time bucket, hence a base of 1.351: log10(2) in the authors' code, where
base 2 was meant. Kept, because published results were made with it."""
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class FuxiConfig:
    """Size of the history encoder. There is no dropout: each example is seen once."""

    width: int = 32
    """Width of a token; also the width of what a candidate gets out of the history."""
    heads: int = 2
    """Attention heads."""
    head_width: int = 16
    """Width of queries, keys and values per head."""
    blocks: int = 1
    """Blocks on top of each other; 0 switches the history encoder off."""
    ffn_multiplier: int = 1
    """Width of the feed-forward part, in multiples of `width`."""
    initial_std: float = 0.1
    """Standard deviation of the first projection weights. Published is 0.02, for a hundred passes
    over the data; in a single pass the content channel, which multiplies two projections and
    divides by the length, would hardly start (measured: a history that decides everything was
    still not used after 300 steps with 0.02, and fully after 100 with 0.1)."""

    def __post_init__(self) -> None:
        if self.blocks < 0:
            raise ConfigError(f"ranking.fuxi.blocks must not be negative, got {self.blocks}")
        if not self.initial_std > 0.0:
            raise ConfigError(f"ranking.fuxi.initial_std must be positive, got {self.initial_std}")
        for name in ("width", "heads", "head_width", "ffn_multiplier"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"ranking.fuxi.{name} must be at least 1, got {value}")


@dataclass(frozen=True, slots=True)
class HistoryMaps:
    """What all blocks share about what candidates see of the histories of a batch.

    Attributes:
        to_candidates_BT: time bucket of request minus entry j.
        distance_BT: how many places entry j stands before the candidate, 1 for the newest.
        valid_BT: whether entry j is there, not padding.
    """

    to_candidates_BT: Tensor
    distance_BT: Tensor
    valid_BT: Tensor


def time_bucket(gap_s: Tensor) -> Tensor:
    """Return the bucket of a time gap in seconds, 0 to 128.

    >>> time_bucket(torch.tensor([0.0, 10.0, 60.0, 3600.0, 86400.0])).tolist()
    [0, 7, 13, 27, 37]
    """
    logs = gap_s.abs().clamp(min=1.0).log()
    return (logs / _BUCKET_WIDTH).floor().long().clamp(max=NUM_BUCKETS - 1)


def history_maps(ages_s_BT: Tensor, lengths_B: Tensor) -> HistoryMaps:
    """Work out the maps from each entry's age at request time; padding may hold anything finite."""
    places_T = torch.arange(ages_s_BT.shape[1], device=ages_s_BT.device)
    return HistoryMaps(
        to_candidates_BT=time_bucket(ages_s_BT),
        distance_BT=(lengths_B[:, None] - places_T[None]).clamp(min=1),
        valid_BT=places_T[None] < lengths_B[:, None],
    )


def buckets_between(ages_s_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the time bucket of (next event after entry i) minus entry j, (B, T, T)."""
    places_T = torch.arange(ages_s_BT.shape[1], device=ages_s_BT.device)
    # The event after the newest entry is the request itself, whose age is 0.
    is_newest_BT = places_T[None] >= lengths_B[:, None] - 1
    next_ages_BT = torch.where(is_newest_BT, 0.0, ages_s_BT.roll(-1, dims=1))
    return time_bucket(ages_s_BT[:, None, :] - next_ages_BT[:, :, None])


def rms_norm(x: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + 1e-6) over the last dimension."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _EPSILON)


class FuxiBlock(nn.Module):
    """One block: three-channel attention, then the multi-stage feed-forward network."""

    def __init__(self, config: FuxiConfig, container_length: int, generator: torch.Generator):
        super().__init__()
        D, h, d, N = config.width, config.heads, config.head_width, container_length
        hidden = config.ffn_multiplier * D
        self._heads, self._head_width, self._container = h, d, N
        self.uvqk = nn.Parameter(
            torch.empty(D, 6 * h * d).normal_(0, config.initial_std, generator=generator)
        )
        self.time_weight = nn.Parameter(
            torch.empty(NUM_BUCKETS).normal_(0, 0.02, generator=generator)
        )
        self.place_weight = nn.Parameter(
            torch.empty(2 * N - 1).normal_(0, 0.02, generator=generator)
        )
        self.lin0 = _linear(3 * h * d, D, generator, bias=True)
        self.lin1 = _linear(D, hidden, generator)
        self.lin3 = _linear(D, hidden, generator)
        self.lin2 = _linear(hidden, D, generator)

    def forward(self, x_BTD: Tensor, between_BTT: Tensor) -> Tensor:
        """Encode sequences causally; returns (B, T, D).

        Args:
            x_BTD: the sequences, oldest first, padding at the end.
            between_BTT: time bucket of (event i + 1) minus (event j).
        """
        u, v_BThd, q_BThd, k_BThd = self._project(x_BTD)
        T, N = x_BTD.shape[1], self._container
        places_T = torch.arange(T, device=x_BTD.device)
        causal_TT = places_T[None, :] <= places_T[:, None]
        place_TT = self.place_weight[N - 1 + places_T[None, :] - places_T[:, None]] * causal_TT
        time_BTT = self.time_weight[between_BTT] * causal_TT
        what_BhTT = silu(torch.einsum("bihd,bjhd->bhij", q_BThd, k_BThd)) / N * causal_TT
        channels = (
            torch.einsum("ij,bjhd->bihd", place_TT, v_BThd),
            torch.einsum("bij,bjhd->bihd", time_BTT, v_BThd),
            torch.einsum("bhij,bjhd->bihd", what_BhTT, v_BThd),
        )
        return self._mix(x_BTD, u, torch.cat(channels, dim=-1))

    def candidates(self, x_BCD: Tensor, history_BTD: Tensor, maps: HistoryMaps) -> Tensor:
        """Let each candidate attend to this block's history input and to itself; (B, C, D).

        Equal to appending each candidate alone to the history and taking the last row. All
        candidates of a request share time and place, so two of the three channels over the history
        are one vector per request.
        """
        v_BThd, k_BThd = self._values_and_keys(history_BTD)
        u, own_v_BChd, q_BChd, own_k_BChd = self._project(x_BCD)
        N = self._container
        place_BT = self.place_weight[N - 1 - maps.distance_BT] * maps.valid_BT
        time_BT = self.time_weight[maps.to_candidates_BT] * maps.valid_BT
        shared_B2hd = torch.einsum("bst,bthd->bshd", torch.stack((place_BT, time_BT), 1), v_BThd)
        what_BhCT = silu(torch.einsum("bchd,bthd->bhct", q_BChd, k_BThd)) / N
        what_BhCT = what_BhCT * maps.valid_BT[:, None, None, :]
        own_BCh1 = silu((q_BChd * own_k_BChd).sum(-1, keepdim=True)) / N
        channels = (
            shared_B2hd[:, :1] + self.place_weight[N - 1] * own_v_BChd,
            shared_B2hd[:, 1:] + self.time_weight[0] * own_v_BChd,
            torch.einsum("bhct,bthd->bchd", what_BhCT, v_BThd) + own_BCh1 * own_v_BChd,
        )
        return self._mix(x_BCD, u, torch.cat(channels, dim=-1))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = self._heads * self._head_width
        parts = silu(rms_norm(x) @ self.uvqk)
        shape = (*x.shape[:-1], self._heads, self._head_width)
        u, v, q, k = torch.split(parts, [3 * size, size, size, size], dim=-1)
        return u, v.reshape(shape), q.reshape(shape), k.reshape(shape)

    def _values_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return two of the four projections: candidates need nothing else of the history."""
        size = self._heads * self._head_width
        weights = torch.cat((self.uvqk[:, 3 * size : 4 * size], self.uvqk[:, 5 * size :]), dim=1)
        shape = (*x.shape[:-1], self._heads, self._head_width)
        v, k = torch.split(silu(rms_norm(x) @ weights), [size, size], dim=-1)
        return v.reshape(shape), k.reshape(shape)

    def _mix(self, x: Tensor, u: Tensor, attended: Tensor) -> Tensor:
        y = x + self.lin0(u * rms_norm(attended.flatten(-2)))
        z = rms_norm(y)
        mixed: Tensor = y + self.lin2(silu(self.lin1(z)) * self.lin3(z))
        return mixed


class FuxiEncoder(nn.Module):
    """Blocks on top of each other, run on histories and candidates side by side."""

    def __init__(self, config: FuxiConfig, history_length: int, generator: torch.Generator):
        super().__init__()
        self.blocks = nn.ModuleList(
            FuxiBlock(config, history_length + 1, generator) for _ in range(config.blocks)
        )

    def forward(
        self, history_BTD: Tensor, lengths_B: Tensor, ages_s_BT: Tensor, candidates_BCD: Tensor
    ) -> Tensor:
        """Return what each candidate became after seeing the history and itself, (B, C, D)."""
        maps = history_maps(ages_s_BT, lengths_B)
        # Of the last block's history only keys and values are needed, and those come from its
        # input; a single block needs no attention among the entries at all.
        if len(self.blocks) > 1:
            between_BTT = buckets_between(ages_s_BT, lengths_B)
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, FuxiBlock)
            candidates_BCD = block.candidates(candidates_BCD, history_BTD, maps)
            if number < len(self.blocks):
                history_BTD = block(history_BTD, between_BTT)
        return candidates_BCD


def _linear(inputs: int, outputs: int, generator: torch.Generator, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
