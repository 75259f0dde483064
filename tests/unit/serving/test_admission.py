from __future__ import annotations

import threading

import pytest

from domain.clock import ManualClock, SystemClock
from domain.errors import DeadlineExceededError, OverloadedError
from serving.admission import Admission, Deadline


def test_deadline_counts_down_and_names_the_stage_it_had_no_time_for():
    clock = ManualClock()
    deadline = Deadline(clock, 0.5)
    clock.sleep(0.2)
    assert deadline.remaining_s() == pytest.approx(0.3)
    deadline.check("ranking")
    clock.sleep(0.4)
    assert deadline.remaining_s() == 0.0
    with pytest.raises(DeadlineExceededError, match="before ranking"):
        deadline.check("ranking")


def test_admission_refuses_at_once_when_full_and_lets_in_again_afterwards():
    admission = Admission(max_concurrency=1, max_waiting=1)
    with (
        admission.enter(),
        admission.enter(),
        pytest.raises(OverloadedError, match="2 requests"),
        admission.enter(),
    ):
        pytest.fail("the third was let in")
    with admission.enter():
        pass


def test_admission_frees_the_place_of_a_request_that_failed():
    admission = Admission(max_concurrency=1, max_waiting=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.enter(), admission.turn(long_deadline()):
            raise ZeroDivisionError
    with admission.enter(), admission.turn(long_deadline()):
        pass


def test_admission_lets_only_so_many_take_a_turn_at_once():
    admission = Admission(max_concurrency=1, max_waiting=1)
    inside, may_leave = threading.Event(), threading.Event()

    def hold() -> None:
        with admission.turn(long_deadline()):
            inside.set()
            may_leave.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(5)
    with (
        pytest.raises(DeadlineExceededError, match="waiting for a turn"),
        admission.turn(Deadline(SystemClock(), 0.02)),
    ):
        pytest.fail("two turns at once")
    may_leave.set()
    with admission.turn(long_deadline()):
        pass
    holder.join()


def long_deadline() -> Deadline:
    return Deadline(SystemClock(), 5.0)


def test_admission_tells_the_refused_how_long_requests_stay_lately():
    clock = ManualClock()
    admission = Admission(max_concurrency=1, max_waiting=0, clock=clock)
    for _ in range(100):
        with admission.enter():
            clock.sleep(2.0)
    with admission.enter(), pytest.raises(OverloadedError) as caught, admission.enter():
        pytest.fail("a second was let in")
    assert caught.value.retry_after_s == pytest.approx(2.0, rel=0.01)
