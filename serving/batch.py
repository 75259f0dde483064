"""Several requests in one call: each is answered, or fails, as if it had come alone.

A few of them are answered side by side, so that their rankings are computed together.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from domain.errors import CallCancelledError
from serving import cancellation, request_id
from serving.failures import Failed, failed

_logger = logging.getLogger(__name__)

_SIDE_BY_SIDE = 4
"""Requests of one batch that are answered at a time: each takes one of the places that all callers
share (`recommender.max_concurrency` and `max_waiting`)."""

_THREADS = 8
"""Of all batches together."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class BatchAnswers:
    """Answers the requests of batches, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="batch")

    def stop(self) -> None:
        """End the threads, once they have answered."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def answer_each(
        self, requests: Iterable[_Request], answer: Callable[[_Request], _Response]
    ) -> Iterator[_Response | Failed]:
        """Yield an answer per request, or why there is none, in their order.

        Raises:
            CallCancelledError: nobody waits for the rest.
        """
        running: deque[Future[_Response | Failed]] = deque()
        try:
            for index, request in enumerate(requests):
                if len(running) == _SIDE_BY_SIDE:
                    yield running.popleft().result()
                # In a context like this one, which knows the call's id and whether it is wanted.
                context = copy_context()
                running.append(
                    self._threads.submit(context.run, _answer_one, index, request, answer)
                )
            while running:
                yield running.popleft().result()
        finally:
            for one in running:
                one.cancel()


def _answer_one(
    index: int, request: _Request, answer: Callable[[_Request], _Response]
) -> _Response | Failed:
    cancellation.check(f"request {index} of the batch")
    try:
        return answer(request)
    except CallCancelledError:
        raise
    except Exception as error:
        outcome = failed(error, request_id.current())
        if outcome.is_internal:
            _logger.exception(
                "request of a batch failed",
                extra={"request": request_id.current(), "index": index},
            )
        return outcome
