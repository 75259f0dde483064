from __future__ import annotations

import pytest

from domain.clock import ManualClock
from domain.errors import ConfigError, OverloadedError
from serving.quotas import QuotaConfig, Quotas


def quotas_of(clock: ManualClock, **config) -> Quotas:
    return Quotas(QuotaConfig(**{"calls_per_s": 2.0, "burst": 3, **config}), clock)


def taken(quotas: Quotas, client: str, calls: int) -> int:
    """Return how many of so many calls, one after the other, are let through."""
    count = 0
    for _ in range(calls):
        try:
            quotas.take(client)
        except OverloadedError:
            continue
        count += 1
    return count


def test_a_client_has_a_burst_and_then_what_it_earns():
    clock = ManualClock()
    quotas = quotas_of(clock)
    assert taken(quotas, "ann", 10) == 3
    clock.sleep(1.0)
    assert taken(quotas, "ann", 10) == 2
    clock.sleep(100.0)
    assert taken(quotas, "ann", 10) == 3  # a pause earns no more than a burst


def test_one_client_does_not_use_up_the_quota_of_another():
    quotas = quotas_of(ManualClock())
    assert taken(quotas, "ann", 10) == 3
    assert taken(quotas, "bob", 10) == 3


def test_refused_clients_are_told_when_the_next_call_is_free():
    clock = ManualClock()
    quotas = quotas_of(clock)
    taken(quotas, "ann", 3)
    with pytest.raises(OverloadedError, match=r"over quota: 2 calls a second, 3 at once") as caught:
        quotas.take("ann")
    assert caught.value.retry_after_s == pytest.approx(0.5)
    clock.sleep(caught.value.retry_after_s)
    quotas.take("ann")


def test_several_calls_at_once_are_taken_all_or_none():
    clock = ManualClock()
    quotas = quotas_of(clock)
    quotas.take("ann", 2)
    with pytest.raises(OverloadedError) as caught:
        quotas.take("ann", 2)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    quotas.take("ann", 1)


def test_a_batch_larger_than_a_burst_is_not_refused_for_ever():
    quotas = quotas_of(ManualClock())
    quotas.take("ann", 100)
    assert taken(quotas, "ann", 1) == 0


def test_no_quota_means_no_limit_and_nothing_kept():
    quotas = quotas_of(ManualClock(), calls_per_s=0.0)
    assert taken(quotas, "ann", 1_000) == 1_000
    assert len(quotas._buckets) == 0


def test_memory_is_bounded_by_forgetting_who_was_not_seen_for_longest():
    quotas = quotas_of(ManualClock(), max_clients=2)
    taken(quotas, "ann", 3)
    taken(quotas, "bob", 3)
    taken(quotas, "ann", 1)
    taken(quotas, "cid", 3)
    assert list(quotas._buckets) == ["ann", "cid"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"calls_per_s": -1.0}, "server.quota.calls_per_s must not be negative, got -1.0"),
        ({"burst": 0}, "server.quota.burst must be at least 1, got 0"),
        ({"max_clients": 0}, "server.quota.max_clients must be at least 1, got 0"),
    ],
)
def test_config_names_the_key_that_is_out_of_range(setting, message):
    with pytest.raises(ConfigError, match=message):
        QuotaConfig(**setting)
