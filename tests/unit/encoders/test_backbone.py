"""Candidates equal one sequence per candidate, and nobody sees what they may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.backbone import Backbone
from encoders.dropout import reseed_dropout
from encoders.shape import BackboneShape

LONGEST, WIDTH = 6, 8
WIDE: dict[str, Any] = {"width": WIDTH, "container": LONGEST + 3, "heads": 2, "d_qk": 3, "d_v": 5}
SHAPES = {
    "fuxi-alpha": BackboneShape(width=WIDTH, container=LONGEST + 1, heads=2, d_qk=4, d_v=4),
    "fuxi-alpha-wide": BackboneShape(ffn_multiple=2, **WIDE),
    "fuxi-beta": BackboneShape(kind="fuxi-beta", **WIDE),
    "hstu": BackboneShape(kind="hstu", **WIDE),
    "sasrec": BackboneShape(kind="sasrec", ffn_multiple=2, **WIDE),
}
EVERY = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
IN_TIME = {name: shape for name, shape in SHAPES.items() if shape.kind != "sasrec"}
"""SASRec knows the order of events only, and that from its tokens."""


def backbone(shape: BackboneShape) -> Backbone:
    made = Backbone(shape, torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for parameter in made.parameters():
            # Published initial values are so small that mistakes would hide in rounding; and a
            # bias that is zero hides that it is there.
            parameter.mul_({0: 1.0, 1: 10.0, 2: 3.0}[parameter.dim()])
            parameter[parameter == 0] = 0.3
    return made


def world(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return histories of 0, 1, 4 and 6 events, their times, lengths, and five candidates each."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randn(4, LONGEST, WIDTH, generator=generator, dtype=torch.float64)
    times = torch.rand(4, LONGEST + 1, generator=generator).mul(12).exp().long()
    times = times.sort(dim=1).values
    lengths = torch.tensor([0, 1, 4, 6])
    padding = torch.arange(LONGEST)[None] >= lengths[:, None]
    candidates = torch.randn(4, 5, WIDTH, generator=generator, dtype=torch.float64)
    return history.masked_fill(padding[..., None], 7.0), times, lengths, candidates


def scored(model: Backbone, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    history, times, lengths, candidates = given
    with torch.no_grad():
        return model.candidates(candidates, model.encode(history, times, lengths))


def naive(model: Backbone, history_TD: Tensor, times_U: Tensor, candidates_CD: Tensor) -> Tensor:
    """Append each candidate alone to the history, encode the whole sequence, take its last row."""
    rows = []
    times = torch.cat([times_U, times_U[-1:]])[None]
    for candidate in candidates_CD:
        x = torch.cat([history_TD, candidate[None]])[None]
        rows.append(model(x, times, torch.tensor([x.shape[1]]))[0, -1])
    return torch.stack(rows)


@EVERY
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_candidates_equal_one_sequence_per_candidate(shape: BackboneShape, blocks: int) -> None:
    """In double precision, so that rounding cannot hide (or be taken for) a mistake."""
    model = backbone(replace(shape, blocks=blocks))
    history, times, lengths, candidates = world()
    fast = scored(model, world())
    for b, n in enumerate(lengths.tolist()):
        with torch.no_grad():
            slow = naive(model, history[b, :n], times[b, : n + 1], candidates[b])
        torch.testing.assert_close(fast[b], slow, atol=1e-10, rtol=1e-10)


@EVERY
def test_newest_is_the_last_valid_row(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, _ = world()
    with torch.no_grad():
        rows, newest = (run(history, times, lengths) for run in (model, model.newest))
    for b, n in enumerate(lengths.tolist()):
        expected = rows[b, n - 1] if n else torch.zeros(WIDTH).double()
        torch.testing.assert_close(newest[b], expected)
        assert not rows[b, n:].any()


@EVERY
def test_candidates_do_not_see_each_other(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, candidates = world()
    before = scored(model, (history, times, lengths, candidates))
    changed = candidates.clone()
    changed[:, 1:] += 100.0
    after = scored(model, (history, times, lengths, changed))
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


@EVERY
def test_padding_is_never_read(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, candidates = world()
    padding = torch.arange(LONGEST)[None] >= lengths[:, None]
    behind = torch.arange(LONGEST + 1)[None] > lengths[:, None]
    other = (
        history.masked_fill(padding[..., None], -1e3),
        times.masked_fill(behind, -(10**6)),
        lengths,
        candidates,
    )
    torch.testing.assert_close(scored(model, world()), scored(model, other))
    with torch.no_grad():
        torch.testing.assert_close(model(*world()[:3]), model(*other[:3]))


@EVERY
def test_rows_do_not_depend_on_later_events(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, _ = world()
    changed, later = history.clone(), times.clone()
    changed[3, 4:] *= -2.0
    later[3, 5:] += 10**6
    with torch.no_grad():
        before, after = model(history, times, lengths), model(changed, later, lengths)
    torch.testing.assert_close(before[3, :4], after[3, :4])
    assert not torch.allclose(before[3, 4], after[3, 4])


@pytest.mark.parametrize("shape", IN_TIME.values(), ids=IN_TIME)
def test_row_knows_when_the_next_event_happens(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, _ = world()
    later = times.clone()
    later[3, 4:] += 10**6
    with torch.no_grad():
        before, after = model(history, times, lengths), model(history, later, lengths)
    torch.testing.assert_close(before[3, :3], after[3, :3])
    assert not torch.allclose(before[3, 3], after[3, 3])


@EVERY
def test_every_event_matters_to_the_candidates(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, candidates = world()
    before = scored(model, world())
    for place in range(4):
        changed = history.clone()
        changed[2, place] = history[2, place].flip(0)
        after = scored(model, (changed, times, lengths, candidates))
        assert not torch.allclose(before[2], after[2])
        torch.testing.assert_close(before[3], after[3])


@pytest.mark.parametrize("shape", IN_TIME.values(), ids=IN_TIME)
def test_time_of_the_request_matters(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, candidates = world()
    later = times.clone()
    later[3, 6] += 10**6
    before, after = scored(model, world()), scored(model, (history, later, lengths, candidates))
    assert not torch.allclose(before[3], after[3])


@EVERY
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_moved_history_equals_one_encoded_anew(shape: BackboneShape, blocks: int) -> None:
    model = backbone(replace(shape, blocks=blocks))
    history, times, lengths, candidates = world()
    request_B = times.max() + torch.tensor([5, 60, 3_600, 86_400])
    later = times.scatter(1, lengths[:, None], request_B[:, None])
    with torch.no_grad():
        state = model.encode(history, times, lengths)
        moved = model.candidates(candidates, model.moved(state, request_B))
        again = model.candidates(candidates, state)
    torch.testing.assert_close(moved, scored(model, (history, later, lengths, candidates)))
    torch.testing.assert_close(again, scored(model, world()), rtol=0, atol=0)


@EVERY
def test_longer_container_of_padding_changes_nothing(shape: BackboneShape) -> None:
    """What attention is divided by is the container's length, not that of the batch at hand."""
    model = backbone(shape)
    history, times, _, candidates = world()
    two = torch.tensor([2])
    short = (history[3:, :2], times[3:, :3], two, candidates[3:])
    long = (history[3:], times[3:], two, candidates[3:])
    torch.testing.assert_close(scored(model, short), scored(model, long))


@EVERY
def test_gradients_reach_every_parameter(shape: BackboneShape) -> None:
    model = backbone(shape)
    history, times, lengths, candidates = world()
    model.candidates(candidates, model.encode(history, times, lengths)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@EVERY
def test_dropout_acts_while_training_and_repeats_with_its_seed(shape: BackboneShape) -> None:
    given = world()[:3]
    plain, twin = (
        Backbone(replace(shape, dropout=rate), torch.Generator().manual_seed(1)).double()
        for rate in (0.0, 0.3)
    )
    with torch.no_grad():
        first, second = twin(*given), twin(*given)
        reseed_dropout(twin, 5)
        third = twin(*given)
        reseed_dropout(twin, 5)
        torch.testing.assert_close(twin(*given), third, rtol=0, atol=0)
        assert not torch.equal(first, second)
        twin.load_state_dict(plain.state_dict())
        torch.testing.assert_close(twin.eval()(*given), plain(*given), rtol=0, atol=0)
