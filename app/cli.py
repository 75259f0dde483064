"""The `headrace` command."""

from __future__ import annotations

import os
import sys

import typer

from app.commands import (
    compare,
    dashboard,
    datasets,
    dead_letters,
    demo,
    drift,
    evaluate,
    freshness,
    publish,
    replay,
    serve,
    snapshots,
    tokens,
    topics,
    train,
    up,
    validate,
)
from app.errors import run_to_exit_code

HELP = """A streaming recommender that never stops learning.

Examples:
- `headrace demo`
- `headrace up --data-dir headrace-data --config my.toml`
- `headrace replay --dataset abrupt --limit 5000`
- `headrace COMMAND --help`
"""

app = typer.Typer(
    name="headrace",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("demo-users", hidden=True)(demo.demo_users)
app.command("up")(up.up)
app.command("train")(train.train)
app.command("serve")(serve.serve)
app.command("dashboard")(dashboard.dashboard)
app.command("replay")(replay.replay)
app.command("compare")(compare.compare)
app.command("publish")(publish.publish)
app.command("validate")(validate.validate)
app.command("freshness")(freshness.freshness)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(drift.app, name="drift")
app.add_typer(datasets.app, name="datasets")
app.add_typer(topics.app, name="topics")
app.add_typer(tokens.app, name="tokens")
app.add_typer(dead_letters.app, name="dead-letters")


def main() -> None:
    """Run the command line; the only place where a process ends.

    Trainer and server share the cores of one machine, and the same number of threads everywhere
    keeps results the same: one each, unless OMP_NUM_THREADS says otherwise. It must be set before
    torch is loaded, which commands do when they run.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(run_to_exit_code(lambda: app(prog_name="headrace", standalone_mode=False)))


if __name__ == "__main__":
    main()
