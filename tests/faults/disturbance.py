"""What goes on beside the trainers of a run: a producer that is killed, a broker that is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np

from deploy.kafka.broker import KafkaBroker
from tests.faults.launcher import Plan
from tests.faults.lives import KILLED, Life, Zygote
from tests.faults.producer import Order


class RunError(Exception):
    """A process did what it should never do, whoever killed it before."""


class Crashes:
    """Kills the broker again and again, each time at a random moment, and starts it again."""

    def __init__(self, broker: KafkaBroker | None, wanted: int, rng: np.random.Generator) -> None:
        self.done = 0
        self._broker = broker
        # The broker answers again after four seconds; then everybody gets a while to go on.
        self._pauses_s = rng.uniform(0.3, 3.0, size=wanted if broker is not None else 0).tolist()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="broker-crashes")

    def begin(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Return whether the broker will not be killed any more."""
        return not self._thread.is_alive()

    def __enter__(self) -> Crashes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise RunError(f"the broker did not come back: {self._error}")

    def _work(self) -> None:
        assert self._broker is not None or not self._pauses_s
        for pause_s in self._pauses_s:
            if self._stop.wait(pause_s):
                return
            try:
                self._broker.kill()  # type: ignore[union-attr]
                self._broker.start()  # type: ignore[union-attr]
            except Exception as error:  # noqa: BLE001 (told by the thread that waits)
                self._error = error
                return
            self.done += 1


class Producer:
    """A process that appends a stream, killed at random moments and started again."""

    def __init__(self, task: Order, wanted: int, zygote: Zygote, rng: np.random.Generator) -> None:
        self._task = task
        self._zygote = zygote
        self._kill_at_s = [time.monotonic() + one for one in rng.uniform(0.5, 6.0, size=wanted)]
        self._life = self._start()

    @property
    def ended(self) -> bool:
        """Return whether all is stored."""
        return self._life.poll() == 0

    def care(self) -> int:
        """Kill it when it is time, start it again when it is dead; returns the kills."""
        due = [at_s for at_s in self._kill_at_s if at_s <= time.monotonic()]
        if due and self._life.poll() is None:
            self._kill_at_s.remove(due[0])
            self._life.kill()
            self._life.wait(10.0)
        if self._life.poll() == KILLED:
            self._life = self._start()
            return 1
        if self._life.poll() not in (None, 0):
            raise RunError(f"the producer ended with {self._life.status}: {self._life.said[-400:]}")
        return 0

    def _start(self) -> Life:
        plan = Plan(arguments=("produce", self._task.to_json()))
        return self._zygote.start(plan, Path(self._task.acknowledged).with_name("producer.log"))
