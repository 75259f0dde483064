"""A query vector meets only item vectors of its own towers, however often models are swapped.

Three models learned the same actions from different seeds: their vectors lie in spaces that have
nothing to do with each other, so an answer from two of them would be nobody's answer.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from domain.events import ItemUpdate
from domain.requests import RetrievalRequest
from retrieval.learner import RetrievalModel
from retrieval.vector_index import IndexConfig
from serving.live_models import LiveModelSlot
from serving.stages import find_candidates
from tests.unit.serving.worlds import make_models

MINUTE_MS = 60_000
NUM_ITEMS = 300
SEEDS = (1, 2, 3)
SWAPS = 12
# All lists are searched: an answer is exact, and the same after lists were made anew.
INDEX = IndexConfig(kind="ivf", ivf_lists=12, ivf_probes=12)


@pytest.fixture
def restored(small_model, world, learn) -> Callable[[int], RetrievalModel]:
    """Return a maker of models: the same seed gives the same model, each with its own index."""
    rng = np.random.default_rng(1)
    for step in range(96):
        user, item = int(rng.integers(6)), int(rng.zipf(1.3)) % NUM_ITEMS
        world.take(f"u{user}", f"i{item}", step * MINUTE_MS)
    states = {}
    for seed in SEEDS:
        model = small_model(index=INDEX, seed=seed)
        for item in range(NUM_ITEMS):
            model.observe_item(ItemUpdate(event_id="", time_ms=0, item_id=f"i{item}"))
        learn(model, world.actions, batch=48)
        states[seed] = model.save()

    def make(seed: int) -> RetrievalModel:
        model = small_model(index=INDEX, seed=0)
        model.load(states[seed])
        return model

    return make


def requests(world) -> list[RetrievalRequest]:
    return [
        RetrievalRequest(world.user(f"u{user}"), 100 * MINUTE_MS, 20, exclude=frozenset({"i7"}))
        for user in range(6)
    ]


def test_models_of_different_seeds_answer_differently(restored, world) -> None:
    answers = {
        tuple(restored(seed).retrieve(request).item_ids)
        for seed in SEEDS
        for request in requests(world)
    }
    assert len(answers) == len(SEEDS) * 6


def test_answers_are_of_one_model_under_a_storm_of_swaps(restored, world) -> None:
    wanted = requests(world)
    alone = {seed: [restored(seed).retrieve(one) for one in wanted] for seed in SEEDS}
    slot, stop, wrong = LiveModelSlot(), threading.Event(), []
    answered: Counter[str] = Counter()
    retrained = []

    def ask(first: int) -> None:
        for turn in itertools.count(first):
            models = slot.current()
            found = find_candidates(models, wanted[turn % 6])
            expected = alone[int(models.snapshot_id)][turn % 6]
            if found.item_ids != expected.item_ids or (found.scores != expected.scores).any():
                wrong.append((models.snapshot_id, found.item_ids))
            answered[models.snapshot_id] += 1
            if stop.is_set():
                return

    slot.swap(make_models("1", retriever=restored(1)))
    askers = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for asker in askers:
        asker.start()
    try:
        for seed in itertools.islice(itertools.cycle(SEEDS[::-1]), SWAPS):
            models = slot.current()
            assert isinstance(models.retriever, RetrievalModel)
            retrained.append(models.retriever.index_care(models.lock).retrain())
            slot.swap(make_models(str(seed), retriever=restored(seed)))
            answers = answered[str(seed)]
            while answered[str(seed)] < answers + 10 and not wrong:
                time.sleep(0.001)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert not wrong
    assert retrained == [True] * SWAPS
    assert min(answered[str(seed)] for seed in SEEDS) >= 10
