"""docs/metrics.md and monitoring/metrics.py say the same, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitoring.instruments import Instrument
from monitoring.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(headrace_\w+)` \| (.*) \| (.*) \| (.*) \|$")
INSTRUMENTS = {instrument.name: instrument for instrument in Metrics().instruments}


def documented() -> dict[str, tuple[str, list[str], str]]:
    """Return unit, labels and question of each metric on the page."""
    rows: dict[str, tuple[str, list[str], str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = ROW.match(line.replace("| |", "|  |"))
        if match:
            name, unit, labels, question = (part.strip() for part in match.groups())
            assert name not in rows, f"{name} is documented twice"
            rows[name] = (unit, re.findall(r"`(\w+)`", labels), question)
    return rows


def unit_in_name(instrument: Instrument) -> str | None:
    """Return the unit a name promises, None when it promises none."""
    if instrument.kind == "counter":
        return "count"
    last = instrument.name.rsplit("_", 1)[1]
    known = ("seconds", "bytes", "ratio", "records", "items", "rows", "requests", "candidates")
    return last if last in known else None


def test_every_instrument_is_documented_and_every_documented_one_exists() -> None:
    assert list(documented()) == list(INSTRUMENTS)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_page_has_unit_labels_and_question_of(name: str) -> None:
    unit, labels, question = documented()[name]
    assert labels == list(INSTRUMENTS[name].labels)
    assert unit
    assert unit == (unit_in_name(INSTRUMENTS[name]) or unit)
    assert "?" in question, f"{name}: a metric answers a question, or nobody needs it"
