"""What the overview calls healthy, and that its limits are those of the alert rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from monitoring.dashboard import health
from monitoring.dashboard.health import Check, checks, worst
from monitoring.dashboard.records import Look
from monitoring.history_recorder import sample_of
from monitoring.metric_history import HistoryConfig, MetricHistory
from monitoring.metrics import Metrics
from tests.dashboard_worlds import HOUR_MS, NOW_MS, SERVER, past_run, records_in

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "rules.yml"


class Samples:
    """A trainer and a server with a sample every minute of the last hour."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.trainer, self.server = Metrics(), Metrics()
        self._history = MetricHistory(folder / "history.sqlite", HistoryConfig())
        self._history.begin("trainer", NOW_MS - HOUR_MS)
        self._history.begin(SERVER, NOW_MS - HOUR_MS)

    def write(self, ago_ms: int) -> None:
        for name, metrics in (("trainer", self.trainer), (SERVER, self.server)):
            self._history.write(name, NOW_MS - ago_ms, sample_of(metrics))

    def entropy(self, value: float) -> None:
        labels = {"variant": "online+memory", "head": "click", "scope": "window"}
        self.trainer.monitoring.normalized_entropy.labels(**labels).set(value)

    def checks(self) -> dict[str, Check]:
        look = Look(records_in(self.folder), HOUR_MS)
        return {check.name: check for check in checks(look)}


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    return Samples(tmp_path / "data")


def test_a_run_that_ended_is_looked_at_and_not_acted_on(tmp_path: Path) -> None:
    found = checks(Look(records_in(past_run(tmp_path / "data")), HOUR_MS))
    by_name = {check.name: check for check in found}
    assert by_name["Trainer"].text == "was stopped at 2027-01-15 08:00:00 UTC"
    assert by_name["Events"].text == "3,000 in the last five minutes"
    assert by_name["Lag"].text == "the trainer is 3 records behind"
    assert by_name["Quality of click"].text == "normalized entropy 0.9, useful below 1"
    assert by_name["Drift"] == Check("Drift", "look", "1 live signal", "HeadraceDrift")
    assert worst(found) == "look"


def test_a_run_that_fell_silent_is_acted_on(tmp_path: Path) -> None:
    records = records_in(past_run(tmp_path / "data", ended=False))
    records.clock.advance_to(NOW_MS + 60_000)  # type: ignore[attr-defined]
    found = {check.name: check for check in checks(Look(records, HOUR_MS))}
    assert found["Trainer"].state == "bad"
    assert found["Trainer"].text == "fell silent at 2027-01-15 08:00:00 UTC"


def test_all_is_well(samples: Samples) -> None:
    samples.entropy(0.8)
    samples.trainer.snapshot.age_seconds.set(5.0)
    samples.trainer.stream.consumer_lag_records.labels(partition="events/0").set(0)
    samples.server.serving.model_age_seconds.set(30.0)
    samples.write(60_000)
    samples.trainer.stream.events.labels(kind="feedback").inc(10)
    samples.server.serving.requests.labels(method="recommend", code="OK").inc(100)
    for _ in range(100):
        samples.server.serving.request_seconds.labels(method="recommend").observe(0.004)
    samples.write(0)
    found = samples.checks()
    assert {check.state for check in found.values()} == {"good"}
    assert found["Requests"].text == "100 in the last five minutes, 0 % failed"
    assert found["Recommend"].text == "99 % within 4.98 ms"
    assert worst(list(found.values())) == "good"


def test_useless_predictions_are_acted_on_only_when_it_lasts(samples: Samples) -> None:
    for ago in range(60, -1, -5):
        samples.entropy(0.9 if ago > 20 else 1.2)
        samples.write(ago * 60_000)
    check = samples.checks()["Quality of click"]
    assert check.state == "look"
    assert check.text == "normalized entropy 1.2, no better than the mean rate for 20 min"
    samples.entropy(1.3)
    for ago in range(60, -1, -5):
        samples.write(ago * 60_000)
    assert samples.checks()["Quality of click"].state == "bad"


def test_what_went_wrong_is_named(samples: Samples) -> None:
    samples.write(60_000)
    samples.trainer.stream.dead_letters.labels(reason_class="schema").inc(3)
    samples.trainer.stream.log_failures.inc()
    samples.trainer.stream.quarantined_examples.labels(learner="ranking").inc(64)
    samples.trainer.snapshot.publish_failures.inc()
    samples.trainer.snapshot.age_seconds.set(700)
    samples.trainer.monitoring.logged_errors.inc(2)
    samples.trainer.stream.consumer_lag_records.labels(partition="events/0").set(5_000)
    samples.server.serving.model_age_seconds.set(7_200)
    requests = samples.server.serving.requests
    requests.labels(method="recommend", code="OK").inc(90)
    requests.labels(method="recommend", code="INTERNAL").inc(10)
    samples.server.serving.answers.labels(path="popular").inc(50)
    samples.write(30_000)
    requests.labels(method="recommend", code="INTERNAL").inc(10)
    samples.write(0)
    texts = {name: check.text for name, check in samples.checks().items()}
    assert texts["Dead letters"] == "3 records in 15 minutes"
    assert texts["Event log"] == "1 failures in 15 minutes"
    assert texts["Quarantine"] == "64 examples in 15 minutes"
    assert texts["Publishing"] == "publishing failed 1 times in 15 minutes"
    assert texts["Snapshot"] == "11 min 40 s of work is in no snapshot yet"
    assert texts["Errors"] == "2 logged in the last hour"
    assert texts["Lag"] == "the trainer is 5,000 records behind"
    assert texts["Served models"] == "the newest event they know is 2 h old"
    assert texts["Answers"] == "100 % are fallbacks"
    assert samples.checks()["Requests"].state == "bad"


def test_without_records_nothing_is_claimed(tmp_path: Path) -> None:
    found = checks(Look(records_in(tmp_path), HOUR_MS))
    assert [check.state for check in found] == ["unknown", "unknown"]
    assert worst(found) == "unknown"


LIMITS = {
    "HeadraceLagGrows": health.MAX_LAG_RECORDS,
    "HeadraceSnapshotTooOld": health.MAX_SNAPSHOT_AGE_S,
    "HeadraceServedModelOld": health.MAX_MODEL_AGE_S,
    "HeadraceRecommendSlow": health.MAX_RECOMMEND_S,
    "HeadraceRequestsFail": health.MAX_FAILED_SHARE,
    "HeadraceAnswersDegraded": health.MAX_FALLBACK_SHARE,
}


def rules() -> dict[str, dict[str, str]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.mark.parametrize("alert", LIMITS)
def test_limit_is_that_of_the_alert_rule(alert: str) -> None:
    limits = [float(found) for found in re.findall(r"> ([\d.]+)", rules()[alert]["expr"])]
    assert [limit for limit in limits if limit > 0] == [LIMITS[alert]]


def test_patience_is_that_of_the_alert_rule() -> None:
    assert rules()["HeadraceUseless"]["for"] == f"{health.PATIENCE_MS // 60_000}m"


def test_every_alert_that_a_check_names_exists(samples: Samples) -> None:
    source = Path(health.__file__).read_text()
    named = set(re.findall(r'"(Headrace\w+)"', source))
    assert len(named) > 10
    assert named <= set(rules())
