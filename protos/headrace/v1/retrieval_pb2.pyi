from protos.headrace.v1 import recommender_pb2 as _recommender_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetrieveRequest(_message.Message):
    __slots__ = ("user_id", "limit", "exclude_seen")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    limit: int
    exclude_seen: bool
    def __init__(self, user_id: _Optional[str] = ..., limit: _Optional[int] = ..., exclude_seen: _Optional[bool] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("items", "info")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_recommender_pb2.ScoredItem]
    info: _recommender_pb2.AnswerInfo
    def __init__(self, items: _Optional[_Iterable[_Union[_recommender_pb2.ScoredItem, _Mapping]]] = ..., info: _Optional[_Union[_recommender_pb2.AnswerInfo, _Mapping]] = ...) -> None: ...
