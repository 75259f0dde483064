"""What ids and scores cost as bytes tensors, beside the same in repeated fields.

    python benchmarks/bench_messages.py [--quick] [--json FILE]

    messages_N   CPU time of the messages of one Rank with N items, repeated over tensors: request
                 made and written by the client, read by the server, answer made and written by the
                 server, read by the client; each side with the code it ships
    call_N       the same through gRPC on the loopback and the real servicer, behind which nothing
                 is ranked: CPU time of both sides, which are one process here

CPU time, not wall time: what else runs on the machine must not decide. Answers are compared before
any ratio is printed. Rounds of the two forms alternate; each ratio is the median over rounds of one
form's time over that of the other beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import grpc
import numpy as np

from client import RankQuery, wire
from domain.recommendations import Recommendation, ScoredItem
from protos.headrace.v1 import ranking_pb2, ranking_pb2_grpc
from serving import convert, convert_answers
from serving.ranking_servicer import RankingServicer

GOALS = {"messages_500": 1.5}
SIZES = (10, 100, 500, 2_000)

Found = tuple[list[str], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, 60 %% of the goals")
    parser.add_argument("--json", type=Path, help="write the result there")
    given = parser.parse_args()
    rounds = 7 if given.quick else 41
    found: dict[str, float] = {}
    for size in SIZES:
        answer = ranked(size)
        found[f"messages_{size}"] = messages(answer, rounds)
        found[f"call_{size}"] = calls(answer, rounds)
    slack = 0.6 if given.quick else 1.0
    met = {name: found[name] >= slack * goal for name, goal in GOALS.items()}
    for name, goal in GOALS.items():
        print(f"{name}: {found[name]:.2f}, goal >= {goal}{'' if met[name] else '  MISSED'}")
    result = {"suite": "messages", "ratios": found, "goals": GOALS, "ok": all(met.values())}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def ranked(size: int) -> Recommendation:
    """Return what a recommender hands to the servicer."""
    scores = np.sort(np.random.default_rng(7).random(size, np.float32))[::-1].tolist()
    return Recommendation(
        items=tuple(
            ScoredItem(item_id=f"item-{number:07d}", score=score)
            for number, score in enumerate(scores)
        ),
        snapshot_id="000000001200-4f2a9c",
        path="ranked",
    )


def messages(answer: Recommendation, rounds: int) -> float:
    """Return the ratio for making, writing and reading messages alone."""
    ids = [item.item_id for item in answer.items]
    repeats = max(20_000 // len(ids), 5)

    def repeated() -> Found:
        request = ranking_pb2.RankRequest(user_id="ann", item_ids=ids)
        read = ranking_pb2.RankRequest.FromString(request.SerializeToString())
        assert len(convert.ranked_ids(read)) == len(ids)
        response = convert_answers.rank_response(answer).SerializeToString()
        return repeated_items(ranking_pb2.RankResponse.FromString(response))

    def tensors() -> Found:
        request = wire.rank_request(RankQuery(user_id="ann", item_ids=ids))
        read = ranking_pb2.RankRequest.FromString(request.SerializeToString())
        assert len(convert.ranked_ids(read)) == len(ids)
        response = convert_answers.rank_response(answer, as_tensors=True).SerializeToString()
        got = wire.answer_of(ranking_pb2.RankResponse.FromString(response))
        return list(got.item_ids), list(got.scores)

    sizes = [
        convert_answers.rank_response(answer, as_tensors=form).ByteSize() for form in (False, True)
    ]
    ratio, repeated_s, tensors_s = compared(repeated, tensors, rounds, repeats)
    print(
        f"messages of {len(ids):>5} items: {repeated_s * 1e6:8.1f} us repeated, "
        f"{tensors_s * 1e6:8.1f} us tensors, {ratio:5.2f} x; answers of {sizes[0]:,} and "
        f"{sizes[1]:,} bytes"
    )
    return ratio


def calls(answer: Recommendation, rounds: int) -> float:
    """Return the ratio for whole calls."""
    ids = [item.item_id for item in answer.items]
    with server(answer) as rank:

        def repeated() -> Found:
            request = ranking_pb2.RankRequest(user_id="ann", item_ids=ids)
            return repeated_items(rank(request, timeout=10.0))

        def tensors() -> Found:
            request = wire.rank_request(RankQuery(user_id="ann", item_ids=ids))
            got = wire.answer_of(rank(request, timeout=10.0))
            return list(got.item_ids), list(got.scores)

        ratio, repeated_s, tensors_s = compared(repeated, tensors, rounds, 20)
    print(
        f"   calls of {len(ids):>5} items: {repeated_s * 1e6:8.1f} us repeated, "
        f"{tensors_s * 1e6:8.1f} us tensors, {ratio:5.2f} x"
    )
    return ratio


def repeated_items(response: ranking_pb2.RankResponse) -> Found:
    """Read an answer as its callers do: each item once."""
    ids, scores = [], []
    for item in response.items:
        ids.append(item.item_id)
        scores.append(item.score)
    return ids, scores


def compared(
    repeated: Callable[[], Found],
    tensors: Callable[[], Found],
    rounds: int,
    repeats: int,
) -> tuple[float, float, float]:
    """Return the median ratio, and the best seconds of either form."""
    assert repeated() == tensors(), "the two forms do not say the same"
    timed = [(_seconds(repeated, repeats), _seconds(tensors, repeats)) for _ in range(rounds)]
    ratio = float(np.median([one / other for one, other in timed]))
    return ratio, min(one for one, _ in timed), min(other for _, other in timed)


def _seconds(work: Callable[[], Found], repeats: int) -> float:
    started_s = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - started_s) / repeats


class _Known:
    """Stands in for the recommender: the answer is there already."""

    def __init__(self, answer: Recommendation) -> None:
        self._answer = answer

    def rank(self, *_: object) -> Recommendation:
        return self._answer


@contextmanager
def server(answer: Recommendation) -> Iterator[Callable[..., ranking_pb2.RankResponse]]:
    """Serve one answer, and yield the method that asks for it."""
    serving = grpc.server(ThreadPoolExecutor(1))
    ranking_pb2_grpc.add_RankingServicer_to_server(RankingServicer(_Known(answer)), serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ranking_pb2_grpc.RankingStub(channel).Rank
    finally:
        serving.stop(None).wait()


if __name__ == "__main__":
    main()
