"""headrace.v1.Retrieval over gRPC."""

from __future__ import annotations

import grpc

from protos.headrace.v1 import retrieval_pb2, retrieval_pb2_grpc
from serving import convert, convert_answers
from serving.batch import BatchAnswers
from serving.interceptors import remaining_s
from serving.recommend import Recommender


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServicer):
    """Catalog to candidates."""

    def __init__(self, recommender: Recommender, batches: BatchAnswers) -> None:
        self._recommender = recommender
        self._batches = batches

    def Retrieve(  # noqa: N802 - the name is the service's
        self, request: retrieval_pb2.RetrieveRequest, context: grpc.ServicerContext
    ) -> retrieval_pb2.RetrieveResponse:
        """Return candidates for a user."""
        as_tensors = convert.wants_tensors(request.answer_form)
        answer = self._recommender.retrieve(
            request.user_id,
            request.limit,
            context=convert.features_from_message("context", request.context),
            filters=convert.retrieve_filters(request),
            deadline_s=remaining_s(context),
        )
        return convert_answers.retrieve_response(answer, as_tensors=as_tensors)

    def BatchRetrieve(  # noqa: N802 - the name is the service's
        self, request: retrieval_pb2.BatchRetrieveRequest, context: grpc.ServicerContext
    ) -> retrieval_pb2.BatchRetrieveResponse:
        """Answer several requests, each for itself."""
        convert.check_batch(request.requests)
        response = retrieval_pb2.BatchRetrieveResponse()
        answers = self._batches.answer_each(
            request.requests, lambda one: self.Retrieve(one, context)
        )
        convert_answers.add_outcomes(response.outcomes, answers)
        return response
