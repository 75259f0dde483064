"""FuXi-alpha against numbers computed once with the authors' code, and its parameter counts."""

from __future__ import annotations

import math

import pytest
import torch

from ranking.fuxi import (
    FuxiBlock,
    FuxiConfig,
    FuxiEncoder,
    buckets_between,
    history_maps,
    time_bucket,
)

TIMES_S = [100.0, 160.0, 3760.0, 90160.0]
GOLDEN_BUCKETS = [[13, 0, 27, 37], [27, 27, 0, 37], [37, 37, 37, 0]]
GOLDEN_ROW_2 = [-0.936391, 0.298677, 0.648168, 0.491815]


def waves(shape: tuple[int, ...], offset: float) -> torch.Tensor:
    """Return 0.5 sin(0.7 n + 0.3 + offset), n = 0, 1, 2... in row-major order."""
    n = torch.arange(math.prod(shape), dtype=torch.float32)
    return (0.5 * torch.sin(0.7 * n + 0.3 + offset)).reshape(shape)


def golden_block() -> FuxiBlock:
    block = FuxiBlock(
        FuxiConfig(width=4, heads=2, head_width=2), container_length=4, generator=torch.Generator()
    )
    weights = {
        "uvqk": waves((4, 24), 3),
        "time_weight": waves((129,), 1),
        "place_weight": waves((7,), 2),
        "lin0.weight": waves((4, 12), 4),
        "lin0.bias": waves((4,), 5),
        "lin1.weight": waves((4, 4), 6),
        "lin3.weight": waves((4, 4), 7),
        "lin2.weight": waves((4, 4), 8),
    }
    block.load_state_dict(weights)
    return block


def golden_history() -> torch.Tensor:
    return waves((4, 4), 0)[None, :3]


@pytest.mark.parametrize(
    ("gap_s", "bucket"),
    [
        (0, 0),
        (1, 0),
        (2, 2),
        (10, 7),
        (60, 13),
        (3600, 27),
        (86400, 37),
        (604800, 44),
        (2592000, 49),
        (31536000, 57),
        (1e12, 91),
        (-60, 13),
    ],
)
def test_time_bucket_matches_published_values(gap_s: float, bucket: int) -> None:
    assert int(time_bucket(torch.tensor(float(gap_s)))) == bucket


def test_history_maps_give_golden_buckets_and_distances() -> None:
    ages_s = TIMES_S[3] - torch.tensor([TIMES_S[:3]])
    lengths = torch.tensor([3])
    between = buckets_between(ages_s, lengths)
    assert between[0].tolist() == [row[:3] for row in GOLDEN_BUCKETS]
    maps = history_maps(ages_s, lengths)
    assert maps.distance_BT.tolist() == [[3, 2, 1]]
    assert maps.valid_BT.tolist() == [[True, True, True]]


def test_block_reproduces_golden_row() -> None:
    ages_s = TIMES_S[3] - torch.tensor([TIMES_S[:3]])
    between = buckets_between(ages_s, torch.tensor([3]))
    with torch.no_grad():
        out = golden_block()(golden_history(), between)
    assert out[0, 2].tolist() == pytest.approx(GOLDEN_ROW_2, abs=2e-6)


def test_block_row_is_golden_when_later_entries_follow() -> None:
    """The last event of the golden case becomes an ordinary entry: row 2 must not see it."""
    with torch.no_grad():
        longer = golden_block()(
            torch.cat([golden_history(), waves((1, 1, 4), 9)], dim=1),
            torch.tensor([[*GOLDEN_BUCKETS, [0, 0, 0, 0]]]),
        )
    assert longer[0, 2].tolist() == pytest.approx(GOLDEN_ROW_2, abs=2e-6)


@pytest.mark.parametrize(
    ("config", "container", "per_block"),
    [
        (FuxiConfig(width=50, heads=1, head_width=50, blocks=2), 211, 30_600),
        (
            FuxiConfig(width=256, heads=4, head_width=64, blocks=2, ffn_multiplier=4),
            211,
            1_377_062,
        ),
    ],
)
def test_block_has_published_parameter_count(
    config: FuxiConfig, container: int, per_block: int
) -> None:
    encoder = FuxiEncoder(config, container - 1, torch.Generator())
    assert sum(p.numel() for p in encoder.parameters()) == config.blocks * per_block
