"""The backbones against numbers computed once with their authors' code, and parameter counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from encoders.backbone import Backbone
from encoders.geometry import ahead, geometry
from encoders.shape import BackboneShape
from encoders.time_bucket import time_bucket

SECONDS_BU = torch.tensor([[100, 160, 3_760, 90_160]])
LENGTH_B = torch.tensor([3])
GOLDEN_ROW = [-0.936391, 0.298677, 0.648168, 0.491815]
GOLDEN_UNIT_ROW = [-0.733880, 0.234082, 0.507990, 0.385451]


def wave(shape: tuple[int, ...], offset: float) -> Tensor:
    """Return G(shape, offset): row-major, element n = 0.5 sin(0.7 n + 0.3 + offset)."""
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.5 * torch.sin(0.7 * count + 0.3 + offset)).reshape(shape).float()


@pytest.fixture
def backbone() -> Backbone:
    shape = BackboneShape(width=4, container=4, blocks=1, heads=2, d_qk=2, d_v=2)
    made = Backbone(shape, torch.Generator().manual_seed(0))
    golden = {
        "uvqk_DX": wave((4, 24), 3),
        "time_weight": wave((129,), 1),
        "position_weight": wave((7,), 2),
        "ffn.lin0_weight": wave((4, 12), 4),
        "ffn.lin0_bias": wave((4,), 5),
        "ffn.lin1_weight": wave((4, 4), 6),
        "ffn.lin3_weight": wave((4, 4), 7),
        "ffn.lin2_weight": wave((4, 4), 8),
    }
    made.blocks[0].load_state_dict(golden)
    return made


def sequence() -> Tensor:
    return wave((4, 4), 0)[None, :3]


def close(row: Tensor, golden: list[float]) -> None:
    assert row.tolist() == pytest.approx(golden, abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_buckets_equal_the_golden_ones(dtype: torch.dtype) -> None:
    gaps = [0, 1, 2, 10, 60, 3_600, 86_400, 604_800, 2_592_000, 31_536_000, 10**12]
    expected = [0, 0, 2, 7, 13, 27, 37, 44, 49, 57, 91]
    assert time_bucket(torch.tensor(gaps, dtype=dtype)).tolist() == expected
    assert time_bucket(-torch.tensor(gaps, dtype=dtype)).tolist() == expected


def test_buckets_of_a_history_use_the_time_of_the_next_event() -> None:
    where = geometry(SECONDS_BU)
    assert where.bucket[0].tolist() == [[13, 0, 27], [27, 27, 0], [37, 37, 37]]
    assert where.causal[0].tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_candidates_look_back_from_the_request() -> None:
    look = ahead(torch.cat([SECONDS_BU, SECONDS_BU[:, -1:]], dim=1), LENGTH_B)
    assert look.bucket.tolist() == [[37, 37, 37, 0]]
    assert look.distance_BT.tolist() == [[3, 2, 1, 1]]
    assert look.valid_BT.tolist() == [[True, True, True, False]]


def test_fuxi_alpha_equals_the_golden_row(backbone: Backbone) -> None:
    row = backbone(sequence(), SECONDS_BU, LENGTH_B)[0, 2]
    close(row, GOLDEN_ROW)
    close(row / row.norm(), GOLDEN_UNIT_ROW)


def test_newest_row_alone_equals_the_golden_row(backbone: Backbone) -> None:
    close(backbone.newest(sequence(), SECONDS_BU, LENGTH_B)[0], GOLDEN_ROW)


def test_golden_row_stays_when_padding_follows(backbone: Backbone) -> None:
    padded = torch.cat([sequence(), torch.full((1, 1, 4), 7.0)], dim=1)
    seconds_BU = torch.cat([SECONDS_BU, torch.zeros_like(SECONDS_BU[:, :1])], dim=1)
    out = backbone(padded, seconds_BU, LENGTH_B)
    close(out[0, 2], GOLDEN_ROW)
    assert not out[0, 3].any()


def test_golden_row_is_that_of_a_candidate_after_two_events(backbone: Backbone) -> None:
    """The newest event becomes a candidate; at the time of its own, as candidates are."""
    seconds_BU = torch.tensor([[100, 160, 3_760, 3_760]])
    state = backbone.encode(sequence()[:, :2], seconds_BU[:, :3], torch.tensor([2]))
    (row,) = backbone.candidates(sequence()[:, 2:], state)[0]
    close(row, backbone(sequence(), seconds_BU, LENGTH_B)[0, 2].tolist())


@pytest.mark.parametrize(
    ("shape", "num_items", "per_block", "total"),
    [
        (BackboneShape(width=50, container=211, d_qk=50, d_v=50), 3_953, 30_600, 269_400),
        (
            BackboneShape(width=50, container=211, blocks=8, heads=2, d_qk=25, d_v=25),
            3_953,
            30_600,
            453_000,
        ),
        (
            BackboneShape(width=256, container=211, heads=4, d_qk=64, d_v=64, ffn_multiple=4),
            131_263,
            1_377_062,
            36_411_468,
        ),
        (
            BackboneShape(
                width=256, container=211, blocks=8, heads=8, d_qk=32, d_v=32, ffn_multiple=4
            ),
            131_263,
            1_377_062,
            44_673_840,
        ),
    ],
    ids=["fuxi-alpha ml-1m", "fuxi-alpha ml-1m large", "fuxi-alpha ml-20m", "... ml-20m large"],
)
def test_parameter_counts_equal_the_published_models(
    shape: BackboneShape, num_items: int, per_block: int, total: int
) -> None:
    """The total has an item table and a position table besides."""
    backbone = Backbone(shape, torch.Generator().manual_seed(0))
    assert sum(each.numel() for each in backbone.blocks[0].parameters()) == per_block
    tables = (num_items + shape.container) * shape.width
    assert sum(each.numel() for each in backbone.parameters()) + tables == total
