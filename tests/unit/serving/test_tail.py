from __future__ import annotations

import logging
import threading
import time

import pytest

from domain.errors import ConfigError, LogPositionError, LogUnavailableError
from domain.events import Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from domain.requests import RetrievalRequest
from serving.apply_events import apply_records
from serving.live_models import LiveModelSlot
from serving.stages import find_candidates, read_asker
from serving.tail import LogTail, TailConfig, catch_up
from stream.feature_store import FeatureStore
from stream.sqlite_log import PARTITION, SqliteLog
from tests.unit.serving.worlds import (
    CLOCK,
    SCHEMA,
    Broken,
    CatalogRetriever,
    make_models,
    serving_metrics,
)


@pytest.fixture
def log(tmp_path):
    with_file = SqliteLog(tmp_path / "log.sqlite")
    yield with_file
    with_file.close()


@pytest.fixture
def tail(log):
    made = LogTail(
        log, LiveModelSlot(), CLOCK, TailConfig(poll_timeout_ms=5, retry_ms=5), serving_metrics()
    )
    yield made
    made.stop()


def click(number: int, user_id: str = "ann") -> Feedback:
    return Feedback(
        event_id=f"c{number}",
        time_ms=1_000 + number,
        user_id=user_id,
        item_id="i1",
        kind="click",
    )


def seen(models, user_id: str = "ann") -> frozenset[str]:
    return models.feature_store.seen(user_id)


def read_all(log):
    return log.read({}, max_records=1_000, timeout_s=0.0)


def until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def test_apply_records_brings_histories_features_and_catalog_up_to_date(log):
    models = make_models()
    log.append(
        [
            click(1),
            UserUpdate(event_id="u", time_ms=5_000, user_id="bob", features={"age": 3.0}),
            ItemUpdate(event_id="n", time_ms=2, item_id="new", features={"tags": ("a",)}),
            ItemUpdate(event_id="o", time_ms=3, item_id="i0", available=False),
            Impression(
                event_id="s",
                time_ms=4,
                user_id="cem",
                items=(ShownItem(item_id="i2", position=0),),
            ),
        ]
    )
    applied = apply_records(models, read_all(log))
    assert (applied.records, applied.skipped, applied.newest_ms) == (5, 0, 5_000)
    assert applied.last_users == ("ann", "bob", "cem")
    assert seen(models) == {"i1"}
    assert models.feature_store.user_view("bob", 9_999).features == {"age": 3.0}
    assert models.feature_store.item_features("new") == {"tags": ("a",)}
    assert models.retriever.item_ids[0] == "i1"
    assert models.retriever.item_ids[-1] == "new"


def test_apply_records_skips_and_counts_what_is_no_event_or_does_not_fit(log):
    models = make_models()
    log.append_raw([("ann", b"\xff\xff"), ("ann", b"{}")])
    log.append([UserUpdate(event_id="u", time_ms=1, user_id="ann", features={"shoe": 3.0})])
    log.append([click(1)])
    applied = apply_records(models, read_all(log))
    assert (applied.records, applied.skipped) == (4, 3)
    assert seen(models) == {"i1"}


def test_apply_records_goes_on_when_a_record_breaks_the_models(log, caplog):
    models = make_models(retriever=Broken(CatalogRetriever(), "observe_item"))
    log.append([ItemUpdate(event_id="n", time_ms=2, item_id="new"), click(1)])
    assert apply_records(models, read_all(log)).skipped == 1
    assert seen(models) == {"i1"}
    assert 'event="record failed" where=events/0@0' in caplog.text


def test_apply_records_gives_a_repeated_event_no_second_effect(log):
    models = make_models()
    there = ItemUpdate(event_id="a", time_ms=1, item_id="i5")
    gone = ItemUpdate(event_id="b", time_ms=2, item_id="i5", available=False)
    log.append([there, gone, there])
    apply_records(models, read_all(log))
    assert "i5" not in models.retriever.item_ids


def test_catch_up_stops_at_the_target_and_tells_who_was_met(log):
    models = make_models()
    log.append([click(number, f"u{number}") for number in range(20)])
    reached = catch_up(models, {PARTITION: 5}, {PARTITION: 9}, log, max_records=2)
    assert reached.positions == {PARTITION: 9}
    assert reached.users == ("u7", "u8")
    met = [number for number in range(20) if seen(models, f"u{number}")]
    assert met == [5, 6, 7, 8]


def test_catch_up_ends_when_the_log_has_less_than_the_target():
    class Compacted:
        """Its last offsets belong to records that are gone."""

        def read(self, positions, *, max_records, timeout_s):
            return []

    reached = catch_up(make_models(), {"t/0": 1}, {"t/0": 3}, Compacted(), max_records=2)
    assert reached.positions == {"t/0": 1}


def test_tail_does_nothing_before_the_first_take_over(log, tail):
    log.append([click(1)])
    assert tail.follow_once() == 0
    assert not tail.caught_up


def test_tail_follows_from_where_the_bundle_stands(log, tail):
    log.append([click(1, "old")])
    models = make_models()
    tail.take_over(models, {PARTITION: 1}, log)
    log.append([click(2)])
    assert tail.follow_once() == 1
    assert (seen(models, "old"), seen(models, "ann")) == (frozenset(), {"i1"})
    assert tail.positions == {PARTITION: 2}
    assert tail.follow_once() == 0
    assert tail.caught_up


def test_tail_closes_the_gap_when_a_new_bundle_takes_over(log, tail):
    first, second = make_models("s1"), make_models("s2")
    tail.take_over(first, {}, log)
    log.append([click(number, f"u{number}") for number in range(5)])
    tail.follow_once()
    tail.take_over(second, {PARTITION: 2}, log)
    assert tail._slot.current() is second
    assert [bool(seen(second, f"u{number}")) for number in range(5)] == [False] * 2 + [True] * 3
    assert tail.positions == {PARTITION: 5}


def test_tail_goes_on_behind_a_bundle_that_is_ahead_of_it(log, tail):
    tail.take_over(make_models("s1"), {}, log)
    log.append([click(number) for number in range(4)])
    ahead = make_models("s2")
    tail.take_over(ahead, {PARTITION: 3}, log)
    assert tail.follow_once() == 1
    assert tail.positions == {PARTITION: 4}


def test_tail_drops_records_read_for_a_bundle_that_was_replaced_meanwhile(log, tail):
    class Interrupted:
        """A log during whose read the watcher takes a new bundle over."""

        def read(self, positions, **bounds):
            records = log.read(positions, **bounds)
            tail._log = log
            tail.take_over(second, {}, log)
            return records

    first, second = make_models("s1"), make_models("s2")
    log.append([click(1)])
    tail.take_over(first, {}, log)
    tail._log = Interrupted()
    tail.follow_once()
    assert seen(first) == frozenset()
    assert tail.positions == {}
    tail.follow_once()
    assert seen(second) == {"i1"}


def test_tail_shows_a_users_own_action_within_a_moment(log, tail):
    models = make_models()
    tail.take_over(models, {}, log)
    tail.start()
    started = time.monotonic()
    log.append([click(1)])
    until(lambda: seen(models))
    assert time.monotonic() - started < 1.0  # usually 0.02


def test_tail_survives_a_log_that_cannot_be_read_for_a_while(log, tail, caplog):
    class Flaky:
        def __init__(self) -> None:
            self.errors = [LogUnavailableError("no broker answers"), RuntimeError("client bug")]

        def __getattr__(self, name):
            return getattr(log, name)

        def read(self, positions, **bounds):
            if self.errors:
                raise self.errors.pop(0)
            return log.read(positions, **bounds)

    models = make_models()
    tail._log = Flaky()
    tail.take_over(models, {}, log)
    tail.start()
    log.append([click(1)])
    until(lambda: seen(models))
    assert 'event="tail cannot read" error="no broker answers"' in caplog.text
    assert 'event="tail failed"' in caplog.text


def test_tail_goes_on_at_the_beginning_when_the_log_dropped_records_it_had_not_read(
    log, tail, caplog
):
    log.append([click(number, f"u{number}") for number in range(6)])
    log.drop_before(4)
    models = make_models()
    tail.take_over(models, {PARTITION: 1}, OnlyEmptyReads())
    tail.start()
    until(lambda: seen(models, "u5"))
    assert tail.skipped_records == 3
    assert 'event="tail lost records" records=3' in caplog.text


def test_tail_waits_for_a_new_bundle_when_its_position_is_past_the_end(log, tail, caplog):
    tail.take_over(make_models(), {PARTITION: 99}, log)
    with pytest.raises(LogPositionError):
        tail.follow_once()
    tail.start()
    until(lambda: 'event="tail lost records" records=0' in caplog.text)
    fresh = make_models("s2")
    log.append([click(1)])
    with tail._lock:
        tail._positions = {}
    tail.take_over(fresh, {}, log)
    until(lambda: seen(fresh))


def test_tail_reports_lag_and_model_age(log):
    metrics = serving_metrics()
    slot = LiveModelSlot()
    tail = LogTail(log, slot, CLOCK, TailConfig(max_records=1, report_ms=1), metrics)
    now_ms = CLOCK.now_ms()
    tail.take_over(make_models(event_time_ms=now_ms - 7_000), {}, log)
    for number in range(2):
        log.append([UserUpdate(event_id=f"e{number}", time_ms=now_ms - 3_000, user_id="ann")])
    tail.follow_once()
    tail._report()
    assert metrics.tail_lag_seconds._value.get() == pytest.approx(3.0, abs=0.5)
    assert metrics.model_age_seconds._value.get() == pytest.approx(7.0, abs=0.5)
    tail.follow_once()
    tail.follow_once()  # finds nothing: caught up
    time.sleep(0.002)
    tail._report()
    assert metrics.tail_lag_seconds._value.get() == 0.0


def test_requests_read_whole_events_while_the_tail_writes(log, tail):
    """A reader sees an item's features and its place in the catalog change together."""

    class Paired(CatalogRetriever):
        def observe_item(self, update):
            time.sleep(0.0005)
            super().observe_item(update)

    models = make_models(retriever=Paired(()), feature_store=FeatureStore(SCHEMA))
    names = [f"n{number}" for number in range(50)]
    log.append(
        [
            ItemUpdate(event_id=name, time_ms=1, item_id=name, features={"tags": (name,)})
            for name in names
        ]
    )
    torn, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            with models.lock.read():
                in_catalog = len(models.retriever.item_ids)
                with_features = sum(bool(models.feature_store.item_features(n)) for n in names)
            torn.append(in_catalog != with_features)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    apply_records(models, read_all(log))
    stop.set()
    for reader in readers:
        reader.join(5)
    assert len(models.retriever.item_ids) == 50
    assert torn
    assert not any(torn)


def test_the_first_search_after_an_item_was_observed_runs_alone(log):
    """A retriever that takes items in when it is searched, as an index does."""

    class Lazy(CatalogRetriever):
        def __init__(self) -> None:
            super().__init__()
            self.waiting, self.crowded, self.taken_in = [], False, 0
            self.searching = CountedSearches()

        def observe_item(self, update):
            self.crowded |= self.searching.running > 0
            self.waiting.append(update.item_id)

        def retrieve(self, request):
            with self.searching:
                if self.waiting:
                    self.crowded |= self.searching.running > 1
                    time.sleep(0.001)
                    self.taken_in += len(self.waiting)
                    self.waiting.clear()
                    self.crowded |= self.searching.running > 1
                return super().retrieve(request)

    retriever = Lazy()
    models = make_models(retriever=retriever)
    stop = threading.Event()

    def search() -> None:
        request = RetrievalRequest(user=read_asker(models, "ann", 1).view, time_ms=1, limit=3)
        while not stop.is_set():
            assert find_candidates(models, request).item_ids == ("i0", "i1", "i2")

    searchers = [threading.Thread(target=search) for _ in range(3)]
    for searcher in searchers:
        searcher.start()
    for number in range(40):
        log.append([ItemUpdate(event_id=f"e{number}", time_ms=1, item_id=f"n{number}")])
        apply_records(models, read_all(log)[-1:])
        time.sleep(0.001)
    until(lambda: retriever.taken_in == 40)
    stop.set()
    for searcher in searchers:
        searcher.join(5)
    assert not retriever.crowded


class CountedSearches:
    """How many threads are inside."""

    def __init__(self) -> None:
        self.running = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.running += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.running -= 1


class OnlyEmptyReads:
    """What a caller that is already caught up reads."""

    def read(self, positions, **bounds):
        return []


@pytest.mark.parametrize("name", ["max_records", "poll_timeout_ms", "retry_ms", "report_ms"])
def test_tail_config_names_the_key_that_is_out_of_range(name):
    with pytest.raises(ConfigError, match=f"^tail.{name} must be at least 1, got 0"):
        TailConfig(**{name: 0})


@pytest.fixture(autouse=True)
def _info(caplog):
    caplog.set_level(logging.INFO)
