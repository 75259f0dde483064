"""Several requests in one call: each is answered, or fails, as if it had come alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from domain.errors import CallCancelledError
from serving import cancellation, request_id
from serving.failures import Failed, failed

_logger = logging.getLogger(__name__)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def answer_each(
    requests: Iterable[_Request], answer: Callable[[_Request], _Response]
) -> Iterator[_Response | Failed]:
    """Yield an answer per request, or why there is none, in their order.

    Raises:
        CallCancelledError: nobody waits for the rest.
    """
    for index, request in enumerate(requests):
        cancellation.check(f"request {index} of the batch")
        try:
            outcome: _Response | Failed = answer(request)
        except CallCancelledError:
            raise
        except Exception as error:
            outcome = failed(error, request_id.current())
            if outcome.is_internal:
                _logger.exception(
                    "request of a batch failed",
                    extra={"request": request_id.current(), "index": index},
                )
        yield outcome
