from protos.headrace.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NumberRange(_message.Message):
    __slots__ = ("at_least", "at_most")
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    at_least: float
    at_most: float
    def __init__(self, at_least: _Optional[float] = ..., at_most: _Optional[float] = ...) -> None: ...

class ItemCondition(_message.Message):
    __slots__ = ("feature", "one_of", "range", "negated")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    ONE_OF_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    NEGATED_FIELD_NUMBER: _ClassVar[int]
    feature: str
    one_of: _events_pb2.StringList
    range: NumberRange
    negated: bool
    def __init__(self, feature: _Optional[str] = ..., one_of: _Optional[_Union[_events_pb2.StringList, _Mapping]] = ..., range: _Optional[_Union[NumberRange, _Mapping]] = ..., negated: _Optional[bool] = ...) -> None: ...

class Filters(_message.Message):
    __slots__ = ("exclude_seen", "allow", "deny", "where")
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    exclude_seen: bool
    allow: _events_pb2.StringList
    deny: _containers.RepeatedScalarFieldContainer[str]
    where: _containers.RepeatedCompositeFieldContainer[ItemCondition]
    def __init__(self, exclude_seen: _Optional[bool] = ..., allow: _Optional[_Union[_events_pb2.StringList, _Mapping]] = ..., deny: _Optional[_Iterable[str]] = ..., where: _Optional[_Iterable[_Union[ItemCondition, _Mapping]]] = ...) -> None: ...
