"""Label heads: which labels a feedback value decides, and how, as bits."""

from __future__ import annotations

from functools import lru_cache
from math import nan

from domain.features import FeatureSchema


class LabelHeads:
    """Reads feedback as bits: bit h stands for label head h of the schema.

    >>> heads = LabelHeads(FeatureSchema())
    >>> heads.decide("click", 1.0), heads.decide("click", 0.0), heads.decide("share", 1.0)
    ((1, 1), (1, 0), (0, 0))
    """

    def __init__(self, schema: FeatureSchema) -> None:
        self.num_heads = len(schema.heads)
        self._by_kind: dict[str, list[tuple[int, float]]] = {}
        for index, head in enumerate(schema.heads):
            rules = self._by_kind.setdefault(head.feedback_kind, [])
            rules.append((1 << index, head.positive_at))

    def decide(self, kind: str, value: float) -> tuple[int, int]:
        """Return the heads that feedback decides, and those of them it makes positive.

        A value below a head's `positive_at` decides it negatively; no bit is set for a kind that
        belongs to no head.
        """
        decided = positive = 0
        for bit, positive_at in self._by_kind.get(kind, ()):
            decided |= bit
            if value >= positive_at:
                positive |= bit
        return decided, positive


@lru_cache(maxsize=4096)
def labels_of(num_heads: int, known: int, positive: int) -> tuple[float, ...]:
    """Return one label per head: NaN where it is not known.

    >>> labels_of(3, 0b011, 0b010)
    (0.0, 1.0, nan)
    """
    return tuple(
        float(positive >> head & 1) if known >> head & 1 else nan for head in range(num_heads)
    )
