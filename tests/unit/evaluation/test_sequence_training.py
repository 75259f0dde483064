"""Training: groups change nothing, interruptions change nothing, and something is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from domain.errors import DatasetError, NonFiniteLossError
from domain.state import State, state_hash
from evaluation import training
from evaluation.full_ranking import ranking_metrics, target_ranks
from evaluation.sequences import Sequences
from evaluation.sequential import EpochResult, Run, Task, Watch, chosen, new_trainer, train
from evaluation.training import SequenceTrainer
from tests.unit.evaluation.sequence_worlds import circles, sequences, tiny

CPU = torch.device("cpu")


def trainer(world: Sequences, cut: int = 1, seed: int = 1, **changes: Any) -> SequenceTrainer:
    return SequenceTrainer(world, tiny(**changes), cut=cut, seed=seed, device=CPU)


def weights(of: SequenceTrainer) -> dict[str, torch.Tensor]:
    return {name: x.detach().clone() for name, x in of.model.state_dict().items()}


def whole_batches(world: Sequences, config: Any, cut: int, seed: int) -> dict[str, torch.Tensor]:
    """The slow twin: every batch in one piece, padded to the container, loss and step by hand."""
    from evaluation.sampled_softmax import draw_negatives, sampled_softmax, unit
    from evaluation.sequences import batch, lengths

    twin = SequenceTrainer(world, config, cut=cut, seed=seed, device=CPU)
    order_seed, negative_seed, _ = np.random.SeedSequence([seed, 0]).generate_state(3)
    generator = torch.Generator().manual_seed(int(negative_seed))
    users = np.random.default_rng(int(order_seed)).permutation(world.users_with(cut + 2))
    model, L = twin.model.train(), config.history_length
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    for at in range(0, len(users), config.batch_size):
        own = users[at : at + config.batch_size]
        own = own[np.argsort(lengths(world, own, cut=cut, longest=L), kind="stable")]
        part = batch(world, own, cut=cut, longest=L, width=config.container - 1)
        item = torch.from_numpy(part.item_BT1)
        length = torch.from_numpy(part.length_B)
        out = model(torch.from_numpy(part.histories()), torch.from_numpy(part.time_s_BT1), length)
        queries, targets = [], []
        for row, size in enumerate(part.length_B.tolist()):
            for place in range(size):
                queries.append(out[row, place])
                targets.append(item[row, place + 1])
        drawn = draw_negatives(len(targets), config.negatives, world.num_candidates, generator)
        loss = sampled_softmax(
            torch.stack(queries), unit(model.item_VD), torch.stack(targets), drawn, 0.05
        ) / len(targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights(twin)


@pytest.mark.parametrize("name", ["fuxi-alpha", "sasrec"])
def test_an_epoch_in_small_groups_is_one_of_whole_padded_batches(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(training._PLACES_AT_ONCE, "cpu", 12)
    world = circles(num_users=11)
    config = tiny(model=name, dropout=0.0, batch_size=5, blocks=2)
    ours = SequenceTrainer(world, config, cut=1, seed=3, device=CPU)
    ours.epoch()
    twin = whole_batches(world, config, 1, 3)
    for key, value in weights(ours).items():
        # Adam's first steps have the sign of the gradient: one that is zero but for rounding may go
        # either way (the bias of SASRec's keys, which softmax does not see, always), so what is
        # compared is nearly all of the weights.
        size = 8 if key.endswith("qkv_bias") else 0
        ours_X, twin_X = (torch.cat((x[:size], x[2 * size :])) for x in (value, twin[key]))
        close = torch.isclose(ours_X, twin_X, atol=2e-5, rtol=1e-4).float().mean().item()
        assert close > 0.98, key


def test_groups_hold_every_user_once_and_few_places() -> None:
    lengths = np.array([1, 2, 2, 3, 9, 40])
    groups = [list(group) for group in training._groups(np.arange(6), lengths, 10)]
    assert [user for group in groups for user in group] == list(range(6))
    assert groups == [[0, 1, 2], [3], [4], [5]]


def test_same_seed_same_weights_other_seed_other_weights() -> None:
    world = circles(num_users=8)
    runs = [trainer(world, seed=seed) for seed in (1, 1, 2)]
    for one in runs:
        one.epoch()
        one.epoch()
    hashes = [state_hash(one.state()) for one in runs]
    assert hashes[0] == hashes[1] != hashes[2]


def test_restored_trainer_goes_on_as_the_one_it_was() -> None:
    world = circles(num_users=8)
    whole, first, second = trainer(world), trainer(world), trainer(world, seed=1)
    losses = [whole.epoch() for _ in range(4)]
    for _ in range(2):
        first.epoch()
    second.restore(first.state())
    assert [second.epoch(), second.epoch()] == losses[2:]
    assert state_hash(second.state()) == state_hash(whole.state())


def test_what_is_cut_off_changes_nothing_that_is_learned() -> None:
    items = [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7]]
    others = [[*own[:-2], 9, 9] for own in items]
    hashes = []
    for world in (sequences(items, candidates=9), sequences(others, candidates=9)):
        one = trainer(world, cut=2)
        one.epoch()
        hashes.append(state_hash(one.state()))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("name", ["fuxi-alpha", "fuxi-beta", "hstu", "sasrec"])
def test_in_a_world_of_circles_everybodys_next_item_comes_first(name: str) -> None:
    world = circles(num_users=60, num_items=12)
    config = tiny(
        model=name, width=16, d_qk=16, d_v=16, dropout=0.0, batch_size=16, learning_rate=1e-2,
        negatives=8,
    )  # fmt: skip
    one = SequenceTrainer(world, config, cut=1, seed=1, device=CPU)
    users = world.users_with(4)
    before = ranking_metrics(target_ranks(one.model, world, users, config, 0))["ndcg@10"]
    first = one.epoch()
    for _ in range(24):
        last = one.epoch()
    after = ranking_metrics(target_ranks(one.model, world, users, config, 0))["ndcg@10"]
    assert last < 0.3 * first
    assert before < 0.7
    assert after > 0.95  # usually 1.0


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    world = circles(num_users=8)
    one = trainer(world)
    one.model.item_VD.data[3] = torch.inf
    before = weights(one)
    with pytest.raises(NonFiniteLossError, match="epoch 1: expected a finite loss"):
        one.epoch()
    assert torch.equal(one.model.place_ND, before["place_ND"])


# Rules


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.state: State | None = None

    def load(self) -> State | None:
        return self.state

    def save(self, state: State) -> None:
        self.state = state


def test_an_interrupted_run_ends_with_the_numbers_of_an_uninterrupted_one() -> None:
    world = circles(num_users=10)
    task, run = Task(world, tiny(epochs=5)), Run("validation", 1)

    def results(kept: Kept | None, stop_after: int) -> list[EpochResult]:
        done: list[EpochResult] = []
        watch = Watch(after_epoch=done.append, is_stopped=lambda: len(done) >= stop_after)
        made = new_trainer(world, task.config, run, CPU)
        return train(made, run, task, kept, watch)

    whole, kept = results(None, 99), Kept()
    assert len(results(kept, 2)) == 2
    assert results(kept, 99) == whole
    assert [one.epoch for one in whole] == [1, 2, 3, 4, 5]


def test_upstream_rule_learns_the_last_but_one_item_and_validation_rule_does_not() -> None:
    world = circles(num_users=10)
    cuts = {
        rule: new_trainer(world, tiny(), Run(rule, 1), CPU)._cut  # type: ignore[arg-type]
        for rule in ("upstream", "validation")
    }
    assert cuts == {"upstream": 1, "validation": 2}


def test_each_rule_believes_its_own_epoch() -> None:
    results = [
        EpochResult(epoch, 1.0, {"ndcg@10": validation}, {"ndcg@10": test})
        for epoch, validation, test in ((1, 0.1, 0.9), (2, 0.5, 0.2), (3, 0.5, 0.4))
    ]
    assert chosen(results, "upstream").epoch == 1
    assert chosen(results, "validation").epoch == 2


def test_users_who_cannot_be_asked_are_an_error_when_there_are_no_others() -> None:
    with pytest.raises(DatasetError, match="at least 4 events"):
        Task(sequences([[1, 2, 3]], candidates=3), tiny())
