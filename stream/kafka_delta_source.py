"""Deltas from a Kafka topic, in order, from the place in the chain that a snapshot reached."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from domain.deltas import Delta, DeltaPoint
from domain.errors import DeltaGapError, LogError, SnapshotDamagedError, SnapshotError
from stream.delta_parts import Assembly, DeltaPart, part_from
from stream.kafka_client import kafka_errors_reported, make_consumer
from stream.kafka_deltas import hasty
from stream.kafka_settings import KafkaConfig
from stream.kafka_topics import deltas_plan, reject_wrong_topics

_logger = logging.getLogger(__name__)

_POLL_MS = 50
_ALL_FETCHED = 2**31
_AHEAD = 16
"""Deltas read ahead of those that are asked for, so that the end of a chain is seen early."""

_FIRST_STEP = 32
"""Records before the end where the search for a place begins: about half a minute of deltas."""

Decode = Callable[[bytes, str], Delta]


class KafkaDeltaSource:
    """Implements `domain.deltas.DeltaSource` on the topic that a publisher writes.

    Args:
        bootstrap: "host:port", or several of them separated by commas.
        decode: from the bytes of a delta, and what to call them in errors, to the delta.

    It connects when first used and belongs to one thread; `close` may be called once that thread
    has ended. A delta of which a part is missing, or whose parts do not fit together, never was.
    """

    def __init__(self, bootstrap: str, config: KafkaConfig, decode: Decode) -> None:
        self._bootstrap = bootstrap
        self._config = hasty(config)
        self._decode = decode
        self._partition = TopicPartition(config.deltas_topic, 0)
        self._consumer: Any = None
        self._reading = _Reading(DeltaPoint("", 0))
        self._foreign_told = False

    def check_topic(self) -> None:
        """Look at the topic.

        Raises:
            LogError: it is missing, or not as it must be; says what to run.
            LogUnavailableError: no broker answers.
        """
        reject_wrong_topics(self._bootstrap, self._config, [deltas_plan(self._config)])

    def after(self, point: DeltaPoint, limit: int) -> Sequence[Delta]:
        """Return at most `limit` deltas that follow `point`, in order; none while none is there.

        Raises:
            DeltaGapError: the next one is gone or was never whole, or the chain has ended.
            SnapshotDamagedError: the next one is whole, and is not what it should be.
            SnapshotError: no broker answers.
        """
        try:
            with kafka_errors_reported(self._bootstrap):
                if self._consumer is None:
                    self.check_topic()
                    self._consumer = make_consumer(self._bootstrap, self._config)
                    self._consumer.assign([self._partition])
                if not self._reading.has_what_follows(point):
                    self._reading = _Reading(point)
                    self._go_before(point)
                self._reading.drop_until(point.number)
                self._read_what_comes(max(limit, _AHEAD))
        except LogError as error:
            # Wherever we stand, what is asked for next is looked for anew.
            self._reading = _Reading(DeltaPoint("", 0))
            raise SnapshotError(str(error)) from error
        self._reading.reject_gap(point, self._where)
        return self._decoded(point, limit)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(KafkaError):
                consumer.close(autocommit=False, timeout_ms=self._config.request_timeout_ms)

    @property
    def _where(self) -> str:
        return f"kafka://{self._bootstrap}/{self._partition.topic}"

    def _decoded(self, point: DeltaPoint, limit: int) -> list[Delta]:
        deltas: list[Delta] = []
        for number, content in list(self._reading.whole)[:limit]:
            wanted = DeltaPoint(point.chain, point.number + len(deltas) + 1)
            if number != wanted.number:
                break
            try:
                deltas.append(self._checked(content, wanted))
            except SnapshotDamagedError:
                if deltas:
                    break  # these are good; the next call meets the error first
                raise
        return deltas

    def _checked(self, content: bytes, wanted: DeltaPoint) -> Delta:
        where = f"{self._where}: delta {wanted.number} of {wanted.chain}"
        delta = self._decode(content, where)
        if delta.point != wanted:
            raise SnapshotDamagedError(f"{where}: got {delta.point.number} of {delta.point.chain}")
        return delta

    def _go_before(self, point: DeltaPoint) -> None:
        """Go to a record that is not behind `point`, without reading all that the topic holds.

        What a server asks for is near the end, where the newest snapshot was made: look ever
        farther before the end until a record is old enough.

        Raises:
            DeltaGapError: another chain is written now.
        """
        begin = self._consumer.beginning_offsets([self._partition])[self._partition]
        end = self._consumer.end_offsets([self._partition])[self._partition]
        if end > begin:
            last = self._part_at(end - 1)
            if last is not None and last.point.chain != point.chain:
                self._reading = _Reading(DeltaPoint("", 0))
                raise _ended(self._where, point.chain, last.point.chain)
        at, step = end, _FIRST_STEP
        while at > begin:
            at = max(end - step, begin)
            found = self._part_at(at)
            ours = found is not None and found.point.chain == point.chain
            # Of `point` itself only the end may be left from here on, which is not needed.
            if found is not None and ours and found.point.number <= point.number:
                break
            step *= 4
        self._consumer.seek(self._partition, at)

    def _read_what_comes(self, most: int) -> None:
        """Read until there is a delta to apply, or nothing more comes for a moment."""
        whole = self._reading.whole
        wait_ms = 1 if whole else _POLL_MS
        while len(whole) < most and self._read_on(wait_ms) and not whole:
            pass

    def _part_at(self, offset: int) -> DeltaPart | None:
        """Return the part in a record, None when it cannot be had or is none."""
        self._consumer.seek(self._partition, offset)
        polled = self._consumer.poll(self._config.request_timeout_ms, _ALL_FETCHED)
        entries = polled.get(self._partition, [])
        return part_from(entries[0].headers, entries[0].value) if entries else None

    def _read_on(self, timeout_ms: int) -> bool:
        """Take in what comes next; False when nothing came."""
        entries = self._consumer.poll(timeout_ms, _ALL_FETCHED).get(self._partition, [])
        for entry in entries:
            part = part_from(entry.headers, entry.value)
            if part is not None:
                self._reading.take(part)
            elif not self._foreign_told:
                self._foreign_told = True
                _logger.warning("not a delta", extra={"record": f"{self._where}@{entry.offset}"})
        return bool(entries)


class _Reading:
    """What is known of one chain from some point on.

    Attributes:
        whole: (number, content) of deltas behind that point that are whole, in order.
    """

    def __init__(self, point: DeltaPoint) -> None:
        self.whole: deque[tuple[int, bytes]] = deque()
        self._chain = point.chain
        self._after = point.number
        self._assembly = Assembly()
        self._newest = point.number
        self._followed_by = ""

    def has_what_follows(self, point: DeltaPoint) -> bool:
        """Return whether every delta behind `point` is here or still to be read."""
        return bool(self._chain) and self._chain == point.chain and self._after <= point.number

    def drop_until(self, number: int) -> None:
        """Forget deltas that are applied."""
        self._after = max(self._after, number)
        while self.whole and self.whole[0][0] <= number:
            self.whole.popleft()

    def take(self, part: DeltaPart) -> None:
        """Take in the next record."""
        ours = part.point.chain == self._chain
        if part.begins_chain:
            # Reading may have started before our own chain began.
            self._followed_by = "" if ours else part.point.chain
        if part.begins_chain or not ours:
            return
        self._newest = max(self._newest, part.point.number)
        content = self._assembly.take(part)
        newest_whole = self.whole[-1][0] if self.whole else self._after
        if content is not None and part.point.number > newest_whole:
            self.whole.append((part.point.number, content))

    def reject_gap(self, point: DeltaPoint, where: str) -> None:
        """Raise when the delta behind `point` will never come."""
        if self._followed_by:
            raise _ended(where, point.chain, self._followed_by)
        wanted = point.number + 1
        first = self.whole[0][0] if self.whole else None
        if first != wanted and self._newest > wanted:
            raise DeltaGapError(
                f"{where}: delta {wanted} of chain {point.chain} is gone or not whole, "
                f"the newest is {self._newest}"
            )


def _ended(where: str, chain: str, now: str) -> DeltaGapError:
    return DeltaGapError(f"{where}: chain {chain} has ended, now {now} is written")
