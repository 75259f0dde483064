"""Learners from river on the same labels, at the same delay: what a plain library would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from river import facto, linear_model, optim

from domain.examples import JoinedExample
from domain.features import ITEM_ID, USER_ID, FeatureSchema
from domain.requests import RankingRequest
from domain.state import State
from stream.observer import Demand, Measured

LOGISTIC, FACTORISATION = "river/logistic", "river/fm"

# Chosen by AUC over the first 60,000 impressions of KuaiRand-Pure: the logistic regression's rate
# from .01, .03, .1 and .3; of the machine, whose rates go with one another, only four settings of
# both together were tried. So on that dataset their first half was tuned on, and a finer search
# may find a better machine. On other streams nothing was chosen.
_LOGISTIC_RATE = 0.03
_FM_WEIGHT_RATE = 0.03
_FM_LATENT_RATE = 0.03
_FM_FACTORS = 8
_FM_SIGMA = 0.05

_Inputs = dict[str, int]


class RiverVariant:
    """One of river's learners as a variant: predicts when items are shown, learns when labels come.

    Inputs are user, item, the categorical fields of the context and whatever the schema counts: a
    factorisation machine's cost grows with the square of their number. Only the primary head.
    """

    def __init__(self, name: str, schema: FeatureSchema, seed: int) -> None:
        """Make a learner.

        Args:
            name: `LOGISTIC` or `FACTORISATION`.
            schema: says which fields are inputs.
            seed: seed of the factors.
        """
        self._name = name
        self._fields = [
            field
            for field in schema.fields
            if field.kind in ("categorical", "multi")
            and (field.counted or field.entity == "context")
        ]
        self._learner: _Learner = _LEARNERS[name](seed)
        self._inputs: dict[str, list[_Inputs]] = {}
        self._scores: dict[str, list[float]] = {}

    @property
    def name(self) -> str:
        """Return the name results are reported under."""
        return self._name

    def on_demand(self, demand: Demand) -> None:
        """Predict with what was learned by now."""
        request = demand.request
        inputs = [self._encode(request, index) for index in range(len(request.item_ids))]
        self._inputs[demand.impression_id] = inputs
        self._scores[demand.impression_id] = [self._predict(one) for one in inputs]

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Learn labels of the primary head, early negatives among them."""
        for example in examples:
            inputs = self._inputs.get(example.impression_id)
            label = example.labels[0]
            if inputs is not None and not np.isnan(label):
                self._learner.model.learn_one(inputs[example.item_index], bool(label))

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return what was predicted when the items were shown, (N, 1)."""
        examples = [one.example for one in measured]
        scores = [self._scores[one.impression_id][one.item_index] for one in examples]
        return np.array(scores, np.float64).reshape(-1, 1)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop inputs and predictions."""
        for impression_id in impression_ids:
            self._inputs.pop(impression_id, None)
            self._scores.pop(impression_id, None)

    def save(self) -> State:
        """Return the learner, and what waits for labels."""
        return {
            "learner": self._learner.save(),
            "ids": list(self._inputs),
            "inputs": [[list(one) for one in inputs] for inputs in self._inputs.values()],
            "scores": list(self._scores.values()),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._learner.load(state["learner"])
        inputs = [[dict.fromkeys(one, 1) for one in inputs] for inputs in state["inputs"]]
        self._inputs = dict(zip(state["ids"], inputs, strict=True))
        self._scores = dict(zip(state["ids"], state["scores"], strict=True))

    def _predict(self, inputs: _Inputs) -> float:
        return float(self._learner.model.predict_proba_one(inputs)[True])

    def _encode(self, request: RankingRequest, index: int) -> _Inputs:
        inputs = {f"{USER_ID}={request.user.user_id}": 1, f"{ITEM_ID}={request.item_ids[index]}": 1}
        sources = {
            "user": request.user.features,
            "item": request.item_features[index],
            "context": request.context,
        }
        for field in self._fields:
            value = sources[field.entity].get(field.name)
            for part in value if isinstance(value, tuple) else (value,):
                if part:
                    inputs[f"{field.name}={part}"] = 1
        return inputs


class _Learner(Protocol):
    """One of river's models, whose state is plain data: river itself would have it pickled."""

    model: Any

    def __init__(self, seed: int) -> None:
        """Make a model that has learned nothing."""

    def save(self) -> State:
        """Return everything that the model has learned."""

    def load(self, state: State) -> None:
        """Let a new model become what `save` described."""


class _Logistic:
    """River's logistic regression; it draws nothing."""

    def __init__(self, seed: int) -> None:
        del seed
        self.model: Any = linear_model.LogisticRegression(
            optimizer=optim.SGD(_LOGISTIC_RATE), l2=0.0, intercept_lr=_LOGISTIC_RATE / 10
        )

    def save(self) -> State:
        """Return weights, intercept and the number of steps."""
        model = self.model
        return {
            "weights": _column(model.weights),
            "intercept": model.intercept,
            "steps": model.optimizer.n_iterations,
        }

    def load(self, state: State) -> None:
        """Let a new model become what `save` described."""
        model = self.model
        # `weights` gives a copy; river has no way to give weights back. A test compares the scores
        # of a restored model with those of the one it was, so a river that keeps them elsewhere
        # would be noticed.
        for name, weight in _rows(state["weights"]):
            model._weights[name] = weight
        model.intercept = state["intercept"]
        model.optimizer.n_iterations = state["steps"]


class _Machine(facto.FMClassifier):
    """River's factorisation machine; only the sum over all pairs of inputs is made in one pass.

    With v_i the factors of input i, all inputs being 1 (Rendle, Factorization Machines, 2010, eq.
    5): the sum over pairs of v_i v_j is half of (the square of the sum of v_i, less the sum of
    their squares). River goes through the pairs, which costs a fifth of a whole replay.
    """

    def _calculate_interactions(self, x: _Inputs) -> float:
        latent_IF = np.array([self.latents[name] for name in x])
        total_F = latent_IF.sum(axis=0)
        return 0.5 * float(total_F @ total_F - (latent_IF * latent_IF).sum())


class _Factorisation:
    """River's factorisation machine, with factors that are drawn when an input is first met."""

    def __init__(self, seed: int) -> None:
        self._factors = optim.initializers.Normal(sigma=_FM_SIGMA, seed=seed)
        self.model: Any = _Machine(
            n_factors=_FM_FACTORS,
            weight_optimizer=optim.SGD(_FM_WEIGHT_RATE),
            latent_optimizer=optim.SGD(_FM_LATENT_RATE),
            intercept_lr=_FM_WEIGHT_RATE / 10,
            latent_initializer=self._factors,
            seed=seed,
        )

    def save(self) -> State:
        """Return weights, factors, intercept, the numbers of steps and the generator."""
        model = self.model
        # River shows its generator to nobody else either, see `_Logistic.load`.
        _, words, place, has_gauss, gauss = self._factors._rng.get_state()
        return {
            "weights": _column(model.weights),
            "factored": list(model.latents),
            "factors": np.array(list(model.latents.values())).reshape(-1, _FM_FACTORS),
            "intercept": model.intercept,
            "steps": [model.weight_optimizer.n_iterations, model.latent_optimizer.n_iterations],
            "generator": {
                "words": np.asarray(words, np.uint32),
                "place": int(place),
                "has_gauss": int(has_gauss),
                "gauss": float(gauss),
            },
        }

    def load(self, state: State) -> None:
        """Let a new model become what `save` described."""
        model, drawn = self.model, state["generator"]
        model.weights.update(_rows(state["weights"]))
        factors = (row.copy() for row in state["factors"])
        model.latents.update(zip(state["factored"], factors, strict=True))
        model.intercept = state["intercept"]
        model.weight_optimizer.n_iterations, model.latent_optimizer.n_iterations = state["steps"]
        self._factors._rng.set_state(
            ("MT19937", drawn["words"], drawn["place"], drawn["has_gauss"], drawn["gauss"])
        )


def _column(weights: Mapping[str, float]) -> State:
    return {"names": list(weights), "values": np.array(list(weights.values()), np.float64)}


def _rows(column: State) -> Iterator[tuple[str, float]]:
    return zip(column["names"], column["values"].tolist(), strict=True)


_LEARNERS: Mapping[str, type[_Learner]] = {LOGISTIC: _Logistic, FACTORISATION: _Factorisation}
