"""headrace.v1.Ranking over gRPC."""

from __future__ import annotations

import grpc

from protos.headrace.v1 import ranking_pb2, ranking_pb2_grpc
from serving import convert, convert_answers
from serving.batch import BatchAnswers
from serving.interceptors import remaining_s
from serving.recommend import Recommender


class RankingServicer(ranking_pb2_grpc.RankingServicer):
    """Given items to ordered scores."""

    def __init__(self, recommender: Recommender, batches: BatchAnswers) -> None:
        self._recommender = recommender
        self._batches = batches

    def Rank(  # noqa: N802 - the name is the service's
        self, request: ranking_pb2.RankRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RankResponse:
        """Return the given items, best first."""
        as_tensors = convert.wants_tensors(request.answer_form)
        answer = self._recommender.rank(
            request.user_id,
            convert.ranked_ids(request),
            convert.features_from_message("context", request.context),
            remaining_s(context),
        )
        return convert_answers.rank_response(answer, as_tensors=as_tensors)

    def BatchRank(  # noqa: N802 - the name is the service's
        self, request: ranking_pb2.BatchRankRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.BatchRankResponse:
        """Answer several requests, each for itself."""
        convert.check_batch(request.requests)
        response = ranking_pb2.BatchRankResponse()
        answers = self._batches.answer_each(request.requests, lambda one: self.Rank(one, context))
        convert_answers.add_outcomes(response.outcomes, answers)
        return response
