"""The progress bar of long commands: drawn on a terminal, left out of files."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(console: Console, what: str, *told: str) -> Progress:
    """Return a bar that says what runs, how far it is and how long it will take.

    Args:
        console: where it is drawn, while it lasts.
        what: rich's markup of what stands before the bar.
        told: rich's markup of what stands behind the percentage, a column each.
    """
    return Progress(
        TextColumn(what),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f} %"),
        *(TextColumn(one) for one in told),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        refresh_per_second=2,
        transient=True,
        # Drawing a bar over and over suits a terminal, not a file that standard error goes to.
        disable=not console.is_terminal,
    )
