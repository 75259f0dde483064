"""The feature schema: which fields users, items and contexts have, and which labels are predicted.

One schema is shared by trainer and server; its hash is stored in every snapshot, so that a server
never feeds a model fields it was not trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from domain.errors import SchemaError
from domain.events import Features

Entity = Literal["user", "item", "context"]
Kind = Literal["categorical", "multi", "numeric", "dense"]

USER_ID = "user"
ITEM_ID = "item"
"""Names of the two id fields that every schema has without declaring them."""

_RESERVED = (USER_ID, ITEM_ID)
_ENTITIES: tuple[Entity, ...] = ("user", "item", "context")
_KINDS: tuple[Kind, ...] = ("categorical", "multi", "numeric", "dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One declared input.

    Attributes:
        kind: "categorical" (one string), "multi" (several strings), "numeric" (one float) or
            "dense" (a vector of `size` floats).
        size: length of a dense vector; 0 for every other kind.
        counted: whether label counters are kept per value (categorical and multi only).
    """

    name: str
    entity: Entity
    kind: Kind
    size: int = 0
    counted: bool = False

    def __post_init__(self) -> None:
        where = f"schema.fields[{self.name}]"
        if not self.name or self.name in _RESERVED:
            raise SchemaError(f"{where}: expected a name other than {_RESERVED}, got {self.name!r}")
        if self.entity not in _ENTITIES:
            raise SchemaError(f"{where}.entity: expected one of {_ENTITIES}, got {self.entity!r}")
        if self.kind not in _KINDS:
            raise SchemaError(f"{where}.kind: expected one of {_KINDS}, got {self.kind!r}")
        if (self.kind == "dense") != (self.size > 0):
            raise SchemaError(f"{where}.size: a dense field has a positive size, others none")
        if self.counted and self.kind not in ("categorical", "multi"):
            raise SchemaError(f"{where}.counted: only categorical and multi fields can be counted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One predicted label: whether feedback of `feedback_kind` with enough value arrives.

    Attributes:
        positive_at: smallest feedback value that makes the label 1.
        weight: weight of this head's loss.
    """

    name: str
    feedback_kind: str
    positive_at: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or not self.feedback_kind:
            raise SchemaError(f"schema.heads[{self.name}]: name and feedback_kind must be given")
        if not self.weight > 0.0:
            raise SchemaError(
                f"schema.heads[{self.name}].weight: must be positive, got {self.weight}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSchema:
    """All fields, label heads (the first is the primary one) and counted pairs of fields.

    Attributes:
        counted_pairs: pairs of field names ("user" and "item" included) for which label counters
            are kept per combination of values.
    """

    fields: tuple[Field, ...] = ()
    heads: tuple[Head, ...] = (Head(name="click", feedback_kind="click"),)
    counted_pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _reject_repeats("schema.fields", [field.name for field in self.fields])
        _reject_repeats("schema.heads", [head.name for head in self.heads])
        if not self.heads:
            raise SchemaError("schema.heads: at least one label head is needed")
        if len(self.heads) > 30:
            raise SchemaError("schema.heads: at most 30 label heads fit an outcome, see History")
        countable = {*_RESERVED} | {
            field.name for field in self.fields if field.kind in ("categorical", "multi")
        }
        for pair in self.counted_pairs:
            for name in pair:
                if name not in countable:
                    raise SchemaError(
                        f"schema.counted_pairs: {name!r} is no categorical or multi field"
                    )

    @property
    def hash(self) -> str:
        """Return 16 hex digits that change whenever anything in the schema does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def of(self, entity: Entity) -> tuple[Field, ...]:
        """Return the declared fields of one entity, in declaration order."""
        return tuple(field for field in self.fields if field.entity == entity)

    def check(self, entity: Entity, features: Features, where: str) -> None:
        """Check that each given feature is declared and of the declared kind.

        Missing features are allowed (they are encoded as missing); unknown names are not.

        Raises:
            SchemaError: naming `where`, the feature, what was expected and what came.
        """
        by_name = {field.name: field for field in self.of(entity)}
        for name, value in features.items():
            field = by_name.get(name)
            if field is None:
                known = ", ".join(by_name) or "none"
                raise SchemaError(f"{where}.{name}: no such {entity} field; declared: {known}")
            if not _fits(field, value):
                raise SchemaError(f"{where}.{name}: expected {field.kind}, got {value!r}")


def schema_from_mapping(raw: Mapping[str, Any]) -> FeatureSchema:
    """Build a schema from parsed TOML.

    Raises:
        SchemaError: naming the first key or value that does not fit.
    """
    unknown = set(raw) - {"fields", "heads", "counted_pairs"}
    if unknown:
        raise SchemaError(f"schema.{sorted(unknown)[0]}: unknown key")
    try:
        fields = tuple(Field(**item) for item in raw.get("fields", ()))
        heads = tuple(Head(**item) for item in raw.get("heads", ()))
    except TypeError as error:
        raise SchemaError(f"schema: {error}") from error
    pairs = tuple(_pair(item) for item in raw.get("counted_pairs", ()))
    if not heads:
        return FeatureSchema(fields=fields, counted_pairs=pairs)
    return FeatureSchema(fields=fields, heads=heads, counted_pairs=pairs)


def schema_to_mapping(schema: FeatureSchema) -> dict[str, Any]:
    """Return the plain data from which `schema_from_mapping` builds the same schema."""
    raw = asdict(schema)
    raw["counted_pairs"] = [list(pair) for pair in schema.counted_pairs]
    return raw


def _pair(item: Any) -> tuple[str, str]:
    if not isinstance(item, list | tuple) or len(item) != 2:
        raise SchemaError(f"schema.counted_pairs: expected two field names, got {item!r}")
    return (str(item[0]), str(item[1]))


def _reject_repeats(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SchemaError(f"{where}: {name!r} is declared twice")
        seen.add(name)


def _fits(field: Field, value: object) -> bool:
    match field.kind:
        case "categorical":
            return isinstance(value, str)
        case "numeric":
            return isinstance(value, int | float)
        case "multi":
            return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
        case "dense":
            return (
                isinstance(value, tuple)
                and len(value) == field.size
                and all(isinstance(part, int | float) for part in value)
            )
