from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DriftKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRIFT_KIND_UNSPECIFIED: _ClassVar[DriftKind]
    DRIFT_KIND_COVARIATE: _ClassVar[DriftKind]
    DRIFT_KIND_LABEL: _ClassVar[DriftKind]
    DRIFT_KIND_CONCEPT: _ClassVar[DriftKind]
    DRIFT_KIND_MODEL: _ClassVar[DriftKind]
    DRIFT_KIND_STREAM: _ClassVar[DriftKind]

class DriftMeasure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRIFT_MEASURE_UNSPECIFIED: _ClassVar[DriftMeasure]
    DRIFT_MEASURE_DEVIATIONS: _ClassVar[DriftMeasure]
    DRIFT_MEASURE_PSI: _ClassVar[DriftMeasure]
    DRIFT_MEASURE_SHARE: _ClassVar[DriftMeasure]

class DriftSeverity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRIFT_SEVERITY_UNSPECIFIED: _ClassVar[DriftSeverity]
    DRIFT_SEVERITY_SMALL: _ClassVar[DriftSeverity]
    DRIFT_SEVERITY_MEDIUM: _ClassVar[DriftSeverity]
    DRIFT_SEVERITY_LARGE: _ClassVar[DriftSeverity]
DRIFT_KIND_UNSPECIFIED: DriftKind
DRIFT_KIND_COVARIATE: DriftKind
DRIFT_KIND_LABEL: DriftKind
DRIFT_KIND_CONCEPT: DriftKind
DRIFT_KIND_MODEL: DriftKind
DRIFT_KIND_STREAM: DriftKind
DRIFT_MEASURE_UNSPECIFIED: DriftMeasure
DRIFT_MEASURE_DEVIATIONS: DriftMeasure
DRIFT_MEASURE_PSI: DriftMeasure
DRIFT_MEASURE_SHARE: DriftMeasure
DRIFT_SEVERITY_UNSPECIFIED: DriftSeverity
DRIFT_SEVERITY_SMALL: DriftSeverity
DRIFT_SEVERITY_MEDIUM: DriftSeverity
DRIFT_SEVERITY_LARGE: DriftSeverity

class DriftContributor(_message.Message):
    __slots__ = ("name", "part")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    name: str
    part: float
    def __init__(self, name: _Optional[str] = ..., part: _Optional[float] = ...) -> None: ...

class DriftSignal(_message.Message):
    __slots__ = ("stream", "kind", "detector", "time_ms", "since_ms", "before", "after", "deviations", "points_before", "points_after", "ended_ms", "measure", "size", "severity", "compared_with", "contributors", "sentence")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    DEVIATIONS_FIELD_NUMBER: _ClassVar[int]
    POINTS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    POINTS_AFTER_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    COMPARED_WITH_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    stream: str
    kind: DriftKind
    detector: str
    time_ms: int
    since_ms: int
    before: float
    after: float
    deviations: float
    points_before: int
    points_after: int
    ended_ms: int
    measure: DriftMeasure
    size: float
    severity: DriftSeverity
    compared_with: str
    contributors: _containers.RepeatedCompositeFieldContainer[DriftContributor]
    sentence: str
    def __init__(self, stream: _Optional[str] = ..., kind: _Optional[_Union[DriftKind, str]] = ..., detector: _Optional[str] = ..., time_ms: _Optional[int] = ..., since_ms: _Optional[int] = ..., before: _Optional[float] = ..., after: _Optional[float] = ..., deviations: _Optional[float] = ..., points_before: _Optional[int] = ..., points_after: _Optional[int] = ..., ended_ms: _Optional[int] = ..., measure: _Optional[_Union[DriftMeasure, str]] = ..., size: _Optional[float] = ..., severity: _Optional[_Union[DriftSeverity, str]] = ..., compared_with: _Optional[str] = ..., contributors: _Optional[_Iterable[_Union[DriftContributor, _Mapping]]] = ..., sentence: _Optional[str] = ...) -> None: ...

class WatchSignalsRequest(_message.Message):
    __slots__ = ("since_ms", "stream", "kind", "min_severity", "live_only")
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MIN_SEVERITY_FIELD_NUMBER: _ClassVar[int]
    LIVE_ONLY_FIELD_NUMBER: _ClassVar[int]
    since_ms: int
    stream: str
    kind: DriftKind
    min_severity: DriftSeverity
    live_only: bool
    def __init__(self, since_ms: _Optional[int] = ..., stream: _Optional[str] = ..., kind: _Optional[_Union[DriftKind, str]] = ..., min_severity: _Optional[_Union[DriftSeverity, str]] = ..., live_only: _Optional[bool] = ...) -> None: ...
