"""The keeper of the index: what it measures, when it tunes, and when it has lists made anew."""

from __future__ import annotations

import itertools
import threading

import pytest

from domain.clock import ManualClock, SystemClock
from domain.errors import ConfigError
from monitoring.metrics import Metrics
from serving.index_keeper import IndexKeeper, IndexKeeperConfig
from serving.live_models import LiveModelSlot
from tests.unit.serving.worlds import make_models


class StaircaseIndex:
    """Finds one hundredth of the answer per list searched, `worth` times over."""

    def __init__(self, probes: int = 40, num_lists: int = 200, worth: float = 1.0) -> None:
        self.probes = probes
        self.num_lists = num_lists
        self.worth = worth
        self.is_worn = False
        self.every = 0
        self.waiting = 0
        self.retrained = 0
        self.after_retraining = worth
        self.swaps = True

    def keep_queries(self, every: int) -> None:
        self.every = every

    def take_question(self) -> object | None:
        if not self.waiting:
            return None
        self.waiting -= 1
        return object()

    def recalls(self, question, probes) -> list[float]:
        return [min(1.0, one * self.worth / 100) for one in probes]

    def set_probes(self, probes: int) -> None:
        self.probes = probes

    def retrain(self) -> bool:
        self.retrained += 1
        self.worth = self.after_retraining
        self.is_worn = False
        return self.swaps


class World:
    """A keeper, the bundles that were live, and the index of each."""

    def __init__(self, **settings) -> None:
        self.slot = LiveModelSlot()
        self.metrics = Metrics()
        self.indexes: dict[int, StaircaseIndex] = {}
        config = IndexKeeperConfig(window=10, core_share=1.0, **settings)
        self.keeper = IndexKeeper(
            self.slot,
            lambda models: self.indexes[id(models)],
            ManualClock(),
            config,
            self.metrics.retrieval.index,
        )

    def go_live(self, index: StaircaseIndex) -> StaircaseIndex:
        models = make_models("s")
        self.indexes[id(models)] = index
        self.slot.swap(models)
        return index

    def ask(self, index: StaircaseIndex, num: int) -> None:
        index.waiting += num
        while self.keeper.look_once():
            pass

    def value(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headrace_retrieval_index_{name}")


def test_nothing_is_done_or_shown_before_models_are_live() -> None:
    world = World()
    assert world.keeper.look_once() is False
    assert world.value("recall_ratio") is None


def test_a_share_of_queries_is_kept_and_their_mean_recall_shown() -> None:
    world = World(probe_share=0.02)
    index = world.go_live(StaircaseIndex(probes=90))
    world.ask(index, 4)
    assert index.every == 50
    assert world.value("recall_ratio") == pytest.approx(0.9)
    assert world.value("asked_again_total") == 4
    assert world.value("probed_lists") == 90
    index.worth = 0.5
    world.ask(index, 4)
    assert world.value("recall_ratio") == pytest.approx((4 * 0.9 + 4 * 0.45) / 8)


def test_lists_searched_grow_until_the_target_is_held() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=10))
    world.ask(index, 9)
    assert index.probes == 10  # the window is not full
    world.ask(index, 1)
    assert index.probes == 40
    world.ask(index, 10)
    assert index.probes == 160  # 56 and 80 find too little
    assert world.value("probed_lists") == 160
    world.ask(index, 20)
    assert (index.probes, index.retrained) == (112, 0)  # 80 never held it: nothing is worn


def test_lists_searched_shrink_to_the_fewest_that_hold_the_target() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=190))
    world.ask(index, 10)
    assert index.probes == 133  # half of 190 is 95, which holds it too barely
    world.ask(index, 10)
    assert index.probes == 133  # 93 does not hold it
    world.ask(index, 50)
    assert (index.probes, index.retrained) == (133, 0)


def test_no_more_lists_are_searched_than_there_are() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=30, num_lists=50))
    world.ask(index, 10)
    assert index.probes == 50


def test_complete_index_is_measured_and_left_alone() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=0, num_lists=0))
    index.is_worn = True
    world.ask(index, 30)
    assert (index.retrained, index.probes) == (0, 0)
    assert world.value("probed_lists") == 0


def test_worn_lists_are_made_anew_once() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=95))
    index.is_worn = True
    world.ask(index, 30)
    assert index.retrained == 1
    assert world.value("retrainings_total") == 1


def test_lists_are_made_anew_when_holding_the_target_takes_twice_as_many() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=100))
    world.ask(index, 10)
    assert index.probes == 100
    index.worth, index.after_retraining = 0.6, 1.0
    world.ask(index, 10)
    assert (index.probes, index.retrained) == (200, 1)
    assert world.value("recall_ratio") == pytest.approx(0.6)  # with 100, before it was tuned
    world.ask(index, 20)
    assert (index.probes, index.retrained) == (100, 1)


def test_new_lists_that_are_no_better_are_not_made_again_and_again() -> None:
    world = World()
    index = world.go_live(StaircaseIndex(probes=100))
    world.ask(index, 10)
    index.worth = index.after_retraining = 0.5
    world.ask(index, 100)
    assert (index.probes, index.retrained) == (200, 1)


def test_lists_that_were_not_swapped_in_do_not_count() -> None:
    world = World()
    index = world.go_live(StaircaseIndex())
    index.is_worn, index.swaps = True, False
    world.ask(index, 10)
    assert index.retrained == 1
    assert world.value("retrainings_total") == 0


def test_new_bundle_starts_a_new_window_and_searches_as_many_lists_as_the_last() -> None:
    world = World()
    first = world.go_live(StaircaseIndex(probes=50))
    world.ask(first, 19)
    assert first.probes == 100
    second = world.go_live(StaircaseIndex(probes=30, worth=0.99))
    first.waiting = 1
    world.ask(second, 9)
    assert second.probes == 100
    assert world.value("recall_ratio") == pytest.approx(0.99)
    assert first.waiting == 1
    assert second.every == 100


def test_keeper_rests_after_its_work() -> None:
    # A twentieth of a core: work of 10 ms is followed by 190 ms of rest.
    slot, clock, metrics = LiveModelSlot(), ManualClock(), Metrics()
    index = StaircaseIndex(probes=95)

    class Slow(StaircaseIndex):
        def recalls(self, question, probes) -> list[float]:
            clock.sleep(0.01)
            return super().recalls(question, probes)

    index = Slow(probes=95)
    config = IndexKeeperConfig(core_share=0.05)
    keeper = IndexKeeper(slot, lambda _: index, clock, config, metrics.retrieval.index)
    rests: list[float] = []
    keeper._stopping.wait = rests.append  # type: ignore[assignment, method-assign]
    slot.swap(make_models("s"))
    index.waiting = 1
    keeper.look_once()
    assert rests == [pytest.approx(0.19)]


def test_thread_goes_on_after_a_failure_and_stops_when_told(caplog) -> None:
    slot, metrics = LiveModelSlot(), Metrics()
    failures = itertools.count()
    answered = threading.Event()

    class Failing(StaircaseIndex):
        def recalls(self, question, probes) -> list[float]:
            if next(failures) == 0:
                raise RuntimeError("broken once")
            answered.set()
            return super().recalls(question, probes)

    index = Failing(probes=95)
    index.waiting = 2
    config = IndexKeeperConfig(poll_ms=1)
    keeper = IndexKeeper(slot, lambda _: index, SystemClock(), config, metrics.retrieval.index)
    slot.swap(make_models("s"))
    keeper.start()
    assert answered.wait(20)
    keeper.stop()
    assert "index keeper failed" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe_share": 0.0}, "index_keeper.probe_share must be above 0 and at most 1, got 0.0"),
        ({"target_recall": 1.5}, "index_keeper.target_recall must be above 0"),
        ({"window": 0}, "index_keeper.window must be at least 1, got 0"),
    ],
)
def test_config_names_the_key_that_is_wrong(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IndexKeeperConfig(**settings)
