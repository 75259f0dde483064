"""Batches: answers in the order of their requests, some side by side, each for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from domain.errors import CallCancelledError, InvalidRequestError
from serving import cancellation, request_id
from serving.batch import BatchAnswers
from serving.failures import Failed


@pytest.fixture
def batches() -> Iterator[BatchAnswers]:
    batches = BatchAnswers()
    yield batches
    batches.stop()


def test_answers_come_in_the_order_of_their_requests(batches: BatchAnswers) -> None:
    def answer(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return 10 * number

    assert list(batches.answer_each(range(30), answer)) == [10 * number for number in range(30)]
    assert list(batches.answer_each([], answer)) == []


def test_four_are_answered_side_by_side_and_know_their_call(batches: BatchAnswers) -> None:
    meeting = threading.Barrier(4)

    def answer(_number: int) -> str:
        meeting.wait(30.0)
        return request_id.current()

    def call() -> list[object]:
        request_id.begin("shop-17")
        return list(batches.answer_each(range(4), answer))

    # A call has a context of its own; without one, the id would stay with this thread.
    assert copy_context().run(call) == ["shop-17"] * 4


def test_request_that_fails_leaves_the_others_alone(batches: BatchAnswers) -> None:
    def answer(number: int) -> int:
        if number == 1:
            raise InvalidRequestError("limit", "too large")
        if number == 2:
            raise RuntimeError("a fault of ours")
        return number

    found = list(batches.answer_each(range(5), answer))
    assert [one for one in found if isinstance(one, int)] == [0, 3, 4]
    assert all(isinstance(found[at], Failed) for at in (1, 2))


def test_batch_that_nobody_waits_for_is_not_answered_to_its_end(batches: BatchAnswers) -> None:
    answered: list[int] = []
    wanted = threading.Event()
    wanted.set()
    cancellation.begin(wanted.is_set)

    def answer(number: int) -> int:
        answered.append(number)
        if number == 2:
            wanted.clear()
        return number

    try:
        with pytest.raises(CallCancelledError, match=r"request \d+ of the batch"):
            list(batches.answer_each(range(100), answer))
    finally:
        cancellation.begin(lambda: True)
    assert len(answered) <= 2 + 4
