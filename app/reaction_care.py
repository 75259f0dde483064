"""`headrace drift reactions` at work: what was done about drift, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from app.settings import Settings
from monitoring.reaction_store import read_reactions
from monitoring.reactions import Reaction
from monitoring.signal_store import FILE_NAME


def find_reactions(settings: Settings, limit: int) -> list[Reaction]:
    """Return what was done, the newest first.

    Raises:
        ConfigError: there are no records in the data folder.
    """
    return read_reactions(settings.data.path / FILE_NAME, limit)


def reactions_as_json(reactions: Sequence[Reaction]) -> str:
    """Return reactions as a JSON list; times are ms since 1970 UTC."""
    return json.dumps([{**asdict(one), "sentence": one.describe()} for one in reactions], indent=1)


def print_reactions(reactions: Sequence[Reaction], console: Console) -> None:
    """Print reactions as a table, or say that there are none."""
    if not reactions:
        console.print(
            "Nothing was done about drift; [reactions] in the settings is off by default."
        )
        return
    table = Table()
    table.add_column("done (UTC)", no_wrap=True)
    table.add_column("reaction", no_wrap=True)
    table.add_column("what", overflow="fold")
    for one in reactions:
        moment = datetime.fromtimestamp(one.time_ms / 1_000, UTC)
        table.add_row(f"{moment:%Y-%m-%d %H:%M:%S}", one.name, one.describe())
    console.print(table)
