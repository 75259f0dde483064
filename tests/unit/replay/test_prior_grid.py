"""Tuned counting: every rank of the grid equals that of the formula written out."""

from __future__ import annotations

import numpy as np
import pytest

from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.requests import Candidates, History, UserView
from replay.next_item import NextItemWatch, next_item_in_words
from replay.prior_grid import PriorGrid, PriorGridConfig

MINUTE_MS = 60_000
CONFIG = PriorGridConfig(
    popularity_ms=(20.0 * MINUTE_MS, 200.0 * MINUTE_MS),
    transition_ms=(50.0 * MINUTE_MS, 500.0 * MINUTE_MS),
    weights=(0.25, 2.0),
)


def stream(num: int = 160) -> list[PositiveAction]:
    """Return actions of 7 users on some 25 items."""
    rng = np.random.default_rng(2)
    taken: dict[str, list[tuple[str, int]]] = {}
    actions = []
    for step in range(num):
        user, item, time_ms = f"u{rng.integers(7)}", f"i{rng.zipf(1.4) % 25}", step * MINUTE_MS
        past = taken.setdefault(user, [])[-12:]
        history = History(
            tuple(one for one, _ in past),
            np.array([time for _, time in past], np.int64),
            np.array([step % 3 > 0 or k % 2 for k in range(len(past))], np.int64),
        )
        actions.append(PositiveAction(UserView(user, history), item, time_ms))
        taken[user].append((item, time_ms))
    return actions


class Twin:
    """The formula over the list of all actions, item by item."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.taken: list[tuple[str, int]] = []
        self.followed: list[tuple[str, str, int]] = []

    def score(self, item: str, recent: list[str], now_ms: int, h: float, g: float, w: float):
        def mass(times: list[int], half_life_ms: float) -> float:
            return sum(0.5 ** ((now_ms - time) / half_life_ms) for time in times)

        everything = mass([time for _, time in self.taken], h)
        score = mass([time for one, time in self.taken if one == item], h) / (everything or 1.0)
        for k, last in enumerate(recent):
            after = [(to, time) for source, to, time in self.followed if source == last]
            own = mass([time for to, time in after if to == item], g)
            total = mass([time for _, time in after], g) + 0.3
            score += w * 0.5**k * own / total
        return score

    def rank(self, action: PositiveAction, h: float, g: float, w: float, gone: set[str]) -> int:
        history = action.user.history
        if not len(history):
            return 0
        used = set(history.item_ids)
        if action.item_id not in self.items or action.item_id in used | gone:
            return -1
        recent = self.recent(history)
        scores = {
            item: self.score(item, recent, action.time_ms, h, g, w)
            for item in self.items
            if item not in used | gone
        }
        own = scores[action.item_id]
        place = self.items.index(action.item_id)
        # The twin sums in another order: scores as near as this are one and the same.
        ahead = [
            item
            for item, score in scores.items()
            if score > own + 1e-12 or (abs(score - own) <= 1e-12 and self.items.index(item) < place)
        ]
        return 1 + len(ahead)

    def recent(self, history: History) -> list[str]:
        positive = [
            item
            for item, outcome in zip(history.item_ids, history.outcomes.tolist(), strict=True)
            if outcome & 1 and item in self.items
        ]
        return list(dict.fromkeys(reversed(positive)))[:3]

    def learn(self, action: PositiveAction) -> None:
        for last in self.recent(action.user.history)[:1]:
            self.followed.append((last, action.item_id, action.time_ms))
        self.taken.append((action.item_id, action.time_ms))
        if action.item_id not in self.items:
            self.items.append(action.item_id)


def test_every_rank_of_the_grid_is_that_of_the_formula() -> None:
    grid, twin, gone = PriorGrid(CONFIG), Twin(), {"i3"}
    actions = stream()
    points = np.full((len(actions), 2, 2, 2), 99)
    popular = np.full((len(actions), 2), 99)
    for at, action in enumerate(actions):
        if at == 80:
            update = ItemUpdate(event_id="", time_ms=0, item_id="i3", available=False)
            grid.observe_item(update)
        now_gone = gone if at >= 80 else set()
        grid.rank([action])
        for h, half_life_ms in enumerate(CONFIG.popularity_ms):
            popular[at, h] = twin.rank(action, half_life_ms, 1.0, 0.0, now_gone)
            for g, w in np.ndindex(2, 2):
                points[at, h, g, w] = twin.rank(
                    action, half_life_ms, CONFIG.transition_ms[g], CONFIG.weights[w], now_gone
                )
        grid.learn([action])
        twin.learn(action)
    found_popular, found = grid._since(0)
    np.testing.assert_array_equal(found_popular, popular)
    np.testing.assert_array_equal(found, points)
    assert {0, -1} < set(points.ravel().tolist())
    table = grid.table(first=0)
    best = table["best"]["transitions"]
    assert best["recall@20"] == max(row["recall@20"] for row in table["transitions"])
    asked = grid.best_ranks(0)[points[:, 0, 0, 0] != 0]
    assert np.mean((asked > 0) & (asked <= 20)) == pytest.approx(best["recall@20"])


class Walker:
    """A retriever that finds an item in every other search."""

    def retrieve(self, request) -> Candidates:
        found = tuple(f"i{k}" for k in range(25)) if request.time_ms // MINUTE_MS % 8 == 3 else ()
        return Candidates(found, np.zeros(len(found), np.float32))


def test_report_tells_slices_apart_and_what_the_index_missed() -> None:
    watch = NextItemWatch(PriorGrid(CONFIG))
    actions = stream()
    for at, action in enumerate(actions):
        rank = 5 if len(action.user.history) else 0
        watch.rank([action], np.array([rank]), Walker(), counts=at >= 40)  # type: ignore[arg-type]
        watch.learn([action])
    report = watch.report()
    assert report["all"]["predictions"] == 120
    assert report["all"]["online"] == {"recall@20": 1.0, "mrr": pytest.approx(0.2)}
    by_activity = report["by_activity"]
    assert sum(one["predictions"] for one in by_activity.values()) == 120
    assert by_activity["30 and more"]["online"]["recall@20"] is None
    assert sum(one["predictions"] for one in report["by_item_age"].values()) == 120
    new = report["by_item_age"]["never seen before"]
    assert new["predictions"] > 0
    assert new["counted"] == {"recall@20": 0.0, "mrr": 0.0}
    assert report["index"] == {"lists": 30, "recall@20": 0.5, "exact_recall@20": 1.0}
    sentences = next_item_in_words(report)
    assert sentences[0].startswith("popularity, best of 2 settings: recall@20 0.")
    assert sentences[1].startswith("popularity + transitions, best of 8 settings: ")
    assert "by exact rank 1.0000" in sentences[2]
