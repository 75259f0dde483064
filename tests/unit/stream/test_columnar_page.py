"""What docs/events.md says of columnar records is what Headrace reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from domain.events import Event, Feedback
from stream.codec import decode_record
from stream.columnar_build import encode_columnar
from stream.columnar_form import COLUMNS

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text(encoding="utf-8")


def test_record_that_the_page_writes_is_read() -> None:
    match = re.search(r"<!-- columnar -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert match
    found: dict[str, Any] = {}
    exec(match.group(1), found)
    clicks: list[Event] = [
        Feedback(
            event_id=f"click-{number}",
            time_ms=1_704_067_214_000 + 1_000 * number,
            user_id="ann",
            item_id=item,
            kind="click",
        )
        for number, item in ((1, "film-7"), (2, "film-3"))
    ]
    assert decode_record(found["record"]) == clicks
    assert decode_record(encode_columnar(clicks)) == clicks


def test_page_lists_the_columns_in_their_order() -> None:
    rows = re.findall(r"^\| (`\w+`.*?) \| (\w+), (\w(?: \+ 1)?)", PAGE, re.MULTILINE)
    listed = [
        (name, np.dtype(dtype), length)
        for names, dtype, length in rows
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert listed == [
        (name, np.dtype(dtype), f"{count} + 1" if extra else count)
        for name, dtype, count, extra in COLUMNS
    ]
