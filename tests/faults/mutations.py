"""Faults of the kind that the verdict must notice, built into a trainer by the launcher.

Each is a mistake that systems of this kind do make. They exist so that the harness can be seen to
fail: see `test_verdict.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tests.faults.points import replace


def commit_first() -> None:
    """Commit positions before the snapshot is out, and resume from what was committed."""
    at_start: dict[str, int] = {}

    def remember(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def opened(*arguments: Any, **named: Any) -> Any:
            log = original(*arguments, **named)
            at_start.update(log.committed())
            return log

        return opened

    def resume(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def build(settings: Any, loop: Any, place: Any) -> Any:
            trainer = original(settings, loop, place)
            trainer._positions.update(at_start)
            return trainer

        return build

    def commit(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def checkpoint(self: Any, positions: Any) -> Any:
            self._targets.log.commit(positions)
            return original(self, positions)

        return checkpoint

    replace("app.trainer_process:open_log", remember)
    replace("app.trainer_process:build_trainer", resume)
    replace("stream.checkpoint:Checkpointer.checkpoint", commit)


def skip_one() -> None:
    """Pass over one event of this life."""
    _at_one_call("stream.train_loop:TrainLoop.process", lambda process, event: None)


def apply_twice() -> None:
    """Lead one event of this life through the loop twice."""

    def twice(process: Callable[[Any], Any], event: Any) -> None:
        process(event)
        process(event)

    _at_one_call("stream.train_loop:TrainLoop.process", twice)


def join_twice() -> None:
    """Lead one event twice through everything behind the check for repeats."""

    def twice(process: Callable[[Any], Any], event: Any) -> None:
        loop = getattr(process, "__self__")  # noqa: B009
        process(event)
        loop.parts.deduplicator._times_ms.popitem()
        process(event)

    _at_one_call("stream.train_loop:TrainLoop.process", twice)


def forget_joiner() -> None:
    """Resume with an empty joiner: labels that were waiting are gone."""

    def load(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, state: None

    replace("stream.joiner:Joiner.load", load)


def no_dead_letters() -> None:
    """Pass over broken records without a word."""
    replace("stream.sqlite_log:SqliteLog.dead_letter", lambda original: lambda *_: None)
    replace("stream.kafka_log:KafkaLog.dead_letter", lambda original: lambda *_: None)


MUTATIONS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (commit_first, skip_one, apply_twice, join_twice, forget_joiner, no_dead_letters)
}

_AT_CALL = 25


def _at_one_call(target: str, instead: Callable[[Callable[[Any], Any], Any], Any]) -> None:
    calls = 0

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapper(self: Any, event: Any) -> Any:
            nonlocal calls
            calls += 1
            bound = original.__get__(self)
            return instead(bound, event) if calls == _AT_CALL else bound(event)

        return wrapper

    replace(target, around)
