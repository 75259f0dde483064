"""A real Chromium for tests: what it shows, what it asks for, and what it complains of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from tests.needed_tools import need

ARTEFACTS = Path(__file__).parents[1] / "out" / "screenshots"
"""Where tests leave pictures of pages; git ignores it."""
LAPTOP = {"width": 1366, "height": 768}
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


@dataclass
class Browser:
    """One tab of a running Chromium.

    Attributes:
        complaints: errors and warnings of its console, and exceptions of the page.
        asked: host of every request.
    """

    tab: Tab
    complaints: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def open(self, address: str) -> None:
        """Open an address and wait for its content."""
        self.tab.goto(address)
        self.tab.wait_for_selector("#page > *")

    def follow(self, name: str) -> None:
        """Follow a link of the pages' list and wait for that page."""
        self.tab.locator("nav.pages").get_by_role("link", name=name).click()
        heading = self.tab.locator("h1", has_text=name)
        heading.wait_for()
        address = urlsplit(self.tab.url)
        asked = f"?{address.query}" if address.query else ""
        self.tab.locator(f'#page [data-page="{address.path}{asked}"]').wait_for()

    def text(self) -> str:
        """Return everything that can be read on the page."""
        return self.tab.locator("#page").inner_text()

    def row(self, first_cell: str) -> list[str]:
        """Return the cells of the table row that begins with this cell."""
        row = self.tab.locator("tr", has=self.tab.locator(f'th:text-is("{first_cell}")')).first
        return [cell.strip() for cell in row.locator("th, td").all_inner_texts()]

    def picture(self, name: str) -> None:
        """Leave pictures of the page in both colour schemes."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        for scheme in ("dark", "light"):
            self.tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            self.tab.screenshot(path=ARTEFACTS / f"{name}-{scheme}.png")


@contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium while the block runs."""
    path = need("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        tab = chromium.new_context(viewport=LAPTOP).new_page()  # type: ignore[arg-type]
        own = Browser(tab)
        tab.on(
            "console",
            lambda said: (
                own.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        tab.on("pageerror", lambda error: own.complaints.append(str(error)))
        tab.on("request", lambda request: own.asked.add(urlsplit(request.url).hostname or ""))
        try:
            yield own
        finally:
            chromium.close()
