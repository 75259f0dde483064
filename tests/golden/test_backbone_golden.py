"""The backbones against numbers computed once with their authors' code, and parameter counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from encoders.backbone import Backbone
from encoders.geometry import ahead, geometry
from encoders.shape import BackboneShape, Kind, TimeFunctionName
from encoders.time_bucket import time_bucket

SECONDS_BU = torch.tensor([[100, 160, 3_760, 90_160]])
LENGTH_B = torch.tensor([3])
GOLDEN_UNIT_ROW = [-0.733880, 0.234082, 0.507990, 0.385451]
SMALL = {"width": 4, "container": 4, "blocks": 1, "heads": 2, "d_qk": 2, "d_v": 2}


def wave(shape: tuple[int, ...], offset: float) -> Tensor:
    """Return G(shape, offset): row-major, element n = 0.5 sin(0.7 n + 0.3 + offset)."""
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.5 * torch.sin(0.7 * count + 0.3 + offset)).reshape(shape).float()


MAPS = {"times.weight": wave((129,), 1), "positions.weight": wave((7,), 2)}
FFN = {
    "ffn.lin0_bias": wave((4,), 5),
    "ffn.lin1_weight": wave((4, 4), 6),
    "ffn.lin3_weight": wave((4, 4), 7),
    "ffn.lin2_weight": wave((4, 4), 8),
}
GOLDEN_WEIGHTS: dict[Kind, dict[str, Tensor]] = {
    "fuxi-alpha": {"uvqk_DX": wave((4, 24), 3), "ffn.lin0_weight": wave((4, 12), 4), **MAPS, **FFN},
    "fuxi-beta": {
        "uv_DX": wave((4, 12), 3),
        "times.a": torch.tensor(0.1),
        "times.b": torch.tensor(0.6),
        "positions.weight": MAPS["positions.weight"],
        "ffn.lin0_weight": wave((4, 8), 4),
        **FFN,
    },
    "hstu": {
        "uvqk_DX": wave((4, 16), 3),
        "out_weight": wave((4, 4), 4),
        "out_bias": wave((4,), 5),
        **MAPS,
    },
}
GOLDEN_ROWS: dict[Kind, list[float]] = {
    "fuxi-alpha": [-0.936391, 0.298677, 0.648168, 0.491815],
    "fuxi-beta": [-0.463347, 0.022616, 1.006688, 0.133115],
    "hstu": [-0.615312, 0.336123, 0.036748, 1.737483],
}
EVERY = pytest.mark.parametrize("kind", GOLDEN_ROWS)


def golden(kind: Kind) -> Backbone:
    shape = BackboneShape(kind=kind, **SMALL)  # type: ignore[arg-type]
    made = Backbone(shape, torch.Generator().manual_seed(0))
    made.blocks[0].load_state_dict(GOLDEN_WEIGHTS[kind])
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
    assert look.distance_BT.tolist() == [[3, 2, 1, 0]]
    assert look.valid_BT.tolist() == [[True, True, True, False]]


@EVERY
def test_row_equals_the_golden_one(kind: Kind) -> None:
    row = golden(kind)(sequence(), SECONDS_BU, LENGTH_B)[0, 2]
    close(row, GOLDEN_ROWS[kind])
    if kind == "fuxi-alpha":
        close(row / row.norm(), GOLDEN_UNIT_ROW)


@EVERY
def test_newest_row_alone_equals_the_golden_one(kind: Kind) -> None:
    close(golden(kind).newest(sequence(), SECONDS_BU, LENGTH_B)[0], GOLDEN_ROWS[kind])


@EVERY
def test_golden_row_stays_when_padding_follows(kind: Kind) -> None:
    padded = torch.cat([sequence(), torch.full((1, 1, 4), 7.0)], dim=1)
    seconds_BU = torch.cat([SECONDS_BU, torch.zeros_like(SECONDS_BU[:, :1])], dim=1)
    out = golden(kind)(padded, seconds_BU, LENGTH_B)
    close(out[0, 2], GOLDEN_ROWS[kind])
    assert not out[0, 3].any()


@EVERY
def test_candidate_after_two_events_equals_the_row_of_a_third_at_its_own_time(kind: Kind) -> None:
    seconds_BU = torch.tensor([[100, 160, 3_760, 3_760]])
    backbone = golden(kind)
    state = backbone.encode(sequence()[:, :2], seconds_BU[:, :3], torch.tensor([2]))
    (row,) = backbone.candidates(sequence()[:, 2:], state)[0]
    close(row, backbone(sequence(), seconds_BU, LENGTH_B)[0, 2].tolist())


def test_sasrec_equals_torch_own_attention_put_together_as_published() -> None:
    """There are no golden numbers of it, so the oracle is torch's multi-head attention."""
    width, hidden = 6, 12
    shape = BackboneShape(kind="sasrec", width=width, container=9, blocks=1, heads=2)
    shape = replace(shape, d_qk=3, d_v=3, ffn_multiple=2)
    backbone = Backbone(shape, torch.Generator().manual_seed(0))
    ours = {
        name: wave(tuple(each.shape), number)
        for number, (name, each) in enumerate(backbone.blocks[0].state_dict().items())
    }
    backbone.blocks[0].load_state_dict(ours)
    attention = nn.MultiheadAttention(width, 2, batch_first=True)
    attention.load_state_dict(
        {
            "in_proj_weight": ours["qkv_weight"],
            "in_proj_bias": ours["qkv_bias"],
            "out_proj.weight": ours["out_weight"],
            "out_proj.bias": ours["out_bias"],
        }
    )
    inner, outer = nn.Conv1d(width, hidden, 1), nn.Conv1d(hidden, width, 1)
    for conv, name in ((inner, "lin1"), (outer, "lin2")):
        weight, bias = ours[f"{name}_weight"], ours[f"{name}_bias"]
        conv.load_state_dict({"weight": weight.unsqueeze(-1), "bias": bias})
    x_BTD, norm = wave((2, 5, width), 9), nn.LayerNorm(width, 1e-8, elementwise_affine=False)
    query_BTD = norm(x_BTD)
    later_TT = torch.ones(5, 5, dtype=torch.bool).triu(1)
    attended_BTD, _ = attention(query_BTD, x_BTD, x_BTD, attn_mask=later_TT)
    z_BDT = norm(query_BTD + attended_BTD).transpose(1, 2)
    expected_BTD = (z_BDT + outer(torch.relu(inner(z_BDT)))).transpose(1, 2)
    out_BTD = backbone(x_BTD, torch.zeros(2, 6), torch.tensor([5, 5]))
    torch.testing.assert_close(out_BTD, expected_BTD)


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
        (
            BackboneShape(kind="hstu", width=50, container=211, d_qk=50, d_v=50),
            3_953,
            13_100,
            234_400,
        ),
        (
            BackboneShape(kind="hstu", width=50, container=211, blocks=8, heads=2, d_qk=25, d_v=25),
            3_953,
            13_100,
            313_000,
        ),
    ],
    ids=["alpha", "alpha large", "alpha ml-20m", "alpha ml-20m large", "hstu", "hstu large"],
)
def test_parameter_counts_equal_the_published_models(
    shape: BackboneShape, num_items: int, per_block: int, total: int
) -> None:
    """The total has an item table and a position table besides."""
    backbone = Backbone(shape, torch.Generator().manual_seed(0))
    assert sum(each.numel() for each in backbone.blocks[0].parameters()) == per_block
    tables = (num_items + shape.container) * shape.width
    assert sum(each.numel() for each in backbone.parameters()) + tables == total


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("pow", 2),
        ("exp", 2),
        ("linear", 2),
        ("log", 3),
        ("sin", 4),
        ("mixed", 13),
        ("nn", 46),
        ("zero", 0),
    ],
)
def test_fuxi_beta_has_the_parameters_its_formula_says(
    name: TimeFunctionName, numbers: int
) -> None:
    width, heads, d_v, multiple, container = 50, 2, 25, 3, 211
    shape = BackboneShape(
        kind="fuxi-beta",
        width=width,
        container=container,
        heads=heads,
        d_v=d_v,
        ffn_multiple=multiple,
        time_function=name,
    )
    mixed = heads * d_v
    expected = 3 * width * mixed + numbers + (2 * container - 1)
    expected += (2 * mixed * width + width) + 3 * multiple * width**2
    block = Backbone(shape, torch.Generator().manual_seed(0)).blocks[0]
    assert sum(each.numel() for each in block.parameters()) == expected


def test_sasrec_has_the_parameters_its_formula_says() -> None:
    width, hidden = 50, 100
    shape = BackboneShape(
        kind="sasrec", width=width, container=211, heads=2, d_qk=25, d_v=25, ffn_multiple=2
    )
    block = Backbone(shape, torch.Generator().manual_seed(0)).blocks[0]
    attention = 4 * (width**2 + width)
    expected = attention + 2 * width * hidden + hidden + width
    assert sum(each.numel() for each in block.parameters()) == expected
