"""The fast learner: compensates scores at once with the errors that labels have just revealed."""

from __future__ import annotations

import threading
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import ModelError, SnapshotError
from domain.state import State
from domain.state_reading import StateReader
from memory.compensator import compensate, estimate_errors
from memory.config import Kind, MemoryConfig
from memory.lambda_choice import LambdaChoice
from memory.lambda_shares import FixedShares
from memory.neighbours import Neighbours
from memory.sketch import Sketch
from memory.store import ErrorStore, MemoryRead

_STORES: dict[Kind, type[Sketch] | type[Neighbours]] = {"sketch": Sketch, "neighbours": Neighbours}
_GENERATORS: dict[Kind, bytes] = {"sketch": b"memory.hash", "neighbours": b"memory.sampling"}


class ErrorMemoryLearner:
    """ReLoop2's fast part (KDD 2023): error memory, compensation and an online choice of lambda.

    Implements `domain.learners.MemoryLearner` and `domain.deltas.DeltaLearner`.

    N examples, D hidden size, H label heads. Any number of threads may call any method: reads and
    writes take turns, so that a read sees a whole write or none of it.
    """

    def __init__(self, config: MemoryConfig, hidden_size: int, num_heads: int, seed: int) -> None:
        # The sketch draws its hash from it, once; neighbours keep it and save it.
        generator = np.random.default_rng([seed, zlib.crc32(_GENERATORS[config.kind])])
        self.config = config
        self._hidden_size = hidden_size
        self._num_heads = num_heads
        store = _STORES[config.kind]
        self._memory: ErrorStore = store(config, hidden_size, num_heads, generator)
        self._choice: LambdaChoice | FixedShares = (
            LambdaChoice(config, num_heads)
            if config.lambda_rule == "margin"
            else FixedShares(config, num_heads)
        )
        self._lock = threading.Lock()
        self._is_twin = False
        self._checked: tuple[State, Any, NDArray[Any]] | None = None

    @property
    def lambdas(self) -> NDArray[np.float32]:
        """Return the lambda in use for each head, float32 (H,)."""
        return self._choice.lambdas.copy()

    @property
    def num_bytes(self) -> int:
        """Return the size of what is kept, which never changes."""
        return self._memory.num_bytes

    @property
    def empty_share(self) -> float:
        """Return the share of buckets or slots that count as empty, all heads together."""
        with self._lock:
            return self._memory.empty_share

    def compensate(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return corrected probabilities float32 (N, H).

        A head whose lambda is 0 keeps its base scores bit for bit; when all are, nothing is read.

        Raises:
            ModelError: an array has another shape than (N, D) or (N, H).
        """
        lambda_H = self._choice.lambdas
        if not lambda_H.any():
            self._check_shapes(hidden_ND, base_NH=base_NH)
            return base_NH.astype(np.float32)
        return compensate(base_NH, self.read_errors(hidden_ND, base_NH), lambda_H)

    def read(self, hidden_ND: NDArray[np.float32]) -> MemoryRead:
        """Return what the memory knows near each hidden state.

        Raises:
            ModelError: `hidden_ND` has another width than D.
        """
        self._check_shapes(hidden_ND)
        with self._lock:
            return self._memory.read(hidden_ND)

    def read_errors(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return y_err, the estimated label minus base score, float32 (N, H); 0 when unknown.

        Raises:
            ModelError: an array has another shape than (N, D) or (N, H).
        """
        self._check_shapes(hidden_ND, base_NH=base_NH)
        return estimate_errors(self.read(hidden_ND), base_NH, self.config.gamma)

    def learn(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        time_ms: int,
        *,
        errors_NH: NDArray[np.float32] | None = None,
    ) -> None:
        """Measure what each lambda would have done for these labels, then write them.

        1. Take the error estimates from scoring time, or read them now, before any write.
        2. Measure the log loss of every lambda of the grid and choose.
        3. Write (label, base score) where the hidden states belong.

        `hidden_ND` and `base_NH` must be those of scoring time.

        Raises:
            ModelError: a shape differs, a hidden state or estimate is not finite, a base score is
                not a probability, or a label is neither 0, 1 nor NaN; nothing was learned.
        """
        assert not self._is_twin, "a twin learns from deltas only"
        self._check_values(hidden_ND, base_NH, labels_NH, errors_NH)
        if len(hidden_ND) == 0:
            return
        with self._lock:
            if errors_NH is None:
                errors_NH = estimate_errors(
                    self._memory.read(hidden_ND), base_NH, self.config.gamma
                )
            self._choice.observe(base_NH, errors_NH, labels_NH)
            self._memory.write(hidden_ND, base_NH, labels_NH, time_ms)

    def rewrite(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        times_ms_N: NDArray[np.int64],
    ) -> None:
        """Write examples again that were written before, as of when they were; lambda stays.

        For the time after `reset`: `hidden_ND` are the hidden states under the model of now.

        Raises:
            ModelError: as `learn` says it.
        """
        assert not self._is_twin, "a twin learns from deltas only"
        self._check_values(hidden_ND, base_NH, labels_NH, None)
        with self._lock:
            self._memory.rewrite(hidden_ND, base_NH, labels_NH, times_ms_N)

    @property
    def forgets(self) -> bool:
        """Return whether there is a half-life."""
        return self.config.half_life_ms is not None

    def scale_half_life(self, factor: float) -> None:
        """Forget at this many times the configured half-life from now on; not saved."""
        with self._lock:
            self._memory.scale_half_life(factor)

    def reset(self) -> None:
        """Forget what was written, as when the base model is replaced; lambda's evidence stays."""
        with self._lock:
            self._memory.reset()

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        with self._lock:
            return {"memory": self._memory.save(), "lambda": self._choice.save()}

    def load(self, state: State) -> None:
        """Become what `save` described; what was here before is gone.

        Raises:
            ModelError: the state has other sizes or another lambda grid than configured.
        """
        with self._lock:
            self._memory.load(state["memory"])
            self._choice.load(state["lambda"])

    def take_delta(self) -> State:
        """Return what changed since the last call, or since this learner was made or loaded.

        That is everything `compensate` needs; the evidence about lambda stays, its choice travels.
        """
        with self._lock:
            return {"memory": self._memory.take_delta(), "lambda": self._choice.take_delta()}

    def follow(self) -> None:
        """Become a twin: from now on only deltas teach."""
        self._is_twin = True

    def check_delta(self, state: State) -> None:
        """Raise what `apply_delta` would raise; change nothing.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin.
        """
        self._checked = (state, *self._read_delta(state))

    def apply_delta(self, state: State) -> None:
        """Become what the learner was that `state` was taken from; all of it or nothing.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin; nothing was changed.
        """
        checked, self._checked = self._checked, None
        # What was checked just now is not checked again while readers wait.
        if checked is None or checked[0] is not state:
            checked = (state, *self._read_delta(state))
        _, delta, chosen_H = checked
        with self._lock:
            self._memory.apply_delta(delta)
            self._choice.apply_delta(chosen_H)

    def _read_delta(self, state: State) -> tuple[Any, NDArray[Any]]:
        if not self._is_twin:
            raise SnapshotError("memory: expected a learner that follows, got one that learns")
        reader = StateReader(state, "memory")
        return (
            self._memory.read_delta(reader.part("memory")),
            self._choice.read_delta(reader.part("lambda")),
        )

    def _check_shapes(
        self, hidden_ND: NDArray[np.float32], **arrays_NH: NDArray[np.float32] | None
    ) -> None:
        num_rows = len(hidden_ND)
        if hidden_ND.shape != (num_rows, self._hidden_size):
            raise ModelError(
                f"memory: hidden_ND must be (N, {self._hidden_size}), got {hidden_ND.shape}"
            )
        expected = (num_rows, self._num_heads)
        for name, array_NH in arrays_NH.items():
            if array_NH is not None and array_NH.shape != expected:
                raise ModelError(f"memory: {name} must be {expected}, got {array_NH.shape}")

    def _check_values(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        errors_NH: NDArray[np.float32] | None,
    ) -> None:
        self._check_shapes(hidden_ND, base_NH=base_NH, labels_NH=labels_NH, errors_NH=errors_NH)
        _require_all("hidden_ND", "finite", hidden_ND, np.isfinite(hidden_ND))
        _require_all("base_NH", "probabilities", base_NH, (base_NH >= 0) & (base_NH <= 1))
        decided_NH = (labels_NH == 0) | (labels_NH == 1) | np.isnan(labels_NH)
        _require_all("labels_NH", "0, 1 or NaN", labels_NH, decided_NH)
        if errors_NH is not None:
            _require_all("errors_NH", "finite", errors_NH, np.isfinite(errors_NH))


def _require_all(
    name: str, expected: str, values: NDArray[np.float32], fine: NDArray[np.bool_]
) -> None:
    if not fine.all():
        row, column = (int(i) for i in np.argwhere(~fine)[0])
        raise ModelError(
            f"memory: {name} must be {expected}, got {values[row, column]} at [{row}, {column}]"
        )
