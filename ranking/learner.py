"""The ranker as a learner: capture, predict, observe, learn, save, load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.errors import ConfigError, SchemaError, SnapshotError
from domain.examples import LabeledRequest, LearnReport
from domain.features import FeatureSchema
from domain.requests import CapturedRequest, RankingRequest, RankingScores
from domain.state import State
from domain.state_reading import StateReader
from encoders.backbone import HistoryState
from ranking.adaf2m2 import AdaF2M2Config
from ranking.aefs import AefsConfig, aefs_loss
from ranking.averaging import AveragedWeights, AveragingConfig
from ranking.calibration import CalibrationConfig, build_calibrator, sigmoid
from ranking.calibration_error import CalibrationErrorMeter
from ranking.choices import RequestChoices, request_choices
from ranking.clipping import ClippingConfig, NormClipper
from ranking.collate import Batch, collate, in_chunks
from ranking.counters import CounterConfig, CountersDelta, LabelCounters
from ranking.dense_weights import DenseWeights
from ranking.embedding_table import EmbeddingTableConfig
from ranking.feature_encoder import EncoderConfig, FeatureEncoder
from ranking.field_layout import layout_of
from ranking.field_tables import LARGE, SMALL, FieldTables, LookUp, needed_counts, spread
from ranking.history_cache import HistoryCache, HistoryCacheConfig, OnLookup
from ranking.history_encoder import BackboneConfig
from ranking.losses import example_weights, ranking_loss
from ranking.model import NetConfig, NetInput, NetOutput, RankingNet, net_input
from ranking.normaliser import RunningNormaliser
from ranking.row_store import RowsDelta
from ranking.schedule import ScheduleConfig, rate_factor

Device = Literal["auto", "cpu", "cuda"]
Interaction = Literal["mlp", "dcnv2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingConfig:
    """Everything about the ranker that can be chosen."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """What is kept of a request."""
    counters: CounterConfig = field(default_factory=CounterConfig)
    """Label counters."""
    table: EmbeddingTableConfig = field(default_factory=EmbeddingTableConfig)
    """Embedding rows."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """History encoder."""
    history_cache: HistoryCacheConfig = field(default_factory=HistoryCacheConfig)
    """Encoded histories that are kept."""
    adaf2m2: AdaF2M2Config = field(default_factory=AdaF2M2Config)
    """State-aware adapter and masked forwards."""
    aefs: AefsConfig = field(default_factory=AefsConfig)
    """Early selection of fields."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    """Calibration of the probabilities."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Step sizes over the stream."""
    clipping: ClippingConfig = field(default_factory=ClippingConfig)
    """Gradients far larger than usual."""
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    """Scoring with the running mean of the dense weights."""
    interaction: Interaction = "mlp"
    """How inputs meet: "mlp" in the hidden layers alone, "dcnv2" in a cross network beside them
    too."""
    cross_layers: int = 3
    """Layers of the cross network; each has a square matrix over all inputs."""
    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers; the last one is the error memory's key."""
    learning_rate: float = 0.001
    """Adam's step size for the dense weights."""
    max_rows_per_pass: int = 4_096
    """Most items scored in one pass of the network; bounds the memory of a prediction."""
    device: Device = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"ranking.hidden must be one or more positive widths, got {self.hidden}"
            )
        if self.aefs.keep and self.adaf2m2.masked_forwards:
            raise ConfigError(
                "ranking.aefs.keep and ranking.adaf2m2.masked_forwards cannot both be on: one "
                "leaves fields out by choice, the other at random"
            )
        if self.interaction not in ("mlp", "dcnv2"):
            raise ConfigError(f"ranking.interaction must be mlp or dcnv2, got {self.interaction!r}")
        if self.cross_layers < 1:
            raise ConfigError(f"ranking.cross_layers must be at least 1, got {self.cross_layers}")
        if not self.learning_rate > 0.0:
            raise ConfigError(f"ranking.learning_rate must be positive, got {self.learning_rate}")
        if self.max_rows_per_pass < 1:
            raise ConfigError(
                f"ranking.max_rows_per_pass must be at least 1, got {self.max_rows_per_pass}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"ranking.device must be auto, cpu or cuda, got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("ranking.device is cuda, but torch sees no CUDA device")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Delta:
    """A delta that was checked part by part."""

    counters: CountersDelta
    tables: dict[str, RowsDelta]
    normaliser: State
    calibrator: State
    dense: dict[str, NDArray[np.float32]]


class RankingModel:
    """Implements `domain.learners.RankingLearner` and `domain.deltas.DeltaLearner`.

    `capture` and `predict` read only, so any number of threads may call them at once on a model
    that nobody calls `observe`, `learn`, `load` or `apply_delta` on meanwhile; one thread at a time
    may do those. A model that follows deltas must not observe or learn any more.
    """

    def __init__(self, schema: FeatureSchema, config: RankingConfig, seed: int) -> None:
        self._schema = schema
        self._config = config
        self._seed = seed
        self._is_twin = False
        self._checked: tuple[State, _Delta] | None = None
        num_heads = len(schema.heads)
        layout = layout_of(schema, config.encoder.max_values)
        self._encoder = FeatureEncoder(schema, layout, config.encoder)
        self._counters = LabelCounters(config.counters, num_heads)
        self._layout = layout
        small = config.aefs.small_dimension if config.aefs.keep else None
        self._tables = FieldTables(config.table, small, seed)
        num_floats, flagged = self._encoder.num_floats(self._counters.width)
        self._normaliser = RunningNormaliser(num_floats)
        self._calibrator = build_calibrator(config.calibration, num_heads)
        self._errors = CalibrationErrorMeter(config.calibration.half_life_examples, num_heads)
        self._device = _device(config.device)
        self._masks = torch.Generator().manual_seed(seed + 1)
        net = NetConfig(
            layout=layout,
            num_heads=num_heads,
            num_floats=num_floats,
            num_flagged=flagged,
            state_columns=self._encoder.state_columns(self._counters.width),
            embedding_dimension=config.table.dimension,
            history_length=config.encoder.history_length,
            hidden=config.hidden,
            cross_layers=config.cross_layers if config.interaction == "dcnv2" else 0,
            backbone=config.backbone,
            adaf2m2=config.adaf2m2,
            aefs=config.aefs,
        )
        self._net = RankingNet(net, torch.Generator().manual_seed(seed)).to(self._device)
        self._dense = DenseWeights(self._net, config.learning_rate)
        self._averaged = AveragedWeights(self._net, config.averaging)
        self._clipper = NormClipper(config.clipping)
        self._steps = 0
        self._speed = 1.0
        self._histories = HistoryCache(config.history_cache)
        self._head_weights = torch.tensor(
            [head.weight for head in schema.heads], device=self._device
        )

    @property
    def num_rows(self) -> int:
        """Return how many ids have an embedding row."""
        return len(self._tables)

    @property
    def calibration_errors(self) -> NDArray[np.float64]:
        """Return each head's recent calibration error before and after calibration, (2, H).

        Of examples whose negatives were not sampled; NaN where there was none.
        """
        return self._errors.get()

    def watch_histories(self, on_lookup: OnLookup) -> None:
        """Call `on_lookup` at every look-up of a user's encoded history, where any are kept."""
        self._histories.watch(on_lookup)

    def parameters_touched(self, captured: Sequence[CapturedRequest]) -> float:
        """Return how many numbers scoring one item reads: dense weights and rows looked up.

        On average over these requests; what items of one share is looked up once.
        """
        batch = collate(captured)
        with torch.inference_mode():
            _, lookups = self._forward(self._averaged.network, batch)
        of_rows = sum(each.num_values for each in lookups) / max(len(batch.item_MI), 1)
        return of_rows + sum(each.numel() for each in self._averaged.network.parameters())

    def capture(self, request: RankingRequest) -> CapturedRequest:
        """Encode a request with all counters as they stand now.

        Raises:
            SchemaError: a feature is not of the declared kind.
        """
        return self._encoder.capture(request, self._counters)

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests; one result per request, each row independent of all others."""
        scores: list[RankingScores] = []
        for chunk in in_chunks(captured, self._config.max_rows_per_pass):
            scores += self._predict_chunk(chunk)
        return scores

    def choices(self, captured: Sequence[CapturedRequest]) -> list[RequestChoices]:
        """Tell which fields are looked up for requests, and how the small model agrees.

        Raises:
            ConfigError: nothing is chosen here, all fields are looked up.
        """
        if not self._config.aefs.keep:
            raise ConfigError("ranking.aefs.keep is 0: all fields are looked up")
        told: list[RequestChoices] = []
        for chunk in in_chunks(captured, self._config.max_rows_per_pass):
            with torch.inference_mode():
                out, _ = self._forward(self._averaged.network, collate(chunk))
            assert out.aefs is not None
            sizes = [len(each.item_ids) for each in chunk]
            told += request_choices(self._layout.field_names(), out.aefs, out.logits_MH, sizes)
        return told

    def observe(self, request: LabeledRequest) -> None:
        """Count labels that became known; captures made before are as they were."""
        assert not self._is_twin, "a twin learns from deltas only"
        self._counters.observe(
            self._encoder.keys_of(request.captured, request.item_indices),
            request.labels,
            np.array([role == "correction" for role in request.roles]),
            request.captured.time_ms,
        )

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Take one gradient step on a micro-batch.

        When the loss or a gradient is not finite, nothing is learned and the whole batch is
        reported as quarantined.
        """
        assert not self._is_twin, "a twin learns from deltas only"
        batch = [request for request in batch if len(request.item_indices)]
        if not batch:
            return LearnReport(loss=float("nan"), examples=0)
        labels = np.concatenate([each.labels for each in batch]).astype(np.float32)
        log_rates = np.concatenate([each.log_sampling_rates for each in batch]).astype(np.float32)
        provisional = np.array([role != "final" for each in batch for role in each.roles])
        arrays = collate([each.captured for each in batch], [each.item_indices for each in batch])
        out, lookups = self._forward(self._net, arrays, self._masks)
        loss, weights_MH = self._loss(out, labels, log_rates, provisional)
        loss.backward()  # type: ignore[no-untyped-call]
        finite = bool(torch.isfinite(loss)) and all(each.is_finite() for each in lookups)
        if not (finite and self._dense.gradients_are_finite()):
            self._dense.forget_gradients()
            return LearnReport(loss=float(loss.detach()), examples=0, quarantined=len(labels))
        self._histories.forget()
        # These logits were made before their labels were learned from.
        logits_MH = self._served_logits(out, arrays)
        self._calibrate(logits_MH, labels, weights_MH.cpu().numpy(), log_rates)
        if self._net.small is not None and out.aefs is not None:
            self._net.small.before_step(out.aefs)
        self._step(lookups, max(each.captured.time_ms for each in batch), len(labels))
        self._normaliser.update(arrays.floats_MW)
        return LearnReport(loss=float(loss.detach()), examples=len(labels))

    def _calibrate(
        self,
        logits_MH: NDArray[np.float32],
        labels_MH: NDArray[np.float32],
        weights_MH: NDArray[np.float32],
        log_rates_M: NDArray[np.float32],
    ) -> None:
        """Measure how calibrated these logits were, then learn to calibrate from them."""
        # Rates of sampled streams are not those that are served.
        whole_MH = np.where(log_rates_M[:, None] == 0.0, weights_MH, 0.0).astype(np.float32)
        calibrated_MH = self._calibrator.apply(logits_MH)
        self._errors.update(sigmoid(logits_MH), calibrated_MH, labels_MH, whole_MH)
        self._calibrator.update(logits_MH, labels_MH, weights_MH, log_rates_M)

    def _step(self, lookups: Sequence[LookUp], newest_ms: int, num_examples: int) -> None:
        """Take a step along finite gradients: dense weights, rows, the mean of the weights."""
        of_rows = [each.rows_ND.grad for each in lookups if each.rows_ND.grad is not None]
        self._clipper.clip([*self._dense.gradients(), *of_rows])
        factor = self._speed * rate_factor(self._config.schedule, self._steps)
        self._dense.scale_learning_rate(factor)
        self._tables.scale_learning_rate(factor)
        self._dense.step()
        for each in lookups:
            each.learn(newest_ms)
        self._averaged.update(num_examples)
        self._steps += 1

    def scale_learning_rate(self, factor: float) -> None:
        """Step, and follow with scores, this many times as far from now on; not saved."""
        self._speed = factor
        self._averaged.scale_learning_rate(factor)

    def take_delta(self) -> State:
        """Return what changed since the last call, or since this model was made or loaded.

        That is everything a prediction needs; optimiser state and mask generator stay.
        """
        return {
            "counters": self._counters.take_delta(),
            **self._tables.take_delta(),
            "normaliser": self._normaliser.save(),
            "calibrator": self._calibrator.save(),
            "dense": self._averaged.take_delta(),
        }

    def follow(self) -> None:
        """Become a twin: from now on only deltas teach."""
        self._is_twin = True

    def check_delta(self, state: State) -> None:
        """Raise what `apply_delta` would raise; change nothing.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin.
        """
        self._checked = (state, self._read_delta(state))

    def apply_delta(self, state: State) -> None:
        """Become what the model was that `state` was taken from; all of it or nothing.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin; nothing was changed.
        """
        checked, self._checked = self._checked, None
        # What was checked just now is not checked again while readers wait.
        if checked is None or checked[0] is not state:
            checked = (state, self._read_delta(state))
        delta = checked[1]
        self._histories.forget()
        self._counters.apply_delta(delta.counters)
        self._tables.apply_delta(delta.tables)
        self._normaliser.load(delta.normaliser)
        self._calibrator.load(delta.calibrator)
        self._averaged.apply_delta(delta.dense)

    def _read_delta(self, state: State) -> _Delta:
        if not self._is_twin:
            raise SnapshotError("ranking: expected a model that follows, got one that learns")
        reader = StateReader(state, "ranking")
        return _Delta(
            counters=self._counters.read_delta(reader.part("counters")),
            tables=self._tables.read_delta(reader),
            normaliser=self._normaliser.read_delta(reader.part("normaliser")),
            calibrator=self._calibrator.read_delta(reader.part("calibrator")),
            dense=self._averaged.read_delta(reader.part("dense")),
        )

    def copy(self) -> RankingModel:
        """Return an independent model in the same state."""
        twin = RankingModel(self._schema, self._config, self._seed)
        twin.load(self.save())
        return twin

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "schema": self._schema.hash,
            "counters": self._counters.save(),
            **self._tables.save(),
            "normaliser": self._normaliser.save(),
            "calibrator": self._calibrator.save(),
            "calibration_errors": self._errors.save(),
            "dense": self._dense.save(),
            "averaged": self._averaged.save(),
            "clipper": self._clipper.save(),
            "steps": self._steps,
            "masks": self._masks.get_state().numpy().copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            SchemaError: the state belongs to another schema.
        """
        if state["schema"] != self._schema.hash:
            raise SchemaError(
                f"ranking: expected a state of schema {self._schema.hash}, got {state['schema']}"
            )
        self._histories.forget()
        self._counters.load(state["counters"])
        self._tables.load(state)
        self._normaliser.load(state["normaliser"])
        self._calibrator.load(state["calibrator"])
        self._errors.load(state["calibration_errors"])
        self._dense.load(state["dense"])
        self._averaged.load(state["averaged"])
        self._clipper.load(state["clipper"])
        self._steps = int(state["steps"])
        self._masks.set_state(torch.from_numpy(state["masks"].copy()))

    def _predict_chunk(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        with torch.inference_mode():
            network = self._averaged.network
            captured, states = self._histories.states(captured, network.history, self._encoded)
            out, _ = self._forward(network, collate(captured), states=states)
        logits = out.logits_MH.cpu().numpy()
        hidden = out.hidden_MD.cpu().numpy()
        probabilities = self._calibrator.apply(logits)
        ends = np.cumsum([len(each.item_ids) for each in captured])[:-1]
        return [
            RankingScores(probabilities=p, hidden=h)
            for p, h in zip(np.split(probabilities, ends), np.split(hidden, ends), strict=True)
        ]

    def _encoded(self, captured: CapturedRequest) -> HistoryState:
        batch = collate([captured], [np.zeros(0, np.int64)])
        rows_UD = self._tables.look_up(LARGE, batch, self._device).rows_ND
        return self._averaged.network.encode(rows_UD, self._given(batch))

    def _served_logits(self, out: NetOutput, arrays: Batch) -> NDArray[np.float32]:
        """Return what would have been scored; `out` is what the newest weights say."""
        if not self._averaged.is_off:
            with torch.inference_mode():
                out, _ = self._forward(self._averaged.network, arrays)
        logits_MH: NDArray[np.float32] = out.logits_MH.detach().cpu().numpy()
        return logits_MH

    def _forward(
        self,
        network: RankingNet,
        batch: Batch,
        masks: torch.Generator | None = None,
        states: Sequence[HistoryState] | None = None,
    ) -> tuple[NetOutput, list[LookUp]]:
        """Score a batch; also return the rows that were read for it."""
        given = replace(self._given(batch), states=states)
        tables, device = self._tables, self._device
        if not self._config.aefs.keep:
            large = tables.look_up(LARGE, batch, device)
            return network(large.rows_ND, given, masks), [large]
        all_MF = np.ones((len(batch.item_MI), self._layout.num_fields), bool)
        counts_U = needed_counts(batch, self._layout, all_MF, history=False)
        small = tables.look_up(SMALL, batch, device, counts_U)
        choice = network.choose(spread(small, counts_U), given, masks)
        chosen_MF, history = choice.chosen_MF.cpu().numpy(), network.history is not None
        counts_U = needed_counts(batch, self._layout, chosen_MF, history=history)
        large = tables.look_up(LARGE, batch, device, counts_U)
        out: NetOutput = network(spread(large, counts_U), given, masks, choice)
        return out, [large, small]

    def _given(self, batch: Batch) -> NetInput:
        normal_MW = self._normaliser.apply(batch.floats_MW)
        return net_input(batch, normal_MW, len(self._schema.heads), self._device)

    def _loss(
        self,
        out: NetOutput,
        labels: NDArray[np.float32],
        log_rates: NDArray[np.float32],
        provisional: NDArray[np.bool_],
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the weight of each (example, head)."""
        labels_MH, rates_M1, provisional_M = (
            torch.from_numpy(part).to(self._device)
            for part in (labels, log_rates[:, None], provisional)
        )
        weights_MH = example_weights(out.logits_MH, labels_MH, provisional_M)
        sampled_MH = out.logits_MH - rates_M1
        loss = ranking_loss(sampled_MH, labels_MH, weights_MH, self._head_weights)
        copies = self._config.adaf2m2.masked_forwards
        if out.masked_logits is not None:
            labels_MH, rates_M1, weights_MH_copies = (
                part.repeat_interleave(copies, dim=0) for part in (labels_MH, rates_M1, weights_MH)
            )
            masked = ranking_loss(
                out.masked_logits - rates_M1, labels_MH, weights_MH_copies, self._head_weights
            )
            # The paper sums over the copies; the mean times their number is that sum.
            loss = loss + self._config.adaf2m2.masked_weight * copies * masked
        if out.aefs is not None:
            small_MH = out.aefs.small_logits_MH - rates_M1
            own = ranking_loss(small_MH, labels_MH, weights_MH, self._head_weights)
            loss = loss + aefs_loss(self._config.aefs, out.aefs, out.logits_MH, own)
        return loss, weights_MH


def _device(choice: Device) -> torch.device:
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice)
