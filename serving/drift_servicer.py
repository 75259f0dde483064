"""headrace.v1.Drift over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from protos.headrace.v1 import drift_pb2, drift_pb2_grpc
from serving import cancellation, convert_answers
from serving.convert import signal_query
from serving.signal_feed import SignalFeed


class DriftServicer(drift_pb2_grpc.DriftServicer):
    """What drift detectors noticed."""

    def __init__(self, signals: SignalFeed, draining: threading.Event) -> None:
        self._signals = signals
        self._draining = draining

    def WatchSignals(  # noqa: N802 - the name is the service's
        self, request: drift_pb2.WatchSignalsRequest, context: grpc.ServicerContext
    ) -> Iterator[drift_pb2.DriftSignal]:
        """Tell the signals that are there, then each as it is written."""
        query = signal_query(request)
        over = threading.Event()
        if not context.add_callback(over.set):
            return
        for signal in self._signals.watch(query, over, self._draining):
            yield convert_answers.signal_message(signal)
        cancellation.check("the next signal")
