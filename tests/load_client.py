"""A client under load: asks all servers in turn, without ever trying again, and counts what failed.

It does what a careful client of several servers does: it balances over their addresses and leaves
out those whose health says NOT_SERVING. It has no retry policy, so whatever fails is seen here.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2  # noqa: F401 - client-side health checks need it in the pool

from protos.headrace.v1 import recommender_pb2, recommender_pb2_grpc

_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
    }
)


def balanced_channel(addresses: Sequence[str]) -> grpc.Channel:
    """Return a channel over several servers that leaves out those that do not serve."""
    return grpc.insecure_channel(
        f"ipv4:{','.join(addresses)}",
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ],
    )


@dataclass
class Load:
    """What came of the calls so far.

    Attributes:
        failures: number of calls by status and details.
        seconds: how long each call that was answered took.
        paths: answers by the path that gave them.
        unlogged: answers without an impression id, as the log did not take it in time.
    """

    failures: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    unlogged: int = 0

    @property
    def answered(self) -> int:
        """How many calls were answered."""
        return len(self.seconds)


class LoadClient:
    """Asks for recommendations from several threads until it is stopped."""

    def __init__(
        self, addresses: Sequence[str], num_threads: int, pause_s: float, timeout_s: float = 2.0
    ) -> None:
        self.load = Load()
        self._channel = balanced_channel(addresses)
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(num_threads)
        ]

    def __enter__(self) -> LoadClient:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    def wait_for_answers(self, more: int, within_s: float = 60.0) -> None:
        """Wait until so many more calls were answered, or any failed."""
        wanted = self.load.answered + more
        deadline_s = time.monotonic() + within_s
        while self.load.answered < wanted and not self.load.failures:
            assert time.monotonic() < deadline_s, f"{self.load.answered} of {wanted} answers"
            time.sleep(0.02)

    def _ask(self, number: int) -> None:
        stub = recommender_pb2_grpc.RecommenderStub(self._channel)
        count = 0
        while not self._stop.wait(self._pause_s):
            count += 1
            request = recommender_pb2.RecommendRequest(user_id=f"u{(7 * number + count) % 40}")
            started_s = time.monotonic()
            try:
                answer = stub.Recommend(request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                with self._lock:
                    self.load.failures[f"{error.code().name}: {error.details()}"] += 1
                continue
            path = recommender_pb2.AnswerPath.Name(answer.info.path)
            with self._lock:
                self.load.seconds.append(time.monotonic() - started_s)
                self.load.paths[path] += 1
                self.load.unlogged += not answer.impression_id
