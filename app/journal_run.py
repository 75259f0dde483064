"""`headrace replay --journal` at work: progress while it learns, and a table of what came out."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.errors import EXIT_FAILED
from app.journal_replay import JournalOutcome, JournalPlace, replay_journal
from app.settings import Settings
from domain.errors import JournalError
from monitoring.log_setup import set_up_logging
from snapshot.local_store import LocalSnapshotStore
from stream.journal_files import JournalFolder
from stream.open_log import open_log

_SHOWN_DIGITS = 16


def run_journal_replay(settings: Settings, journal: Path, snapshot_id: str) -> int:
    """Learn a live run again, print what came of it, and return the exit status.

    Raises:
        JournalError: there is no journal, or it can no longer be replayed; says why.
        SnapshotNotFoundError: there is no such snapshot.
        LogError: the log cannot be read.
    """
    if not journal.is_dir():
        raise JournalError(f"{journal}: there is no journal")
    if not settings.data.log and not settings.data.embedded_log.exists():
        raise JournalError(f"{settings.data.embedded_log}: there is no event log (--log names it)")
    set_up_logging(settings.log)
    log = open_log(settings.data.log_url, kafka=settings.kafka)
    place = JournalPlace(
        folder=JournalFolder(journal),
        store=LocalSnapshotStore(settings.data.snapshots, settings.snapshot),
        log=log,
    )
    console = Console(stderr=True)
    # Drawing a bar over and over suits a terminal, not a file that standard error goes to.
    shown = Progress(console=console, transient=True, disable=not console.is_terminal)
    try:
        with shown as bar:
            task = bar.add_task("learning again", total=None)

            def tell(records: int, total: int) -> None:
                bar.update(task, completed=records, total=total)

            outcome = replay_journal(place, snapshot_id, tell)
    finally:
        log.close()
    print_outcome(outcome, Console())
    return 0 if outcome.equal else EXIT_FAILED


def print_outcome(outcome: JournalOutcome, console: Console) -> None:
    """Print a hash per component, live and replayed, and one line that says what it means."""
    table = Table(title=f"snapshot {outcome.snapshot_id}: live, and learned again")
    for name in ("component", "live", "replayed", "equal"):
        table.add_column(name, no_wrap=True)
    for name, live in outcome.live.items():
        replayed = outcome.replayed.get(name, "")
        equal = "yes" if live == replayed else "NO"
        table.add_row(name, live[:_SHOWN_DIGITS], replayed[:_SHOWN_DIGITS], equal)
    console.print(table)
    began = f"snapshot {outcome.started_from}" if outcome.started_from else "nothing learned"
    console.print(
        f"{outcome.records:,} records, {outcome.events:,} events, {outcome.steps:,} steps, "
        f"beginning with {began}: {_verdict(outcome)}",
        soft_wrap=True,
    )


def _verdict(outcome: JournalOutcome) -> str:
    if outcome.equal:
        return "equal to the bit"
    if outcome.first_different_step is not None:
        return f"NOT EQUAL: step {outcome.first_different_step:,} was taken after another event"
    if outcome.last_equal_step >= 0:
        return f"NOT EQUAL: the difference came in after step {outcome.last_equal_step:,}"
    return "NOT EQUAL: every step was taken after the same event, but none is known to be equal"
