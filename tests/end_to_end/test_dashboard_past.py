"""The dashboard over the records of a run that has ended, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dashboard_process import serving
from monitoring.dashboard.config import DashboardConfig
from monitoring.dashboard.web import PAGES
from snapshot.local_store import LocalSnapshotStore
from tests.browser import Browser, browser
from tests.dashboard_worlds import ENDED, LIVE, past_run, records_in
from tests.process_helpers import wait_until

CONFIG = DashboardConfig(port=0, refresh_s=0.5)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as own:
        yield own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return past_run(tmp_path_factory.mktemp("past") / "data")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(records_in(folder), CONFIG) as address:
        yield address


def test_every_page_opens_draws_and_asks_nobody_else(chromium: Browser, address: str) -> None:
    chromium.open(address)
    for page in PAGES:
        chromium.follow(page.title)
        assert not chromium.text().startswith("This cannot be shown")
        for plot in chromium.tab.locator(".js-plotly-plot").all():
            plot.locator(".main-svg").first.wait_for()
        chromium.picture(f"past-{page.path.strip('/') or 'overview'}")
    chromium.tab.wait_for_function("document.title === 'Replay reports - Headrace'")
    assert chromium.complaints == []
    assert chromium.asked == {"127.0.0.1"}


def test_numbers_match_the_records(chromium: Browser, address: str) -> None:
    chromium.open(address)
    assert chromium.row("Normalized entropy, click") == [
        "Normalized entropy, click", "0.9", "0.8", "+12.5 %",
    ]  # fmt: skip
    assert chromium.row("Trainer")[1:3] == ["look", "was stopped at 2027-01-15 08:00:00 UTC"]
    assert LIVE.describe() in chromium.text()
    chromium.follow("Quality")
    assert chromium.row("click")[:5] == ["click", "online", "last examples", "0.95", "0.7"]
    chromium.follow("Drift")
    assert chromium.row(LIVE.describe())[1:3] == ["large", "covariate"]
    assert chromium.row(ENDED.describe())[4] == "2027-01-15 07:00:00"


def test_a_field_is_chosen_by_link_and_by_map(chromium: Browser, address: str) -> None:
    chromium.open(f"{address}drift")
    tab = chromium.tab
    tab.get_by_role("heading", name="Distribution of item.category").wait_for()
    tab.get_by_role("link", name="user.country").click()
    tab.get_by_role("heading", name="Distribution of user.country").wait_for()
    assert "field=user.country" in tab.url
    box = tab.locator("#field-map .nsewdrag").first.bounding_box()
    assert box is not None
    # Twice, as a person does: the first move makes plotly notice what is below the pointer.
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8)
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 12)
    tab.get_by_role("heading", name="Distribution of item.category").wait_for()


def test_the_keyboard_is_enough_and_focus_stays(chromium: Browser, address: str) -> None:
    chromium.open(address)
    tab = chromium.tab
    focused = "document.activeElement.textContent"
    tab.keyboard.press("Tab")
    assert tab.evaluate(focused) == "Skip to content"
    for name in ("Overview, shown", "Quality", "Drift"):
        tab.keyboard.press("Tab")
        assert tab.evaluate(focused) == name
    tab.keyboard.press("Enter")
    tab.locator("h1", has_text="Drift").wait_for()
    for _ in range(40):
        if tab.evaluate(focused) == "against last day":
            break
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**measure=day**")
    tab.locator("a.here", has_text="against last day").wait_for()
    tab.wait_for_timeout(1_200)  # two looks at the records later
    assert tab.evaluate(focused) == "against last day, shown"


def test_a_snapshot_is_promoted_only_after_a_yes(chromium: Browser, tmp_path: Path) -> None:
    store = LocalSnapshotStore(past_run(tmp_path / "data") / "snapshots")
    first, second, third = store.ids()
    asked: list[str] = []
    with serving(records_in(tmp_path / "data"), CONFIG) as address:
        chromium.open(f"{address}snapshots")
        tab = chromium.tab
        tab.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        tab.get_by_role("button", name=f"Roll back to {second}").click()
        wait_until(lambda: tab.wait_for_timeout(20) or asked, 10.0, "the question")
        assert asked[0].startswith(f"Serve snapshot {second}, learned up to 2027-01-15 07:40:00,")
        tab.wait_for_timeout(600)
        assert store.current_id() == third, "a no changes nothing"

        tab.once("dialog", lambda dialog: dialog.accept())
        tab.get_by_role("button", name=f"Promote {first}").press("Enter")
        tab.get_by_role("status").get_by_text(f"{first} is the served snapshot now.").wait_for()
        assert store.current_id() == first
        tab.get_by_text("There is no earlier one to roll back to.").wait_for()
    assert chromium.complaints == []


def test_empty_folder_and_damaged_file_are_explained(chromium: Browser, tmp_path: Path) -> None:
    with serving(records_in(tmp_path), CONFIG) as address:
        chromium.open(address)
        assert "Nothing has kept records" in chromium.text()
        chromium.picture("empty-overview")
        (tmp_path / "history.sqlite").write_text("no database " * 100)
        chromium.tab.get_by_role("alert").get_by_text("history.sqlite").wait_for()
        chromium.picture("damaged-overview")
        chromium.tab.goto("about:blank")


def test_reports_open_but_may_not_act(chromium: Browser, address: str) -> None:
    chromium.open(f"{address}reports")
    with chromium.tab.expect_popup() as opened:
        chromium.tab.get_by_role("link", name="old.html").click()
    opened.value.wait_for_load_state()
    assert opened.value.title() == "ran", "its own scripts run"
    assert opened.value.evaluate("window.origin") == "null", "but not in the dashboard's name"
    opened.value.close()


def test_a_dashboard_that_is_gone_is_noticed(chromium: Browser, folder: Path) -> None:
    with serving(records_in(folder), CONFIG) as address:
        chromium.open(address)
        assert not chromium.tab.locator("#offline").is_visible()
    chromium.tab.locator("#offline").wait_for()
    assert "does not answer since" in chromium.tab.locator("#offline").inner_text()
    chromium.picture("gone")
    chromium.tab.goto("about:blank")
    chromium.complaints.clear()  # the browser said so too
