"""`headrace evaluate incremental`: slot by slot, predict, then train or write or both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.dataset_options import DatasetOption, LimitOption, PathOption, open_chosen
from app.options import ConfigOption, SetOption, settings_from
from app.replay_options import HtmlOption, MarkdownOption
from domain.errors import ConfigError


def incremental(
    dataset: DatasetOption,
    path: PathOption = None,
    slots: Annotated[
        int, typer.Option("--slots", help="Equal slots after the base's part.", metavar="N")
    ] = 10,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Seeds, with commas between them.", metavar="N,N,...")
    ] = "1,2,3",
    base_share: Annotated[
        float, typer.Option("--base-share", help="Share that the base learns from.", metavar="X")
    ] = 0.5,
    window: Annotated[
        int,
        typer.Option("--window", help="Examples written again under a new model.", metavar="N"),
    ] = 20_000,
    stop_counters: Annotated[
        bool,
        typer.Option("--stop-counters", help="Label counters, as features, stop with the base."),
    ] = False,
    limit: LimitOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the report as JSON.", metavar="FILE"),
    ] = None,
    tsv: Annotated[
        Path | None,
        typer.Option("--tsv", help="Write a line per seed, method and slot.", metavar="FILE"),
    ] = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Compare training on, remembering, and both, slot by slot (ReLoop2's protocol).

    A base learns the first part of a log; the rest is cut into slots. Each is predicted by what
    was known before, then trained on (IncCTR), written to the error memory, or both. Prints AUC,
    session GAUC and NE of every slot. With another seed a simulated world is another draw, too.
    Files are written after every seed. See docs/evaluation.md.

    Examples:
    - `headrace evaluate incremental --dataset kuairand-pure --path DIR`
    - `headrace evaluate incremental --dataset abrupt --seeds 1`
    - `headrace evaluate incremental --dataset gradual --html out.html`
    """
    from rich.console import Console

    from app.incremental_run import run_incremental, write_reports
    from replay.incremental import IncrementalConfig
    from replay.incremental_report import markdown as as_markdown

    chosen = open_chosen(dataset, path, limit=limit, positive_at=None, columns=None, named={})
    how = IncrementalConfig(
        num_slots=slots, base_share=base_share, window=window, live_counters=not stop_counters
    )
    settings = settings_from(config, list(set_ or ()))
    files = {"out": out, "tsv": tsv, "markdown": markdown, "html": html}
    report, written = {}, []
    for report in run_incremental(settings, chosen, _seeds(seeds), how, Console(stderr=True)):
        # After every seed, so that Ctrl-C leaves what was done by then.
        written = write_reports(report, files)
    typer.echo(as_markdown(report), nl=False)
    for file in written:
        typer.echo(f"Wrote {file}")


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds: expected different whole numbers with commas between them, got {text!r}"
        )
    return seeds
