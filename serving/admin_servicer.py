"""headrace.v1.Admin over gRPC."""

from __future__ import annotations

import logging

import grpc

from protos.headrace.v1 import admin_pb2, admin_pb2_grpc
from serving import convert_answers, request_id, validate
from serving.live_models import LiveModelSlot
from serving.snapshot_desk import SnapshotDesk

_logger = logging.getLogger(__name__)


class AdminServicer(admin_pb2_grpc.AdminServicer):
    """Which snapshot is served."""

    def __init__(self, snapshots: SnapshotDesk, slot: LiveModelSlot) -> None:
        self._snapshots = snapshots
        self._slot = slot

    def ListSnapshots(  # noqa: N802 - the name is the service's
        self, request: admin_pb2.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListSnapshotsResponse:
        """Tell what is in the store and what is served."""
        live_id = self._slot.snapshot_id
        return admin_pb2.ListSnapshotsResponse(
            snapshots=[
                convert_answers.snapshot_message(one, live_id) for one in self._snapshots.list()
            ]
        )

    def Promote(  # noqa: N802 - the name is the service's
        self, request: admin_pb2.PromoteRequest, context: grpc.ServicerContext
    ) -> admin_pb2.PromoteResponse:
        """Make a snapshot the current one."""
        validate.check_id("snapshot_id", request.snapshot_id)
        switched = self._snapshots.promote(request.snapshot_id)
        _log("snapshot promoted", switched.snapshot_id, switched.previous_id)
        return admin_pb2.PromoteResponse(
            snapshot_id=switched.snapshot_id, previous_id=switched.previous_id
        )

    def Rollback(  # noqa: N802 - the name is the service's
        self, request: admin_pb2.RollbackRequest, context: grpc.ServicerContext
    ) -> admin_pb2.RollbackResponse:
        """Make the snapshot before the current one the current one."""
        switched = self._snapshots.rollback()
        _log("snapshot rolled back", switched.snapshot_id, switched.previous_id)
        return admin_pb2.RollbackResponse(
            snapshot_id=switched.snapshot_id, previous_id=switched.previous_id
        )


def _log(event: str, snapshot_id: str, previous_id: str) -> None:
    """Leave a trace of who changed what is served: the caller's request id leads to her."""
    _logger.warning(
        event,
        extra={
            "request": request_id.current(),
            "snapshot": snapshot_id,
            "previous": previous_id,
        },
    )
