"""What was done about drift is kept beside the signals, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import ConfigError
from monitoring.reaction_store import ReactionStore, read_reactions
from monitoring.reactions import Reaction
from monitoring.signal_store import SignalStore

FIRST = Reaction(name="reset_memory", time_ms=5, stream="loss/online/click", cause="it rose")
SECOND = Reaction(
    name="faster_learning", time_ms=7, stream="loss/online/click", cause="it rose", until_ms=9
)


def test_reactions_are_read_newest_first_and_written_once(tmp_path: Path) -> None:
    path = tmp_path / "drift.sqlite"
    store = ReactionStore(path)
    store.write_reactions([FIRST, SECOND])
    store.write_reactions([FIRST])
    store.close()
    assert read_reactions(path) == [SECOND, FIRST]
    assert read_reactions(path, limit=1) == [SECOND]


def test_file_of_signals_alone_holds_no_reactions(tmp_path: Path) -> None:
    path = tmp_path / "drift.sqlite"
    SignalStore(path).close()
    assert read_reactions(path) == []


def test_file_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    path = tmp_path / "drift.sqlite"
    with pytest.raises(ConfigError, match="no drift records there"):
        read_reactions(path)
    path.write_text("this is a letter, and much longer than the header of a database would be")
    with pytest.raises(ConfigError, match="not a file of drift records"):
        read_reactions(path)
    with pytest.raises(ConfigError, match="not a file of drift records"):
        ReactionStore(path)
