"""Scenarios say what happens, and refuse what cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.errors import ConfigError
from replay.scenarios import (
    SCENARIOS,
    DriftTruth,
    Incident,
    Noise,
    Population,
    Scenario,
    TasteChange,
    Traffic,
)


def test_scenarios_keep_their_permanent_ids() -> None:
    permanent = [
        "stationary", "abrupt", "gradual", "recurring", "newcomers", "noisy", "item-churn",
        "cold-users", "delayed-labels", "broken-field", "schema-change", "bot-burst",
        "position-bias", "news",
    ]  # fmt: skip
    assert list(SCENARIOS) == permanent
    assert all(scenario.id == name for name, scenario in SCENARIOS.items())


def test_scenario_tells_when_tastes_change() -> None:
    changes = (TasteChange(at=0.25), TasteChange(at=0.5, to_taste=0))
    scenario = Scenario(id="x", description="", start_ms=1_000, duration_ms=400, changes=changes)
    assert scenario.change_times_ms == (1_100, 1_200)
    assert scenario.end_ms == 1_400


def test_scenario_resized_changes_nothing_but_the_number_of_lists() -> None:
    scenario = SCENARIOS["abrupt"]
    small = scenario.resized(7)
    assert small.traffic.num_lists == 7
    assert replace(small, traffic=scenario.traffic) == scenario


def test_truth_is_named_by_its_streams_and_by_no_other() -> None:
    truth = DriftTruth(what="", at=0.5, streams=("loss/", "item_novelty"))
    named = ("loss/online/click", "item_novelty")
    assert all(truth.is_named_by(stream) for stream in named)
    assert not any(truth.is_named_by(stream) for stream in ("loss", "item_novelty/x", "auc/a/b"))


def test_truth_begins_with_what_happens() -> None:
    for scenario in SCENARIOS.values():
        began = [change.at for change in scenario.changes]
        began += [] if scenario.incident is None else [scenario.incident.at]
        assert [truth.at for truth in scenario.truth] == began


def test_incident_lasts_as_long_as_it_says() -> None:
    incident = Incident(kind="bots", at=0.5, until=0.75, strength=0.2)
    scenario = Scenario(id="x", description="", start_ms=1_000, duration_ms=400, incident=incident)
    assert scenario.incident_span_ms("bots", "item_wave") == (1_200, 1_300)
    assert scenario.incident_span_ms("item_wave") is None
    assert SCENARIOS["stationary"].incident_span_ms("bots") is None


def test_scenario_reseeded_changes_nothing_but_chance() -> None:
    again = SCENARIOS["abrupt"].reseeded(9)
    assert again.seed == 9
    assert replace(again, seed=1) == SCENARIOS["abrupt"]


@pytest.mark.parametrize(
    ("make", "values", "reason"),
    [
        (Incident, {"kind": "bots", "at": 2.0}, r"^incident\.at must lie between 0 and 1, got 2"),
        (Incident, {"kind": "bots", "at": 0.5, "until": 0.5}, r"^incident\.until must be above"),
        (Incident, {"kind": "bots", "at": 0.5, "strength": 0.0}, r"^incident\.strength must be"),
        (TasteChange, {"at": 1.5}, r"^change\.at must lie between 0 and 1, got 1\.5"),
        (TasteChange, {"at": 0.5, "over": -1.0}, r"^change\.over must lie between"),
        (TasteChange, {"at": 0.5, "to_taste": -1}, r"^change\.to_taste must not be negative"),
        (Population, {"num_items": 0}, r"^population\.num_items must be positive, got 0"),
        (Population, {"num_categories": 1}, r"^population\.num_categories must be at least 2"),
        (Population, {"newcomer_items": 2.0}, r"^population\.newcomer_items must lie between"),
        (Traffic, {"list_size": 0}, r"^traffic\.list_size must be positive, got 0"),
        (Traffic, {"lists_per_session": 0.5}, r"^traffic\.lists_per_session must be at least 1"),
        (Traffic, {"position_bias": -1.0}, r"^traffic\.position_bias must not be negative"),
        (Noise, {"late_rate": 1.1}, r"^noise\.late_rate must lie between 0 and 1, got 1\.1"),
        (Noise, {"late_by_ms": 0}, r"^noise\.late_by_ms must be positive, got 0"),
        (Noise, {"disorder_ms": -1}, r"^noise\.disorder_ms must not be negative, got -1"),
        (Scenario, {"id": "", "description": ""}, r"^scenario\.id must be given"),
        (Scenario, {"id": "x", "description": "", "seed": -1}, r"^scenario\.seed must not be"),
        (Scenario, {"id": "x", "description": "", "duration_ms": 0}, r"duration_ms must be posit"),
        (
            Scenario,
            {
                "id": "x",
                "description": "",
                "changes": (TasteChange(at=0.3, over=0.4), TasteChange(at=0.5)),
            },
            r"^scenario\.changes: one begins at 0\.5, before 0\.7",
        ),
    ],
)
def test_scenario_parts_refuse_what_makes_no_sense(
    make: Any, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        make(**values)
