"""headrace.v1.Recommender over gRPC."""

from __future__ import annotations

import grpc

from protos.headrace.v1 import recommender_pb2, recommender_pb2_grpc
from serving import convert, convert_answers
from serving.batch import BatchAnswers
from serving.interceptors import remaining_s
from serving.recommend import Recommender


class RecommenderServicer(recommender_pb2_grpc.RecommenderServicer):
    """Retrieval, ranking and impression logging in one call."""

    def __init__(self, recommender: Recommender, batches: BatchAnswers) -> None:
        self._recommender = recommender
        self._batches = batches

    def Recommend(  # noqa: N802 - the name is the service's
        self, request: recommender_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        """Return the best items for a user, logged as shown."""
        as_tensors = convert.wants_tensors(request.answer_form)
        answer = self._recommender.recommend(
            request.user_id,
            request.limit,
            convert.features_from_message("context", request.context),
            remaining_s(context),
            filters=convert.recommend_filters(request),
        )
        return convert_answers.recommend_response(answer, as_tensors=as_tensors)

    def BatchRecommend(  # noqa: N802 - the name is the service's
        self, request: recommender_pb2.BatchRecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.BatchRecommendResponse:
        """Answer several requests, each for itself."""
        convert.check_batch(request.requests)
        response = recommender_pb2.BatchRecommendResponse()
        answers = self._batches.answer_each(
            request.requests, lambda one: self.Recommend(one, context)
        )
        convert_answers.add_outcomes(response.outcomes, answers)
        return response
