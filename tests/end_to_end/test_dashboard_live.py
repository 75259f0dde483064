"""The dashboard beside a running Headrace: it follows what happens, without being loaded again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from domain.events import Event, Impression, ItemUpdate
from monitoring.dashboard.words import number
from tests.browser import Browser, browser
from tests.live_headrace import LiveHeadrace, live_headrace, world
from tests.process_helpers import headrace, wait_until


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard as a process of its own, over the folder of the running Headrace."""
    live = live_headrace()
    words = ["dashboard", "--data-dir", str(live.data_dir), "--port", "0", *live.config]
    output = tmp_path_factory.mktemp("dashboard") / "said.log"
    with headrace(*words, "--set", "dashboard.refresh_s=0.5", output=output) as running:
        wait_until(lambda: "on http://" in running.said, 90.0, "the dashboard says where it is")
        (found,) = re.findall(r"on (http://127\.0\.0\.1:\d+/)", running.said)
        yield found
        running.process.terminate()
        assert running.wait() == 0, running.said
        assert "Traceback" not in running.said


@pytest.fixture(scope="module")
def chromium(address: str) -> Iterator[Browser]:
    with browser() as own:
        own.open(address)
        yield own


def number_of(chromium: Browser, part: str) -> int:
    """The number that a row of the overview's table begins with; 0 when it says none."""
    text = chromium.row(part)[2]
    found = re.match(r"[\d,]+", text)
    return int(found[0].replace(",", "")) if found else 0


def until(chromium: Browser, condition: object, what: str) -> None:
    """Wait for what the page shows, leaving the browser its turn."""
    assert callable(condition)
    wait_until(lambda: chromium.tab.wait_for_timeout(50) or condition(), 60.0, what)


def test_overview_follows_events_without_losing_the_readers_place(chromium: Browser) -> None:
    live = live_headrace()
    assert chromium.row("Trainer")[1] == "ok"
    until(chromium, lambda: number_of(chromium, "Events") > 0, "events are counted")
    focus = "document.querySelector('.scroll').focus()"
    chromium.tab.evaluate(focus)
    before = number_of(chromium, "Events")
    more = world()[len(world()) // 2 :][:60]
    live.publish(more)
    until(chromium, lambda: number_of(chromium, "Events") >= before + len(more), "they are seen")
    assert chromium.tab.evaluate("document.activeElement.className") == "scroll"
    chromium.picture("live-overview")
    assert chromium.complaints == []
    assert chromium.asked == {"127.0.0.1"}


def test_numbers_are_those_of_the_trainers_own_page(chromium: Browser) -> None:
    live = live_headrace()
    chromium.follow("Quality")

    def agrees(live: LiveHeadrace) -> bool:
        now = live.metric(
            live.trainer_port,
            "headrace_monitoring_normalized_entropy_ratio",
            head="click",
            scope="progressive",
            variant="online",
        )
        return chromium.row("click")[:4] == ["click", "online", "whole run", number(now)]

    until(chromium, lambda: agrees(live), "both pages say the same")
    chromium.picture("live-quality")


def with_category(category: str | None, time_ms: int) -> list[Event]:
    """All items again, in one category; in their own when it is None."""
    items = [event for event in world() if isinstance(event, ItemUpdate)]
    return [
        replace(
            item,
            event_id=f"{item.event_id}-{category}",
            time_ms=time_ms,
            features=item.features if category is None else {**item.features, "category": category},
        )
        for item in items
    ]


def test_a_broken_field_is_named_within_forty_lists_and_ends_with_the_break(
    chromium: Browser,
) -> None:
    live = live_headrace()
    chromium.follow("Drift")
    rest = world()[len(world()) // 2 + 60 :]
    lists = [number for number, event in enumerate(rest) if isinstance(event, Impression)]
    broken, mended = rest[: lists[40]], rest[lists[40] :]

    def live_signals() -> list[str]:
        """Sizes of the live signals of the field; windows this small also give smaller ones."""
        rows = chromium.tab.locator("tr", has_text="field/item.category rose")
        return rows.filter(has_text="live").locator(".badge.large").all_inner_texts()

    assert live_signals() == []
    live.publish([*with_category("broken", broken[0].time_ms), *broken])
    until(chromium, lambda: live_signals() == ["large"], "the signal is on the page")
    chromium.picture("live-drift")

    live.publish([*with_category(None, mended[0].time_ms), *mended])
    until(chromium, lambda: live_signals() == [], "the signal has ended")
    assert chromium.complaints == []


def test_snapshots_on_the_page_are_those_on_the_disk(chromium: Browser) -> None:
    live = live_headrace()
    chromium.follow("Snapshots")

    def ids_on_the_page() -> list[str]:
        return chromium.tab.locator("tbody code").all_inner_texts()

    def ids_on_the_disk() -> list[str]:
        folder = Path(live.data_dir) / "snapshots"
        return sorted((path.name for path in folder.glob("0*")), reverse=True)

    until(chromium, lambda: ids_on_the_page() == ids_on_the_disk(), "the same snapshots")
    assert len(ids_on_the_page()) > 1
    chromium.picture("live-snapshots")
    assert chromium.complaints == []
