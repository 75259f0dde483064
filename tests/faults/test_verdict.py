"""The harness can fail: mistakes built into a trainer on purpose are all found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.learners import LearnerConfigs, build_learners
from domain.event_log import DeadLetter, Record
from domain.state import state_hash
from replay.simulator import simulate
from tests.faults.backends import SqliteTestLog, fill, read_all
from tests.faults.fault_worlds import Stream, train_arguments
from tests.faults.launcher import Plan
from tests.faults.lives import Zygote
from tests.faults.mutations import MUTATIONS
from tests.faults.runs import Place, RunPlan, make_run
from tests.faults.verdict import Outcome, Verdict, compare, judge, outcome_of
from tests.loop_worlds import tiny_settings

STREAM = Stream(40, seed=30)
Learned = tuple[Outcome, list[Record], list[DeadLetter]]


@pytest.fixture(scope="module")
def learned(forks: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A log, and what a trainer that nobody disturbed made of it."""
    folder = tmp_path_factory.mktemp("learned")
    test_log = SqliteTestLog(folder / "events.sqlite")
    fill(test_log, list(simulate(STREAM.scenario)))
    arguments = train_arguments(folder / "data", STREAM, test_log, "fast", ["--until-end"])
    life = forks.start(Plan(arguments=arguments), folder / "trainer.log")
    assert life.wait(60.0) == 0, life.said
    assert "Traceback" not in life.said
    return outcome_of(folder / "data"), *read_all(test_log)


def _run(
    forks: Zygote, folder: Path, mutation: str, points: tuple[str, ...] = (), first_call: int = 1
) -> Verdict:
    plan = RunPlan(
        name=mutation,
        stream=STREAM,
        policy="fast",
        points=points,
        mutation=mutation,
        first_call=first_call,
    )
    return make_run(plan, Place(folder, forks)).verdict


def test_a_sound_run_is_clean(learned: Learned) -> None:
    outcome, records, letters = learned
    ids = [f"{one.event.event_id}" for one in simulate(STREAM.scenario) if one.event is not None]
    verdict = judge(outcome, records, letters, ids)
    compare(outcome, outcome, verdict)
    assert verdict.clean
    assert str(verdict) == "equal"
    assert len(letters) > 1
    assert outcome.step > 5


def test_a_trainer_learns_a_whole_log_and_stops_at_its_end(learned: Learned) -> None:
    outcome, records, _ = learned
    assert outcome.positions == {"events/0": len(records)}
    untrained = build_learners(STREAM.schema, LearnerConfigs.of(tiny_settings()))
    for name in ("ranking", "memory", "retrieval"):
        assert outcome.hashes[name] != state_hash(getattr(untrained, name).save()), name


def test_positions_committed_before_the_snapshot_lose_events(forks: Zygote, tmp_path: Path) -> None:
    points = ("before the snapshot's rename",)
    verdict = _run(forks, tmp_path, "commit_first", points, first_call=2)
    assert len(verdict.lost) > 3, verdict
    assert verdict.unequal


def test_a_record_passed_over_is_lost(forks: Zygote, tmp_path: Path) -> None:
    verdict = _run(forks, tmp_path, "skip_one")
    assert any("not learned" in line for line in verdict.lost), verdict
    assert verdict.unequal


def test_a_record_led_twice_is_doubled(forks: Zygote, tmp_path: Path) -> None:
    verdict = _run(forks, tmp_path, "apply_twice")
    assert len(verdict.doubled) == 1, verdict
    assert not verdict.lost


def test_an_event_with_a_double_effect_is_doubled(forks: Zygote, tmp_path: Path) -> None:
    verdict = _run(forks, tmp_path, "join_twice")
    assert verdict.doubled, verdict
    assert verdict.unequal


def test_labels_forgotten_by_a_restart_are_unequal(forks: Zygote, tmp_path: Path) -> None:
    verdict = _run(forks, tmp_path, "forget_joiner", ("after commit",), first_call=2)
    assert any(line.startswith("joiner") for line in verdict.unequal), verdict


def test_broken_records_passed_over_are_lost(forks: Zygote, tmp_path: Path) -> None:
    verdict = _run(forks, tmp_path, "no_dead_letters")
    assert all("not set aside" in line for line in verdict.lost), verdict
    assert len(verdict.lost) > 1


def test_every_mistake_that_can_be_built_in_is_tried() -> None:
    tried = {"commit_first", "skip_one", "apply_twice", "join_twice"}
    assert tried | {"forget_joiner", "no_dead_letters"} == set(MUTATIONS)


@pytest.mark.parametrize(
    ("change", "where", "expected"),
    [
        (lambda one: one.offsets.subtract([("events/0", 3)]), "lost", "events/0@3"),
        (lambda one: one.offsets.update([("events/0", 3)]), "doubled", "events/0@3"),
        (lambda one: one.offsets.update([("events/7", 3)]), "unequal", "events/7@3"),
        (lambda one: one.stream["counts"].update(events=0), "lost", "events: counted 0"),
    ],
)
def test_what_the_journal_and_the_counts_tell_is_checked(
    learned: Learned, change: Callable[[Outcome], None], where: str, expected: str
) -> None:
    outcome, records, letters = learned
    changed = replace(
        outcome,
        offsets=outcome.offsets.copy(),
        stream={**outcome.stream, "counts": dict(outcome.stream["counts"])},
    )
    change(changed)
    lines = getattr(judge(changed, records, letters), where)
    assert lines
    assert all(expected in line for line in lines)


def test_what_was_acknowledged_and_is_not_in_the_log_is_lost(learned: Learned) -> None:
    verdict = judge(*learned, acknowledged=["never-stored"])
    assert verdict.lost == ["never-stored: not in the log"]


def test_a_broken_record_set_aside_twice_or_for_nothing_is_noticed(learned: Learned) -> None:
    outcome, records, letters = learned
    assert len(judge(outcome, records, [*letters, letters[0]]).doubled) == 1
    good = replace(letters[0], offset=records[0].offset)
    assert len(judge(outcome, records, [*letters, good]).unequal) == 1
