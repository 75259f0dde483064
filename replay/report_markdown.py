"""A report as Markdown: what a terminal shows, and what fits into a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from replay.compare import TITLES
from replay.next_item import next_item_in_words
from replay.words import SERVED

_RANKING = ("auc", "gauc", "ne", "calibration", "ece")
_RETRIEVAL = ("recall@20", "ndcg@20", "mrr")
_LISTS = {"coverage": "coverage", "novelty_bits": "novelty", "popularity_share": "popularity"}

_Cells: TypeAlias = Mapping[str, Any]
_Rows: TypeAlias = Sequence[tuple[str, Sequence[_Cells]]]


def markdown(report: Mapping[str, Any], *, intervals: bool) -> str:
    """Return a report as Markdown that reads well unrendered, too.

    Args:
        report: as `headrace replay --out` writes it.
        intervals: whether numbers have their 95 % intervals beside them, which a narrow terminal
            has no room for, and the command that would do the same again below.
    """
    partial = report.get("partial", "")
    blocks = [
        f"# Replay of {report['dataset']}{_since(report)}, second half",
        f"**PARTIAL: {partial}**" if partial else "",
        "\n".join(f"- {sentence}" for sentence in report["words"]),
        _ranking(report, intervals),
        _heads(report, intervals),
        _calibration(report),
        _retrieval(report, intervals),
        _footer(report),
        f"    {report['command']}" if intervals and report.get("command") else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _since(report: Mapping[str, Any]) -> str:
    return f", from snapshot {report['snapshot']}" if report.get("snapshot") else ""


def _ranking(report: Mapping[str, Any], intervals: bool) -> str:
    head, parts = next(iter(report["heads"].items()))
    part = parts["second_half"]
    rows = [(name, [one[metric] for metric in _RANKING]) for name, one in part["variants"].items()]
    table = _table("variant", [TITLES[metric] for metric in _RANKING], rows, intervals)
    examples = f"{part['examples']:,} examples, {part['positives']:,} positive"
    return f"Ranking, head {head}: {examples}, {part['users']:,} users\n\n{table}"


def _heads(report: Mapping[str, Any], intervals: bool) -> str:
    """Return what a server answers for the other heads; "" when there is one head only."""
    others = list(report["heads"].items())[1:]
    rows = []
    for head, parts in others:
        part = parts["second_half"]
        served = part["variants"].get(SERVED)
        if served is not None:
            rows.append((head, [served[metric] for metric in _RANKING]))
    if not rows:
        return ""
    table = _table("head", [TITLES[metric] for metric in _RANKING], rows, intervals)
    return f"Other heads, {SERVED}\n\n{table}"


def _calibration(report: Mapping[str, Any]) -> str:
    """Return how far the ranker's latest probabilities were off, before and after calibration."""
    errors = report.get("calibration_errors", {})
    rows = [
        (head, [{"value": one["before"]}, {"value": one["after"]}]) for head, one in errors.items()
    ]
    if not rows:
        return ""
    return f"ECE at the end, online\n\n{_table('head', ['before', 'after'], rows, False)}"


def _retrieval(report: Mapping[str, Any], intervals: bool) -> str:
    found, lists = report["retrievers"], report["recommended_lists"]
    if not found:
        return ""
    rows = []
    for name, one in found.items():
        cells = [one[metric] for metric in _RETRIEVAL]
        made_of = lists.get(name, {})
        reason = made_of.get("reason", "")
        cells += [{"value": made_of.get(key), "reason": reason} for key in _LISTS]
        rows.append((name, cells))
    titles = [*(TITLES[metric] for metric in _RETRIEVAL), *_LISTS.values()]
    predictions = max(one["predictions"] for one in found.values())
    about = (
        f"Retrieval of the next item: {predictions:,} predictions, "
        f"{report['retrieval']['catalog']:,} items in the catalog"
    )
    text = f"{about}\n\n{_table('retriever', titles, rows, intervals)}"
    if report.get("next_item") is not None:
        text += "\n\n" + "\n".join(f"- {one}" for one in next_item_in_words(report["next_item"]))
    return text


def _footer(report: Mapping[str, Any]) -> str:
    signals = len(report.get("drift_signals", ()))
    return (
        f"{report['events']:,} events, {report['examples']:,} examples, "
        f"{report['duplicates']:,} duplicates, {report['late']:,} late, "
        f"{report['dead_letters']:,} dead letters, {signals:,} drift signals in "
        f"{report['seconds']:.0f} s"
    )


def _table(corner: str, titles: Sequence[str], rows: _Rows, intervals: bool) -> str:
    """Return a table whose columns are aligned, and below it why numbers are missing."""
    lines = [[corner, *titles]]
    lines += [[name, *(_cell(one, intervals) for one in cells)] for name, cells in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    text = [_line(line, widths) for line in (lines[0], ruler, *lines[1:])]
    cells_by_title = [(title, cells[at]) for at, title in enumerate(titles) for _, cells in rows]
    return "\n".join([*text, *_reasons(cells_by_title, intervals)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def _cell(one: _Cells, intervals: bool) -> str:
    if one.get("value") is None:
        return "n/a"
    number = f"{one['value']:.4f}"
    if not intervals or one.get("low") is None:
        return number
    return f"{number} [{one['low']:.4f}, {one['high']:.4f}]"


def _reasons(cells: Iterable[tuple[str, _Cells]], intervals: bool) -> list[str]:
    """Return a line for each reason why numbers, or intervals that are shown, are missing."""
    titles_of: dict[str, dict[str, None]] = {}
    for title, one in cells:
        reason = one.get("reason")
        if reason and (one.get("value") is None or intervals):
            titles_of.setdefault(reason, {})[title] = None
    lines = [f"- {', '.join(titles)}: {why}" for why, titles in titles_of.items()]
    return ["", *lines] if lines else []
