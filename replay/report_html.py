"""A report as one HTML file that needs nothing but a browser: no server, no network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

from replay import report_figures as figures
from replay.compare import TITLES
from replay.intervals import METRICS
from replay.report import RANK_METRICS
from replay.words import SERVED

_RANKS_SHOWN = ("recall@10", "recall@20", "recall@100", "hr@20", "ndcg@20", "mrr")
_SIGNALS_SHOWN = 8
_SLICES_SHOWN = ("auc", "gauc", "ne", "calibration")

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --best: #009e7333; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
p.sub { opacity: .75; margin: .2rem 0 1rem; } p.note { opacity: .75; font-size: .9em; }
ul.words { padding: .8rem 1rem .8rem 2rem; background: var(--soft); border-radius: 8px; }
.partial { padding: .6rem 1rem; background: #d55e0033; border-radius: 8px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
td small { opacity: .7; white-space: nowrap; display: block; }
tr.served { background: var(--best); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
  gap: 1rem; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: 8px; }
details { margin: .6rem 0; } summary { cursor: pointer; }
"""

_SCRIPT = """
for (const [id, figure] of Object.entries(FIGURES)) {
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
"""


def page(report: Mapping[str, Any]) -> str:
    """Return a report (as `headrace replay --out` writes it) as an HTML page."""
    drawn: dict[str, figures.Figure] = {}
    body = [
        _head(report),
        _headline(report),
        _retrieval(report),
        _curves(report, drawn),
        _signals(report),
        _reactions(report),
        _slices(report, drawn),
        _calibration(report, drawn),
        _other_heads(report),
        _reproduce(report),
    ]
    # A "</script>" in a name must not end the script.
    data = json.dumps(drawn, allow_nan=False).replace("</", "<\\/")
    title = escape(f"Replay of {report['dataset']}")
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body>\n{''.join(body)}\n"
        f"<script>{get_plotlyjs()}</script>\n"
        f"<script>const FIGURES = {data};{_SCRIPT}</script></body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> str:
    spans = [
        (window["from_ms"], window["until_ms"])
        for windows in report["windows"].values()
        for window in windows
    ]
    span = ""
    if spans:
        first, last = min(low for low, _ in spans), max(high for _, high in spans)
        span = f"{figures.moment(first)} to {figures.moment(last)} UTC; "
    partial = ""
    if report.get("partial"):
        partial = f'<p class="partial"><b>Partial:</b> {escape(report["partial"])}</p>'
    since = f", from snapshot {escape(report['snapshot'])}" if report.get("snapshot") else ""
    words = "".join(f"<li>{escape(sentence)}</li>" for sentence in report["words"])
    return (
        f"<h1>Replay of {escape(report['dataset'])}{since}</h1>"
        f'<p class="sub">{span}{report["events"]:,} events, {report["demands"]:,} lists scored, '
        f"{report['examples']:,} examples, {report['duplicates']:,} duplicates, "
        f"{report['late']:,} late, {report['dead_letters']:,} dead letters; "
        f"{_duration(report['seconds'])}, seed&nbsp;{report['seed']}</p>{partial}"
        f'<ul class="words" id="words">{words}</ul>'
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}&nbsp;min {rest}&nbsp;s" if minutes else f"{rest}&nbsp;s"


def _headline(report: Mapping[str, Any]) -> str:
    head, parts = next(iter(report["heads"].items()))
    return (
        f"<h2>Ranking, second half, head {escape(head)}</h2>"
        f"{_part_table(parts['second_half'], 'headline')}"
        '<p class="note">Every example was scored before its label was known. Small print: 95 % '
        "interval, users drawn with replacement. NE, log loss and ECE: lower is better; "
        "calibration: 1 is right. Whether two rows differ is said by their paired difference "
        "(the sentences above, or <code>headrace compare</code>), not by whether their intervals "
        "overlap. Naive GAUC takes all of a user's impressions as one group, whatever was learned "
        "between them: it punishes models that learn, so decide by session GAUC.</p>"
    )


def _part_table(part: Mapping[str, Any], identity: str) -> str:
    rows = [(name, [one[metric] for metric in METRICS]) for name, one in part["variants"].items()]
    caption = f"{part['examples']:,} examples, {part['positives']:,} positive, "
    caption += f"{part['users']:,} users"
    titles = [TITLES[metric] for metric in METRICS]
    return f"<p>{caption}</p>{_table(identity, 'variant', titles, rows)}"


def _table(
    identity: str,
    corner: str,
    titles: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in (corner, *titles))
    lines = []
    for name, cells in rows:
        mark = ' class="served"' if name in (SERVED, "online (two towers)") else ""
        lines.append(f"<tr{mark}><td>{escape(name)}</td>{''.join(map(_cell, cells))}</tr>")
    return (
        f'<div class="wide"><table id="{identity}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(one: Mapping[str, Any]) -> str:
    """Return a number with its interval; where one is missing, the reason is beside it."""
    reason = f"<small>{escape(one['reason'])}</small>" if one.get("reason") else ""
    if one.get("value") is None:
        return f"<td>n/a{reason}</td>"
    if one.get("low") is None:
        return f"<td>{one['value']:.4f}{reason}</td>"
    return f"<td>{one['value']:.4f}<small>{one['low']:.4f} to {one['high']:.4f}</small></td>"


def _retrieval(report: Mapping[str, Any]) -> str:
    found = report["retrievers"]
    if not found:
        return ""
    rows = []
    for name, one in found.items():
        title = "online (two towers)" if name == "online" else name
        rows.append((title, [one[metric] for metric in RANK_METRICS if metric in _RANKS_SHOWN]))
    titles = [TITLES[metric] for metric in RANK_METRICS if metric in _RANKS_SHOWN]
    lists = [
        (
            "online (two towers)" if name == "online" else name,
            [
                {"value": one[key], "reason": one.get("reason", "") if one[key] is None else ""}
                for key in ("coverage", "novelty_bits", "popularity_share")
            ],
        )
        for name, one in report["recommended_lists"].items()
    ]
    list_titles = ("coverage", "novelty (bits)", "popularity share")
    num_lists = max((one["lists"] for one in report["recommended_lists"].values()), default=0)
    predictions = max(one["predictions"] for one in found.values())
    return (
        "<h2>Retrieval of the next item, second half</h2>"
        f"<p>{predictions:,} items taken, each ranked among the whole catalog as it stood "
        f"({report['retrieval']['catalog']:,} items in the end)</p>"
        f"{_table('retrieval', 'retriever', titles, rows)}"
        f"<p>What {num_lists:,} lists of 20 were made of</p>"
        f"{_table('lists', 'retriever', list_titles, lists)}"
        '<p class="note">Coverage: share of the catalog in at least one list. Novelty: mean -log2 '
        "of an item's share of all actions before. Popularity share: places taken by the "
        "hundredth of items taken most. Used items are left out, so repetitions are misses for "
        "all but repeat. One item is taken at a time, so HR@k is recall@k.</p>"
    )


def _curves(report: Mapping[str, Any], drawn: dict[str, figures.Figure]) -> str:
    head = next(iter(report["windows"]))
    if not report["windows"][head]:
        return "<h2>Over event time</h2><p>Nothing was measured.</p>"
    for metric in figures.CURVES:
        drawn[f"curve-{metric}"] = figures.curve(report, head, metric, SERVED)
    places = "".join(f'<div id="curve-{metric}"></div>' for metric in figures.CURVES)
    return (
        f"<h2>Over event time, head {escape(head)}</h2>"
        f'<div class="pair">{places}</div>'
        '<p class="note">Windows of equally many lists. The band is the 95 % interval of what a '
        "server answers. Dotted lines are drift signals; hover over their feet.</p>"
    )


def _signals(report: Mapping[str, Any]) -> str:
    signals = report.get("drift_signals", [])
    if not signals:
        return '<h2>Drift signals</h2><p id="signals">None was raised.</p>'
    rows = "".join(
        f"<tr><td>{figures.moment(one['time_ms'])}</td><td>{escape(one['severity'])}</td>"
        f'<td style="text-align:left">{escape(one["sentence"])}</td></tr>'
        for one in signals
    )
    counts = Counter(one["stream"] for one in signals)
    streams = ", ".join(f"{escape(name)} {count}" for name, count in counts.most_common())
    shown = " open" if len(signals) <= _SIGNALS_SHOWN else ""
    return (
        f"<h2>Drift signals ({len(signals)})</h2><p>By what moved: {streams}</p>"
        f"<details{shown}><summary>when, how large, what</summary>"
        f'<div class="wide"><table id="signals"><tbody>{rows}</tbody></table></div></details>'
    )


def _reactions(report: Mapping[str, Any]) -> str:
    done = report.get("reactions", [])
    if not done:
        return ""
    rows = "".join(
        f"<tr><td>{figures.moment(one['time_ms'])}</td>"
        f'<td style="text-align:left">{escape(one["sentence"])}</td></tr>'
        for one in done
    )
    return (
        f"<h2>Reactions ({len(done)})</h2>"
        f'<div class="wide"><table id="reactions"><tbody>{rows}</tbody></table></div>'
    )


def _slices(report: Mapping[str, Any], drawn: dict[str, figures.Figure]) -> str:
    parts = report["slices"]
    if not parts:
        return ""
    names = list(report["variants"])
    drawn["slices"] = figures.slices(report, "auc", names)
    tables = []
    for metric in _SLICES_SHOWN:
        rows = [
            (
                f"{name} ({part['examples']:,})",
                [part["variants"].get(one, {}).get(metric, {}) for one in names],
            )
            for name, part in parts.items()
        ]
        tables.append(
            f"<details><summary>{TITLES[metric]} by slice, as numbers</summary>"
            f"{_table(f'slices-{metric}', 'slice (examples)', names, rows)}</details>"
        )
    return (
        '<h2>Slices</h2><div id="slices"></div>'
        '<p class="note">New users: nothing known of them when the item was shown. New items: '
        "shown fewer than ten times before. Activity: tenths of users by their examples.</p>"
        f"{''.join(tables)}"
    )


def _calibration(report: Mapping[str, Any], drawn: dict[str, figures.Figure]) -> str:
    if not any(one["examples"] for one in report["calibration_curves"].values()):
        return ""
    drawn["calibration"] = figures.calibration(report)
    drawn["scores"] = figures.scores(report, SERVED)
    return (
        "<h2>Calibration and scores, second half</h2>"
        '<div class="pair"><div id="calibration"></div><div id="scores"></div></div>'
        '<p class="note">Bins of equally many examples. Variants not shown are one click in the '
        "legend away.</p>"
    )


def _other_heads(report: Mapping[str, Any]) -> str:
    """Return every head and half that the headline leaves out."""
    primary = next(iter(report["heads"]))
    names = {"second_half": "second half", "first_half": "first half", "all": "whole replay"}
    found: list[str] = []
    for head, parts in report["heads"].items():
        for key, title in names.items():
            if (head, key) != (primary, "second_half"):
                found.append(
                    f"<details><summary>{escape(head)}, {title}</summary>"
                    f"{_part_table(parts[key], f'part-{len(found)}')}</details>"
                )
    return f"<h2>Other heads and halves</h2>{''.join(found)}"


def _reproduce(report: Mapping[str, Any]) -> str:
    command = report.get("command", "")
    shown = f"<pre id='command'>{escape(command)}</pre>" if command else ""
    settings = escape(json.dumps(report["configuration"], indent=1))
    changed = "".join(f"<li><code>{escape(one)}</code></li>" for one in report.get("changed", []))
    told = f"<ul>{changed}</ul>" if changed else "<p>All settings have their defaults.</p>"
    return (
        f"<h2>How to reproduce</h2>{shown}<p>Headrace {escape(report.get('version', ''))}, schema "
        f"{escape(report['schema_hash'])}. The same command over the same files gives the same "
        f"numbers to the last digit.</p><p>Settings that are not the default:</p>{told}"
        f"<details><summary>All settings</summary><pre>{settings}</pre></details>"
    )
