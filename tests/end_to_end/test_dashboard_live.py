"""The dashboard beside a running Headrace: it follows what happens, without being loaded again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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
