"""FuXi-alpha against numbers computed by its authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.fuxi_encoder import FuxiBlock, FuxiEncoder, FuxiShape, geometry, time_bucket

SECONDS_BU = torch.tensor([[100, 160, 3_760, 90_160]])
GOLDEN_ROW = [-0.936391, 0.298677, 0.648168, 0.491815]
GOLDEN_UNIT_ROW = [-0.733880, 0.234082, 0.507990, 0.385451]


def wave(shape: tuple[int, ...], offset: float) -> torch.Tensor:
    """Return G(shape, offset): row-major, element n = 0.5 sin(0.7 n + 0.3 + offset)."""
    count = np.arange(int(np.prod(shape)), dtype=np.float64)
    values = 0.5 * np.sin(0.7 * count + 0.3 + offset)
    return torch.from_numpy(values.reshape(shape)).float()


@pytest.fixture
def block() -> FuxiBlock:
    shape = FuxiShape(width=4, container=4, num_heads=2, d_qk=2, d_v=2, ffn_multiple=1)
    made = FuxiBlock(shape, torch.Generator().manual_seed(0))
    golden = {
        "uvqk_DX": wave((4, 24), 3),
        "time_weight": wave((129,), 1),
        "position_weight": wave((7,), 2),
        "lin0_weight": wave((4, 12), 4),
        "lin0_bias": wave((4,), 5),
        "lin1_weight": wave((4, 4), 6),
        "lin3_weight": wave((4, 4), 7),
        "lin2_weight": wave((4, 4), 8),
    }
    made.load_state_dict(golden)
    return made


def test_buckets_equal_the_golden_ones() -> None:
    gaps = [0, 1, 2, 10, 60, 3_600, 86_400, 604_800, 2_592_000, 31_536_000, 10**12]
    expected = [0, 0, 2, 7, 13, 27, 37, 44, 49, 57, 91]
    assert time_bucket(torch.tensor(gaps)).tolist() == expected
    assert time_bucket(-torch.tensor(gaps)).tolist() == expected


def test_buckets_of_a_history_use_the_time_of_the_next_event() -> None:
    where = geometry(SECONDS_BU, container=4)
    assert where.bucket_BST[0].tolist() == [[13, 0, 27], [27, 27, 0], [37, 37, 37]]
    assert where.causal_BST[0].tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_block_equals_the_golden_row(block: FuxiBlock) -> None:
    x_BTD = wave((4, 4), 0)[:3].unsqueeze(0)
    row = block(x_BTD, geometry(SECONDS_BU, container=4))[0, 2].detach()
    np.testing.assert_allclose(row.numpy(), GOLDEN_ROW, atol=2e-6)
    unit = row / row.norm()
    np.testing.assert_allclose(unit.numpy(), GOLDEN_UNIT_ROW, atol=2e-6)


def test_block_equals_the_golden_row_with_padding_at_the_end(block: FuxiBlock) -> None:
    x_BTD = wave((4, 4), 0).unsqueeze(0)
    x_BTD[:, 3] = 0.0
    seconds_BU = torch.cat([SECONDS_BU, SECONDS_BU[:, -1:]], dim=1)
    row = block(x_BTD, geometry(seconds_BU, container=4))[0, 2].detach()
    np.testing.assert_allclose(row.numpy(), GOLDEN_ROW, atol=2e-6)


def test_newest_position_alone_equals_the_golden_row(block: FuxiBlock) -> None:
    x_BTD = wave((4, 4), 0)[:3].unsqueeze(0)
    where = geometry(SECONDS_BU, container=4)
    row = block(x_BTD, where, torch.tensor([2]))[0, 0].detach()
    np.testing.assert_allclose(row.numpy(), GOLDEN_ROW, atol=2e-6)


@pytest.mark.parametrize(
    ("shape", "num_items", "per_block", "total"),
    [
        (FuxiShape(width=50, container=211, d_qk=50, d_v=50), 3_953, 30_600, 269_400),
        (
            FuxiShape(width=50, container=211, num_blocks=8, num_heads=2, d_qk=25, d_v=25),
            3_953,
            30_600,
            453_000,
        ),
        (
            FuxiShape(width=256, container=211, num_heads=4, d_qk=64, d_v=64, ffn_multiple=4),
            131_263,
            1_377_062,
            36_411_468,
        ),
    ],
    ids=["ml-1m", "ml-1m large", "ml-20m"],
)
def test_parameter_counts_equal_the_published_models(
    shape: FuxiShape, num_items: int, per_block: int, total: int
) -> None:
    encoder = FuxiEncoder(shape, torch.Generator().manual_seed(0))
    one_block = sum(parameter.numel() for parameter in encoder.blocks[0].parameters())
    everything = sum(parameter.numel() for parameter in encoder.parameters())
    assert one_block == per_block
    assert everything + num_items * shape.width == total
