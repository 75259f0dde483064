from protos.headrace.v1 import events_pb2 as _events_pb2
from protos.headrace.v1 import failure_pb2 as _failure_pb2
from protos.headrace.v1 import filters_pb2 as _filters_pb2
from protos.headrace.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnswerPath(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_PATH_UNSPECIFIED: _ClassVar[AnswerPath]
    ANSWER_PATH_RANKED: _ClassVar[AnswerPath]
    ANSWER_PATH_RETRIEVED: _ClassVar[AnswerPath]
    ANSWER_PATH_POPULAR: _ClassVar[AnswerPath]
    ANSWER_PATH_COLD_START: _ClassVar[AnswerPath]
ANSWER_PATH_UNSPECIFIED: AnswerPath
ANSWER_PATH_RANKED: AnswerPath
ANSWER_PATH_RETRIEVED: AnswerPath
ANSWER_PATH_POPULAR: AnswerPath
ANSWER_PATH_COLD_START: AnswerPath

class ScoredItem(_message.Message):
    __slots__ = ("item_id", "score")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class AnswerInfo(_message.Message):
    __slots__ = ("snapshot_id", "path", "model_age_ms")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MODEL_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: str
    path: AnswerPath
    model_age_ms: int
    def __init__(self, snapshot_id: _Optional[str] = ..., path: _Optional[_Union[AnswerPath, str]] = ..., model_age_ms: _Optional[int] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "limit", "context", "filters", "answer_form")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _events_pb2.FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_events_pb2.FeatureValue, _Mapping]] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FORM_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    limit: int
    context: _containers.MessageMap[str, _events_pb2.FeatureValue]
    filters: _filters_pb2.Filters
    answer_form: _tensors_pb2.AnswerForm
    def __init__(self, user_id: _Optional[str] = ..., limit: _Optional[int] = ..., context: _Optional[_Mapping[str, _events_pb2.FeatureValue]] = ..., filters: _Optional[_Union[_filters_pb2.Filters, _Mapping]] = ..., answer_form: _Optional[_Union[_tensors_pb2.AnswerForm, str]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("items", "info", "impression_id", "tensors")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    info: AnswerInfo
    impression_id: str
    tensors: _tensors_pb2.ScoredTensors
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., info: _Optional[_Union[AnswerInfo, _Mapping]] = ..., impression_id: _Optional[str] = ..., tensors: _Optional[_Union[_tensors_pb2.ScoredTensors, _Mapping]] = ...) -> None: ...

class BatchRecommendRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecommendRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecommendRequest, _Mapping]]] = ...) -> None: ...

class RecommendOutcome(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: RecommendResponse
    failure: _failure_pb2.Failure
    def __init__(self, response: _Optional[_Union[RecommendResponse, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class BatchRecommendResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[RecommendOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[RecommendOutcome, _Mapping]]] = ...) -> None: ...
