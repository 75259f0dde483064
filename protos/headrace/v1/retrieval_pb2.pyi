from protos.headrace.v1 import events_pb2 as _events_pb2
from protos.headrace.v1 import failure_pb2 as _failure_pb2
from protos.headrace.v1 import filters_pb2 as _filters_pb2
from protos.headrace.v1 import recommender_pb2 as _recommender_pb2
from protos.headrace.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetrieveRequest(_message.Message):
    __slots__ = ("user_id", "limit", "exclude_seen", "filters", "answer_form", "context")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _events_pb2.FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_events_pb2.FeatureValue, _Mapping]] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FORM_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    limit: int
    exclude_seen: bool
    filters: _filters_pb2.Filters
    answer_form: _tensors_pb2.AnswerForm
    context: _containers.MessageMap[str, _events_pb2.FeatureValue]
    def __init__(self, user_id: _Optional[str] = ..., limit: _Optional[int] = ..., exclude_seen: _Optional[bool] = ..., filters: _Optional[_Union[_filters_pb2.Filters, _Mapping]] = ..., answer_form: _Optional[_Union[_tensors_pb2.AnswerForm, str]] = ..., context: _Optional[_Mapping[str, _events_pb2.FeatureValue]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("items", "info", "tensors")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_recommender_pb2.ScoredItem]
    info: _recommender_pb2.AnswerInfo
    tensors: _tensors_pb2.ScoredTensors
    def __init__(self, items: _Optional[_Iterable[_Union[_recommender_pb2.ScoredItem, _Mapping]]] = ..., info: _Optional[_Union[_recommender_pb2.AnswerInfo, _Mapping]] = ..., tensors: _Optional[_Union[_tensors_pb2.ScoredTensors, _Mapping]] = ...) -> None: ...

class BatchRetrieveRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RetrieveRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RetrieveRequest, _Mapping]]] = ...) -> None: ...

class RetrieveOutcome(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: RetrieveResponse
    failure: _failure_pb2.Failure
    def __init__(self, response: _Optional[_Union[RetrieveResponse, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class BatchRetrieveResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[RetrieveOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[RetrieveOutcome, _Mapping]]] = ...) -> None: ...
