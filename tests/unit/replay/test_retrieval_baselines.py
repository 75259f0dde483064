"""Retrieval baselines: worlds whose best list can be said aloud, and a slow twin of every rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.requests import History, UserView
from replay.retrieval_baselines import (
    BASELINES,
    ITEM_ITEM,
    POPULAR,
    REPEAT,
    RetrievalBaselines,
    RetrievalBaselinesConfig,
)

NOTHING = History()


def history(*items: str, refused: tuple[str, ...] = ()) -> History:
    """Items taken, oldest first; refused ones were shown and not taken."""
    names = (*items, *refused)
    outcomes = np.array([1] * len(items) + [0] * len(refused), np.int64)
    return History(names, np.zeros(len(names), np.int64), outcomes)


def took(item: str, time_ms: int = 0, before: History | None = None) -> PositiveAction:
    view = UserView(user_id="u", history=history("z") if before is None else before)
    return PositiveAction(user=view, item_id=item, time_ms=time_ms)


def fresh(half_life_ms: float = 100.0, max_pairs: int = 400) -> RetrievalBaselines:
    return RetrievalBaselines(
        RetrievalBaselinesConfig(
            half_lives_ms=(half_life_ms,), pair_half_life_ms=1_000.0, max_pairs=max_pairs
        )
    )


def ranks(
    baselines: RetrievalBaselines, *actions: PositiveAction, name: str = POPULAR
) -> list[int]:
    return [int(rank) for rank in baselines.target_ranks(actions)[name]]


def know(baselines: RetrievalBaselines, *items: str) -> RetrievalBaselines:
    for item in items:
        baselines.observe_item(ItemUpdate(event_id=f"in-{item}", time_ms=0, item_id=item))
    return baselines


def out(item: str) -> ItemUpdate:
    return ItemUpdate(event_id=f"out-{item}", time_ms=1, item_id=item, available=False)


# Popular lately


def test_popular_forgets_half_every_half_life() -> None:
    baselines = fresh(half_life_ms=100)
    baselines.learn([took("old", 0), took("old", 0), took("old", 0), took("new", 200)])
    assert ranks(baselines, took("new"), took("old")) == [1, 2]
    slow = fresh(half_life_ms=200)
    slow.learn([took("old", 0), took("old", 0), took("old", 0), took("new", 200)])
    assert ranks(slow, took("old"), took("new")) == [1, 2]


def test_popular_takes_out_what_the_user_has_had_and_misses_it() -> None:
    baselines = fresh()
    baselines.learn([took("a")] * 3 + [took("b")] * 2 + [took("c")])
    had = history("a", "a", "gone")
    assert ranks(baselines, took("c"), took("c", before=had), took("a", before=had)) == [3, 2, -1]


def test_unknown_items_are_misses_and_users_without_history_are_not_asked() -> None:
    baselines = fresh()
    baselines.learn([took("a")])
    for name in BASELINES:
        asked = took("never seen"), took("a", before=NOTHING)
        assert ranks(baselines, *asked, name=name) == [-1, 0]


def test_catalog_is_what_updates_and_actions_named_and_none_took_out() -> None:
    baselines = fresh()
    baselines.learn([took("a"), took("a"), took("b")])
    baselines.observe_item(out("a"))
    baselines.observe_item(out("never in it"))
    baselines.observe_item(ItemUpdate(event_id="2", time_ms=1, item_id="cold"))
    assert baselines.lists(NOTHING, 5)[POPULAR] == ["b", "cold"]
    asked = took("a"), took("b", before=history("a")), took("cold"), took("never in it")
    assert ranks(baselines, *asked) == [-1, 1, 2, -1]


def test_popular_agrees_with_plain_decay_over_many_half_lives() -> None:
    rng = np.random.default_rng(3)
    half_life_ms, now = 10.0, 0
    baselines = fresh(half_life_ms)
    plain: dict[str, float] = {}
    for _ in range(3_000):
        step = int(rng.integers(30))
        now += step
        plain = {item: weight * 0.5 ** (step / half_life_ms) for item, weight in plain.items()}
        item = f"i{rng.integers(2_000)}"
        plain[item] = plain.get(item, 0.0) + 1.0
        baselines.learn([took(item, now)])
    expected = sorted(plain, key=lambda item: -plain[item])[:20]
    assert baselines.lists(NOTHING, 20)[POPULAR] == expected


def test_popular_survives_a_long_silence() -> None:
    baselines = fresh(half_life_ms=1)
    baselines.learn([took("a", 0), took("a", 0), took("b", 10**12)])
    assert baselines.lists(NOTHING, 2)[POPULAR] == ["b", "a"]


def test_popular_believes_the_half_life_that_has_found_most() -> None:
    """Forty items that are always taken, and every hour five others, of which half the actions."""
    rng = np.random.default_rng(4)
    minute = 60_000
    both = RetrievalBaselinesConfig(half_lives_ms=(10.0 * minute, 1_440.0 * minute))
    alone = [
        RetrievalBaselinesConfig(half_lives_ms=(half_life_ms,))
        for half_life_ms in both.half_lives_ms
    ]
    every = [RetrievalBaselines(config) for config in (both, *alone)]
    found = np.zeros(3)
    for at in range(3_000):
        hour = at // 60
        story = rng.random() < 0.5
        item = f"s{hour}-{rng.integers(5)}" if story else f"i{rng.integers(40)}"
        action = took(item, at * minute)
        for index, baselines in enumerate(every):
            if at >= 1_000:
                found[index] += 0 < ranks(baselines, action)[0] <= 20
            else:
                ranks(baselines, action)
            baselines.learn([action])
    chosen, short, long = found.tolist()
    assert short > 1.3 * long
    assert chosen == short


# What goes with it, and the same again


def test_item_item_recommends_what_others_took_next() -> None:
    baselines = know(fresh(), "pot", "pan")
    baselines.learn([took("star")] * 9)
    baselines.learn([took("tea", before=history("pot"))] * 2)
    baselines.learn([took("cup", before=history("pot"))])
    pot = history("pot")
    assert baselines.lists(pot, 4)[ITEM_ITEM] == ["tea", "cup", "star", "pan"]
    asked = took("tea", before=pot), took("cup", before=pot), took("star", before=pot)
    assert ranks(baselines, *asked, name=ITEM_ITEM) == [1, 2, 3]


def test_item_item_goes_by_what_was_taken_and_not_by_what_was_only_shown() -> None:
    baselines = know(fresh(), "pot", "pan")
    baselines.learn([took("star")] * 9)
    baselines.learn([took("tea", before=history("pot", refused=("pan",)))])
    assert baselines.lists(history("x", refused=("pot",)), 1)[ITEM_ITEM] == ["star"]
    assert baselines.lists(history("pan"), 1)[ITEM_ITEM] == ["star"]


def test_item_item_forgets_pairs_as_time_goes() -> None:
    baselines = know(fresh(), "pot", "pan")
    pot = history("pot")
    baselines.learn([took("tea", 0, pot), took("tea", 0, pot), took("cup", 5_000, pot)])
    assert baselines.lists(pot, 2)[ITEM_ITEM] == ["cup", "tea"]
    baselines.learn([took("tea", 2_000_000, pot)])
    assert baselines.lists(pot, 1)[ITEM_ITEM] == ["tea"]


def test_item_item_keeps_the_strongest_partners_when_there_are_too_many() -> None:
    baselines = know(fresh(max_pairs=4), "pot")
    pot = history("pot")
    baselines.learn([took("tea", before=pot)] * 3)
    baselines.learn([took(f"once{at}", before=pot) for at in range(40)])
    assert baselines.lists(pot, 1)[ITEM_ITEM] == ["tea"]


def test_repeat_ranks_what_was_taken_last_first_and_then_the_popular() -> None:
    baselines = fresh()
    baselines.learn([took("star")] * 9 + [took("a"), took("b")])
    user = history("a", "b")
    assert baselines.lists(user, 3)[REPEAT] == ["b", "a", "star"]
    asked = took("b", before=user), took("a", before=user), took("star", before=user)
    assert ranks(baselines, *asked, name=REPEAT) == [1, 2, 3]
    assert ranks(baselines, *asked, name=POPULAR) == [-1, -1, 1]


def test_catalog_of_thousands_is_ranked_to_its_last_item() -> None:
    items = [f"i{at}" for at in range(3_000)]
    baselines = know(fresh(), *items)
    baselines.learn([took("i2999", before=history("i2998"))])
    assert baselines.lists(history("i2998"), 3)[ITEM_ITEM] == ["i2999", "i0", "i1"]
    assert ranks(baselines, took("i2999"), took("i0"), took("i2998")) == [1, 2, 3_000]


# Against the slow twin


def world(seed: int) -> tuple[RetrievalBaselines, list[PositiveAction]]:
    """Thirty items, some taken out, users with short histories; the last batch is unlearned."""
    rng = np.random.default_rng(seed)
    baselines = fresh(half_life_ms=50.0)
    batch: list[PositiveAction] = []
    for step in range(40):
        batch = []
        for _ in range(8):
            had = [f"i{item}" for item in rng.integers(30, size=rng.integers(5))]
            item = f"i{rng.integers(34) if step == 39 else rng.integers(30)}"
            batch.append(took(item, 10 * step, history(*had)))
        if step < 39:
            baselines.learn(batch)
        for item in rng.integers(30, size=2):
            update = ItemUpdate(
                event_id="x", time_ms=0, item_id=f"i{item}", available=bool(rng.random() < 0.6)
            )
            baselines.observe_item(update)
    return baselines, batch


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", BASELINES)
def test_rank_is_the_place_in_the_whole_list(name: str, seed: int) -> None:
    baselines, batch = world(seed)
    for action, rank in zip(batch, ranks(baselines, *batch, name=name), strict=True):
        if not len(action.user.history):
            assert rank == 0
            continue
        everything = baselines.lists(action.user.history, 10_000)[name]
        assert len(everything) == len(set(everything))
        expected = everything.index(action.item_id) + 1 if action.item_id in everything else -1
        assert rank == expected


def plainly(
    actions: Sequence[PositiveAction], asked: PositiveAction, now: int, half_life_ms: int
) -> int:
    """The rank by item-item, from the list of everything that was taken and nothing else."""
    catalog = list(dict.fromkeys(action.item_id for action in actions))
    popular: dict[str, float] = defaultdict(float)
    pairs: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    total: dict[str, float] = defaultdict(float)
    for action in actions:
        weight = 0.5 ** ((now - action.time_ms) / half_life_ms)
        popular[action.item_id] += weight
        for other in dict.fromkeys(reversed(action.user.history.item_ids)):
            if other in catalog and other != action.item_id:
                pairs[other][action.item_id] += weight
                total[other] += weight
    score: dict[str, float] = defaultdict(float)
    for other in dict.fromkeys(reversed(asked.user.history.item_ids)):
        for partner, shared in pairs[other].items():
            score[partner] += shared / total[other]
    ranked = [item for item in catalog if item not in asked.user.history.item_ids]
    ranked.sort(key=lambda item: (item not in score, -score.get(item, 0.0), -popular[item]))
    return ranked.index(asked.item_id) + 1 if asked.item_id in ranked else -1


@pytest.mark.parametrize("seed", range(3))
def test_item_item_ranks_as_the_list_of_all_actions_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Times are whole half-lives, so that weights are powers of two and ties are ties.
    config = RetrievalBaselinesConfig(half_lives_ms=(10.0,), pair_half_life_ms=10.0)
    baselines = RetrievalBaselines(config)
    actions = [took(f"i{item}", 0, history()) for item in range(60)]
    baselines.learn(actions)
    ranked = []
    for step in range(30):
        now = 10 * step
        batch = []
        for _ in range(10):
            had = dict.fromkeys(f"i{item}" for item in rng.integers(60, size=rng.integers(1, 8)))
            batch.append(took(f"i{rng.integers(60)}", now, history(*had)))
        if step % 10 == 9:
            for one, rank in zip(batch, ranks(baselines, *batch, name=ITEM_ITEM), strict=True):
                assert rank == plainly(actions, one, now, 10)
                ranked.append(rank)
        baselines.learn(batch)
        actions += batch
    assert len(set(ranked)) > 10


@pytest.mark.parametrize("name", ["pair_half_life_ms", "num_recent", "max_pairs"])
def test_baseline_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^baseline\.{name} must be positive, got 0"):
        RetrievalBaselinesConfig(**{name: 0})


@pytest.mark.parametrize("half_lives_ms", [(), (1.0, 0.0)])
def test_baseline_half_lives_must_be_positive(half_lives_ms: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^baseline\.half_lives_ms must be positive, got \("):
        RetrievalBaselinesConfig(half_lives_ms=half_lives_ms)
