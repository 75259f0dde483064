"""The network's inputs: which ids reach which field, and what an absent one looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from domain.features import FeatureSchema, Field
from domain.requests import History, RankingRequest, UserView
from ranking.adaf2m2 import AdaF2M2Config
from ranking.collate import Batch, collate
from ranking.counters import CounterConfig, LabelCounters
from ranking.feature_encoder import EncoderConfig, FeatureEncoder
from ranking.field_layout import FieldLayout, layout_of
from ranking.history_encoder import BackboneConfig
from ranking.model import NetConfig, NetOutput, RankingNet, net_input

SCHEMA = FeatureSchema(
    fields=(
        Field(name="author", entity="item", kind="categorical", counted=True),
        Field(name="tags", entity="item", kind="multi"),
        Field(name="price", entity="item", kind="numeric"),
    )
)
WIDTH = 4


def layout() -> FieldLayout:
    return layout_of(SCHEMA, max_values=3)


def batch(*features: dict[str, Any], history: History | None = None) -> Batch:
    counters = LabelCounters(CounterConfig(), 1)
    encoder = FeatureEncoder(SCHEMA, layout(), EncoderConfig(max_values=3))
    request = RankingRequest(
        user=UserView(user_id="u", history=history or History()),
        item_ids=tuple(f"i{n}" for n in range(len(features))),
        item_features=features,
        time_ms=0,
    )
    return collate([encoder.capture(request, counters)])


def new_network(cross_layers: int = 0, **adaf2m2: Any) -> RankingNet:
    encoder = FeatureEncoder(SCHEMA, layout(), EncoderConfig(max_values=3))
    num_floats, flagged = encoder.num_floats(counter_width=3)
    config = NetConfig(
        layout=layout(),
        num_heads=1,
        num_floats=num_floats,
        num_flagged=flagged,
        state_columns=encoder.state_columns(3),
        embedding_dimension=WIDTH,
        history_length=20,
        hidden=(8, 5),
        cross_layers=cross_layers,
        backbone=BackboneConfig(width=8, head_width=4),
        adaf2m2=AdaF2M2Config(**adaf2m2),
    )
    return RankingNet(config, torch.Generator().manual_seed(0))


def network(**adaf2m2: Any) -> RankingNet:
    """Return a network in which every input counts, as after some learning."""
    net = new_network(**adaf2m2)
    first = net.layers[0]
    assert isinstance(first, torch.nn.Linear)
    torch.nn.init.normal_(first.weight, generator=torch.Generator().manual_seed(1))
    return net


def rows_of(made: Batch, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(len(made.ids), WIDTH, generator=torch.Generator().manual_seed(seed))
    rows[torch.from_numpy(made.ids == 0)] = 0.0
    return rows


def run(
    made: Batch,
    rows: torch.Tensor,
    masks: torch.Generator | None = None,
    **adaf2m2: Any,
) -> NetOutput:
    normal = np.nan_to_num(made.floats_MW)
    with torch.no_grad():
        out: NetOutput = network(**adaf2m2)(
            rows, net_input(made, normal, 1, torch.device("cpu")), masks
        )
    return out


def test_output_has_a_logit_per_head_and_the_last_hidden_layer_before_its_activation() -> None:
    made = batch({"price": 1.0}, {"author": "a"})
    out = run(made, rows_of(made))
    assert out.logits_MH.shape == (2, 1)
    assert out.hidden_MD.shape == (2, 5)
    assert (out.hidden_MD < 0).any()
    assert out.masked_logits is None


def test_values_of_a_multi_field_count_as_their_mean() -> None:
    twice, once = batch({"tags": ("x", "x")}), batch({"tags": ("x",)})
    (place,) = np.flatnonzero(twice.counts == 2)
    rows_twice = rows_of(twice)
    rows_once = torch.zeros(len(once.ids), WIDTH)
    for row, each in enumerate(once.ids):
        rows_once[row] = rows_twice[np.flatnonzero(twice.ids == each)[0]]
    assert twice.ids[place] in once.ids
    torch.testing.assert_close(run(twice, rows_twice).logits_MH, run(once, rows_once).logits_MH)


def test_unseen_id_scores_like_an_absent_one() -> None:
    unseen, absent = batch({"author": "never seen"}), batch({})
    # The counters are zeros for both, and so are the rows.
    torch.testing.assert_close(
        run(unseen, torch.zeros(len(unseen.ids), WIDTH)).logits_MH,
        run(absent, torch.zeros(len(absent.ids), WIDTH)).logits_MH,
    )


def test_missing_number_differs_from_an_average_one() -> None:
    made = batch({})
    known = batch({})
    known.floats_MW[np.isnan(known.floats_MW)] = 0.0
    rows = rows_of(made)
    assert not torch.equal(run(made, rows).logits_MH, run(known, rows).logits_MH)


def test_history_outcomes_matter() -> None:
    def scored(outcome: int) -> torch.Tensor:
        history = History(("i7",), np.array([-1_000]), np.array([outcome]))
        made = batch({}, history=history)
        # The numbers that tell the last outcomes are kept out of it.
        made.floats_MW[:] = 0.0
        return run(made, rows_of(made)).logits_MH

    assert not torch.equal(scored(0), scored(1))


@pytest.mark.parametrize("cross_layers", [0, 2])
def test_history_has_no_say_before_learning_but_gets_a_gradient(cross_layers: int) -> None:
    net = new_network(cross_layers)

    def logits(item: str) -> torch.Tensor:
        made = batch({}, history=History((item,), np.array([-1_000]), np.array([1])))
        given = net_input(made, np.nan_to_num(made.floats_MW), 1, torch.device("cpu"))
        rows = rows_of(made) * torch.from_numpy(made.ids % 7 + 1.0).float()[:, None]
        out: NetOutput = net(rows, given)
        return out.logits_MH

    torch.testing.assert_close(logits("i7"), logits("i8"))
    logits("i7").sum().backward()
    readers = [net.layers[0]] if not cross_layers else [net.layers[0], net.heads]
    for reader in readers:
        assert isinstance(reader, torch.nn.Linear)
        assert not reader.weight[:, -8:].any()
        assert reader.weight.grad is not None
        assert reader.weight.grad[:, -8:].any()


def test_cross_network_stands_beside_the_hidden_layers() -> None:
    plain, crossed = new_network(), new_network(cross_layers=2)
    sizes = [sum(each.numel() for each in net.parameters()) for net in (plain, crossed)]
    inputs = plain.layers[0].weight.shape[1]  # type: ignore[union-attr]
    assert isinstance(inputs, int)
    assert sizes[1] - sizes[0] == 2 * (inputs**2 + inputs) + inputs
    made = batch({"author": "a", "price": 2.0})
    given = net_input(made, np.nan_to_num(made.floats_MW), 1, torch.device("cpu"))
    with torch.no_grad():
        out = crossed(rows_of(made), given)
        assert out.hidden_MD.shape == (1, 5)
        crossed.heads.weight[:, 5:] = 0.0
        # What heads read besides is what was crossed, and nothing else.
        expected = crossed.heads.bias + torch.relu(out.hidden_MD) @ crossed.heads.weight[:, :5].T
        torch.testing.assert_close(crossed(rows_of(made), given).logits_MH, expected)
        assert not torch.equal(out.logits_MH, expected)


def test_masked_copies_are_scored_only_when_learning() -> None:
    made = batch({"author": "a"}, {"author": "b"})
    masks = torch.Generator().manual_seed(0)
    assert run(made, rows_of(made), masked_forwards=3).masked_logits is None
    masked = run(made, rows_of(made), masks, masked_forwards=3).masked_logits
    assert masked is not None
    assert masked.shape == (6, 1)


def test_masked_copies_equal_the_example_when_nothing_is_masked() -> None:
    made = batch({"author": "a"}, {"author": "b"})
    masks = torch.Generator().manual_seed(0)
    options = {"masked_forwards": 2, "mask_rate_min": 0.0, "mask_rate_max": 0.0}
    out = run(made, rows_of(made), masks, adapter=False, **options)
    assert out.masked_logits is not None
    torch.testing.assert_close(out.masked_logits, out.logits_MH.repeat_interleave(2, dim=0))


def test_masked_copies_score_through_heads_of_their_own_when_asked() -> None:
    made = batch({"author": "a"}, {"author": "b"})
    options = {"masked_forwards": 2, "mask_rate_min": 0.0, "mask_rate_max": 0.0}
    net = network(adapter=False, masked_heads=True, **options)
    given = net_input(made, np.nan_to_num(made.floats_MW), 1, torch.device("cpu"))
    out = net(rows_of(made), given, torch.Generator().manual_seed(0))
    assert out.masked_logits is not None
    main = out.logits_MH.repeat_interleave(2, dim=0)
    assert not torch.allclose(out.masked_logits, main)
    net.masked_heads.load_state_dict(net.heads.state_dict())
    out = net(rows_of(made), given, torch.Generator().manual_seed(0))
    torch.testing.assert_close(out.masked_logits, main)


@pytest.mark.parametrize("flows", [True, False])
def test_gradients_reach_ids_through_the_state_only_when_asked(flows: bool) -> None:
    """With the fields themselves of no weight, all that is left of an id is its part of the state.

    The weights of the other fields hang on it.
    """
    net = network(id_embeddings_in_state=True, id_gradient=flows)
    assert net.adapter is not None
    torch.nn.init.normal_(net.adapter.linear.weight, generator=torch.Generator().manual_seed(2))
    made = batch({"author": "a"})
    (user,) = made.request_BS[0]
    rows = rows_of(made).requires_grad_()
    first = net.layers[0]
    assert isinstance(first, torch.nn.Linear)
    with torch.no_grad():
        first.weight[:, :WIDTH] = 0.0  # the user's own field
    given = net_input(made, np.nan_to_num(made.floats_MW), 1, torch.device("cpu"))
    net(rows, given).logits_MH.sum().backward()
    assert rows.grad is not None
    assert bool(rows.grad[user].any()) is flows


@pytest.mark.parametrize("scale", ["sigmoid", "double_sigmoid"])
def test_adapter_is_no_change_at_first_only_when_it_starts_at_one(scale: str) -> None:
    made = batch({"author": "a"})
    adapted = run(made, rows_of(made), scale=scale).logits_MH
    plain = run(made, rows_of(made), adapter=False).logits_MH
    assert bool(torch.allclose(adapted, plain)) is (scale == "double_sigmoid")
