"""The exception tree: everything Headrace raises on purpose.

HeadraceError
|-- ConfigError            a setting is unknown, missing or out of range (names the dotted key)
|-- SchemaError            a feature schema contradicts itself, or data contradicts the schema
|-- DatasetError           a dataset folder or file cannot be read as what it claims to be
|-- InvalidRequestError    a caller's request is malformed (names the field)
|-- LogError               something is wrong with an event log
|   |-- LogUnavailableError    the log cannot be reached or written now; trying again may help
|   |-- LogPositionError       a position lies outside what the log still holds
|   |   `-- LogGapError            records that were still to be read are gone
|   `-- DecodeError            one record is not an event (carries its position)
|-- SnapshotError          something is wrong with a snapshot
|   |-- SnapshotNotFoundError  there is none, or none with that id
|   |-- SnapshotDamagedError   a file is missing, or its checksum differs (names the file)
|   `-- DeltaGapError          the next delta is gone, or will never come: load a snapshot
|-- JournalError           the step journal cannot be read, or not replayed (says which part)
|-- ModelError             a model refuses to go on
|   `-- NonFiniteLossError     a loss or gradient was NaN or infinite; the weights are unchanged
|-- ProcessError           a child process ended although nobody asked it to
|-- RecordsError           what was kept of past metrics cannot be used (names the file)
`-- ServingError           an answer cannot be given
    |-- NotReadyError          no snapshot is live yet
    |-- OverloadedError        the request was refused early because too many are waiting
    |-- DeadlineExceededError  the caller's deadline passed before an answer was ready
    |-- CallCancelledError     the caller went away before an answer was ready
    |-- StoppingError          a stream ends because the server stops
    |-- UnauthenticatedError   the caller did not show who it is, or is not known
    `-- PermissionDeniedError  the caller is known and may not do this
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of everything Headrace raises on purpose; its message is fit to be shown to a user."""


class ConfigError(HeadraceError, ValueError):
    """A setting is unknown, missing or out of range; the message starts with the dotted key."""


class SchemaError(HeadraceError, ValueError):
    """A feature schema contradicts itself, or data contradicts the schema."""


class DatasetError(HeadraceError):
    """A dataset folder or file cannot be read as what it claims to be."""


class InvalidRequestError(HeadraceError, ValueError):
    """A caller's request is malformed.

    Attributes:
        field: name of the offending request field, as the caller knows it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class LogError(HeadraceError):
    """Something is wrong with an event log."""


class LogUnavailableError(LogError):
    """The log cannot be reached or written now; trying again may help."""


class LogPositionError(LogError):
    """A position lies outside what the log still holds."""


class LogGapError(LogPositionError):
    """Records that were still to be read are gone: too old, or the log was made anew.

    Attributes:
        partition: where, "topic/partition".
        position: next offset that was to be read.
        beginning: oldest offset still held; above `position` when retention was faster.
        end: offset the next record will get; below `position` when the log was made anew.
    """

    def __init__(self, where: str, partition: str, position: int, beginning: int, end: int) -> None:
        cause = (
            "records before it were deleted"
            if position < beginning
            else "its end lies before that: it was made anew or restored"
        )
        super().__init__(
            f"{where}: expected to go on at {partition}@{position}, "
            f"but the log holds {beginning} to {end}; {cause}"
        )
        self.partition = partition
        self.position = position
        self.beginning = beginning
        self.end = end


class DecodeError(LogError):
    """One record is not an event.

    Attributes:
        reason: what was expected and what came.
        where: position of the record, empty while it is not known.
    """

    def __init__(self, reason: str, *, where: str = "") -> None:
        super().__init__(f"{reason} (at {where})" if where else reason)
        self.reason = reason
        self.where = where


class SnapshotError(HeadraceError):
    """Something is wrong with a snapshot."""


class SnapshotNotFoundError(SnapshotError):
    """There is no snapshot, or none with that id."""


class SnapshotDamagedError(SnapshotError):
    """A file of a snapshot is missing or its checksum differs; the message names the file."""


class DeltaGapError(SnapshotError):
    """The next delta of a chain is gone, or the chain has ended: load a full snapshot."""


class JournalError(HeadraceError):
    """The step journal cannot be read, or what it describes cannot be replayed any more."""


class ModelError(HeadraceError):
    """A model refuses to go on."""


class NonFiniteLossError(ModelError):
    """A loss or gradient was NaN or infinite; the weights are as they were before the step."""


class ProcessError(HeadraceError):
    """A child process ended although nobody asked it to; the message says how."""


class RecordsError(HeadraceError):
    """What was kept of past metrics or signals cannot be used; the message names the file."""


class ServingError(HeadraceError):
    """An answer cannot be given."""


class NotReadyError(ServingError):
    """No snapshot is live yet."""


class OverloadedError(ServingError):
    """The request was refused early because too many are waiting, or its caller asks too often.

    Attributes:
        retry_after_s: after how long trying again may help, None when nobody can tell.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class DeadlineExceededError(ServingError):
    """The caller's deadline passed before an answer was ready."""


class CallCancelledError(ServingError):
    """The caller went away before an answer was ready."""


class StoppingError(ServingError):
    """A stream ends because the server stops; another server, or this one later, goes on."""


class UnauthenticatedError(ServingError):
    """The caller did not show who it is, or is not known."""


class PermissionDeniedError(ServingError):
    """The caller is known and may not do this."""
