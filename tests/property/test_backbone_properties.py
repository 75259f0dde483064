"""All candidates in one pass equal one sequence per candidate, in single precision, whatever."""

from __future__ import annotations

from typing import get_args

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.backbone import Backbone
from encoders.shape import BackboneShape, Kind, TimeFunctionName

shapes = st.builds(
    BackboneShape,
    kind=st.sampled_from(get_args(Kind)),
    width=st.integers(1, 9),
    container=st.integers(12, 20),
    blocks=st.integers(1, 3),
    heads=st.integers(1, 3),
    d_qk=st.integers(1, 5),
    d_v=st.integers(1, 5),
    ffn_multiple=st.integers(1, 2),
    initial_std=st.sampled_from([0.02, 0.1, 0.5]),
    time_function=st.sampled_from(get_args(TimeFunctionName)),
)


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    lengths=st.lists(st.integers(0, 10), min_size=1, max_size=4),
    candidates=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    day_s=st.sampled_from([1, 60, 86_400]),
)
def test_one_pass_equals_one_sequence_per_candidate(
    shape: BackboneShape, lengths: list[int], candidates: int, seed: int, day_s: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    backbone = Backbone(shape, generator)
    longest, users = max(1, *lengths), len(lengths)
    history = torch.randn(users, longest, shape.width, generator=generator)
    times = torch.randint(0, 20 * day_s, (users, longest + 1), generator=generator)
    times = times.sort(dim=1).values
    asked = torch.randn(users, candidates, shape.width, generator=generator)
    length_B = torch.tensor(lengths)
    with torch.no_grad():
        fast = backbone.candidates(asked, backbone.encode(history, times, length_B))
        for user, length in enumerate(lengths):
            row = times[user, : length + 1]
            sequences = torch.stack(
                [torch.cat([history[user, :length], each[None]]) for each in asked[user]]
            )
            ends = torch.cat([row, row[-1:]]).expand(candidates, -1)
            slow = backbone(sequences, ends, torch.full((candidates,), length + 1))[:, -1]
            torch.testing.assert_close(fast[user], slow, atol=1e-5, rtol=1e-5)
