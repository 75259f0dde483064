"""Exploration: who is drawn, where, and that the logged chances are the true ones."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from domain.errors import ConfigError
from serving.exploration import ExplorationConfig, Explorer

BEST = ("a", "b", "c", "d", "e")
SHOWN = {"x": 0, "y": 3, "z": 8, "b": 1}


def explorer(**config) -> Explorer:
    return Explorer(ExplorationConfig(**config))


def test_nothing_is_given_away_when_nothing_is_to_be_explored() -> None:
    for one, among in (
        (explorer(), SHOWN),
        (explorer(share=1.0), {}),
        (explorer(share=1.0), {"a": 0}),
    ):
        mix = one.mix(BEST, among)
        assert (mix.item_ids, set(mix.probabilities), mix.explored) == (BEST, {1.0}, 0)
    assert explorer().num_choices(10) == 0
    assert explorer(share=0.1, first_position=2, choices=3).num_choices(10) == 24
    assert explorer(share=0.1, first_position=2).num_choices(1) == 0


def test_what_is_not_given_away_keeps_its_order_and_first_places_stay() -> None:
    one = explorer(share=0.5, first_position=1)
    for _ in range(200):
        mix = one.mix(BEST, SHOWN)
        kept = [item for item in mix.item_ids if item in BEST]
        assert kept == list(BEST[: len(kept)])
        assert mix.item_ids[0] == "a"
        assert len(set(mix.item_ids)) == len(BEST)
        assert mix.explored == len(BEST) - len(kept)


@pytest.mark.parametrize(
    "config",
    [
        {"share": 0.3, "first_position": 1},
        {"share": 0.7, "first_position": 0},
        {"share": 1.0, "first_position": 3},
    ],
)
def test_logged_chances_are_the_frequencies(config) -> None:
    one, rounds = explorer(**config, seed=7), 20_000
    times: Counter[tuple[int, str]] = Counter()
    logged: dict[tuple[int, str], float] = {}
    explored = 0
    for _ in range(rounds):
        mix = one.mix(BEST, SHOWN)
        explored += mix.explored
        for place, chance in zip(enumerate(mix.item_ids), mix.probabilities, strict=True):
            times[place] += 1
            # The chance of an item in a place is one number, whatever else was drawn.
            assert logged.setdefault(place, chance) == chance
    for place, chance in logged.items():
        # Six standard errors: with some twenty places one false alarm in ten million runs.
        margin = 6 * math.sqrt(chance * (1 - chance) / rounds) + 1e-9
        assert abs(times[place] / rounds - chance) < margin, place
    for position in range(len(BEST)):
        total = sum(chance for (at, _), chance in logged.items() if at == position)
        assert total == pytest.approx(1.0, abs=0.01)
    num_open = min(len(BEST) - config["first_position"], 3)
    assert explored / rounds == pytest.approx(config["share"] * num_open, rel=0.05)


def test_chances_are_those_of_all_draws_written_out() -> None:
    # Two places, 1 and 2, one choice each: four outcomes, which anyone can list.
    one, share = explorer(share=0.25, first_position=1), 0.25
    expected: dict[tuple[str, ...], float] = {}
    for given in itertools.product([False, True], repeat=2):
        kept = iter(("b", "c"))
        items = ("a", *(("x", "y")[k] if given[k] else next(kept) for k in range(2)))
        expected[items] = math.prod(share if gives else 1 - share for gives in given)
    at_place: Counter[tuple[int, str]] = Counter()
    for items, chance in expected.items():
        for place in enumerate(items):
            at_place[place] += chance
    seen = set()
    for _ in range(500):
        mix = one.mix(("a", "b", "c"), {"x": 0, "y": 0})
        seen.add(mix.item_ids)
        for place, chance in zip(enumerate(mix.item_ids), mix.probabilities, strict=True):
            assert chance == pytest.approx(at_place[place])
    assert seen == set(expected)


def test_items_shown_less_are_drawn_more_often() -> None:
    one = explorer(share=1.0, first_position=0, seed=1)
    drawn = Counter(one.mix(("a",), {"new": 0, "shown": 8}).item_ids[0] for _ in range(6_000))
    assert drawn["new"] / drawn["shown"] == pytest.approx(3.0, rel=0.15)


def test_same_seed_draws_the_same_and_another_seed_something_else() -> None:
    def draws(seed: int) -> list[tuple[str, ...]]:
        one = explorer(share=0.5, seed=seed)
        return [one.mix(BEST, SHOWN).item_ids for _ in range(50)]

    assert draws(3) == draws(3) != draws(4)


def test_many_threads_draw_what_one_draws_in_some_order() -> None:
    one, other = explorer(share=0.5), explorer(share=0.5)
    alone = Counter(one.mix(BEST, SHOWN).item_ids for _ in range(400))
    with ThreadPoolExecutor(8) as pool:
        together = Counter(pool.map(lambda _: other.mix(BEST, SHOWN).item_ids, range(400)))
    assert alone == together


@pytest.mark.parametrize(
    "wrong", [{"share": 1.1}, {"first_position": -1}, {"choices": 0}, {"seed": -1}]
)
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^recommender.exploration.{name} must be"):
        ExplorationConfig(**wrong)  # type: ignore[arg-type]
