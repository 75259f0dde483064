"""A report as Markdown: whole tables, and beside a missing number its reason."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.intervals import BootstrapConfig
from replay.records import ReplayRecords
from replay.report import measure
from replay.report_markdown import markdown
from replay.words import SERVED, in_words
from tests.unit.replay.test_report import records, world

FEW = BootstrapConfig(num_draws=20)


def report(one: ReplayRecords, **more: Any) -> dict[str, Any]:
    counts = ("events", "demands", "examples", "duplicates", "late", "dead_letters")
    lists = {"coverage": 0.5, "novelty_bits": 8.0, "popularity_share": 0.25}
    return {
        "dataset": "tiny",
        "seconds": 9.0,
        "words": in_words(one, FEW),
        "retrieval": {"catalog": 40},
        "recommended_lists": dict.fromkeys(one.taken.ranks, lists),
        "command": "headrace replay --dataset tiny",
        **dict.fromkeys(counts, 7),
        **measure(one, FEW),
        **more,
    }


def table(text: str, corner: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this title, by their names."""
    lines = text[text.index(f"| {corner} ") :].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines[: next(at for at, line in enumerate([*lines, ""]) if line[:1] != "|")]
    ]
    assert {len(row) for row in rows} == {len(rows[0])}
    return {name: cells for name, *cells in [rows[0], *rows[2:]]}


def test_tables_hold_the_numbers_of_the_report() -> None:
    found = report(world())
    text = markdown(found, intervals=False)
    assert text.startswith("# Replay of tiny, second half\n\n- Ranking: online+memory earns")
    rows = table(text, "variant")
    assert list(rows) == ["variant", "counters/item", "frozen", SERVED]
    part = found["heads"]["head0"]["second_half"]["variants"]
    for name in ("frozen", SERVED):
        expected = [part[name][metric]["value"] for metric in ("auc", "gauc", "ne", "calibration")]
        assert rows[name][:4] == [f"{value:.4f}" for value in expected]
    assert list(table(text, "head")) == ["head", "head1"]
    assert table(text, "retriever")["item-item"] == ["0.0000"] * 3 + ["0.5000", "8.0000", "0.2500"]
    assert "7 events, 7 examples" in text


def test_file_has_intervals_and_the_command() -> None:
    found = report(world())
    text = markdown(found, intervals=True)
    one = found["heads"]["head0"]["second_half"]["variants"]["frozen"]["auc"]
    expected = f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]"
    assert table(text, "variant")["frozen"][0] == expected
    assert text.endswith("\n    headrace replay --dataset tiny\n")


def test_missing_numbers_have_their_reasons_below_the_table() -> None:
    silent = records(np.zeros(40), {SERVED: np.full(40, 0.5)}, ranks={"online": [0] * 9})
    text = markdown(report(silent), intervals=False)
    assert table(text, "variant")[SERVED] == ["n/a", "n/a", "n/a", "n/a", "0.5000"]
    assert "\n- AUC, NE: all 20 labels are 0: nothing to tell apart\n" in text
    assert "\n- calibration: no label is positive: nothing to divide by\n" in text
    assert "\n- recall@20, NDCG@20, MRR: nobody with a history took an item\n" in text
    assert "nan" not in text.lower()


def test_missing_intervals_are_explained_where_intervals_are_shown() -> None:
    alone = records([1, 0] * 20, {SERVED: np.linspace(0.1, 0.9, 40)}, users=[3] * 40)
    why = "- AUC, session GAUC, NE, calibration, ECE: no interval: fewer than two users"
    assert why in markdown(report(alone), intervals=True)
    assert "no interval" not in markdown(report(alone), intervals=False)


def test_partial_report_says_so_at_the_top() -> None:
    text = markdown(report(world(), partial="interrupted after 9 of 10 lists"), intervals=False)
    assert "\n\n**PARTIAL: interrupted after 9 of 10 lists**\n\n" in text
