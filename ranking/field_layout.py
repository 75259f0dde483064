"""Where every field of a schema stands in the arrays of a captured request.

Ids come first the single-valued ones, then the multi-valued ones, each of those padded to the same
number of values; what belongs to the request (user and context) is kept once, what belongs to the
item once per item.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.features import ITEM_ID, USER_ID, Entity, FeatureSchema, Field


@dataclass(frozen=True, slots=True)
class Side:
    """The columns of one side of a capture, of the request or of the item.

    Attributes:
        id_name: the id field of this side.
        singles: categorical fields, after the id.
        multis: multi-valued fields, `width` id columns each.
        numerics: numeric fields, one float column each.
        denses: dense fields, `size` float columns each.
    """

    id_name: str
    singles: tuple[Field, ...]
    multis: tuple[Field, ...]
    numerics: tuple[Field, ...]
    denses: tuple[Field, ...]
    width: int

    @property
    def num_single_ids(self) -> int:
        """Return the number of single-valued id columns, the id itself included."""
        return 1 + len(self.singles)

    @property
    def num_ids(self) -> int:
        """Return the number of id columns."""
        return self.num_single_ids + self.width * len(self.multis)

    @property
    def num_fields(self) -> int:
        """Return the number of embedded fields."""
        return self.num_single_ids + len(self.multis)

    @property
    def num_floats(self) -> int:
        """Return the number of declared float columns."""
        return len(self.numerics) + sum(field.size for field in self.denses)

    def fields_of_columns(self) -> list[int]:
        """Return the field that each id column belongs to."""
        multis = range(self.num_single_ids, self.num_fields)
        return [*range(self.num_single_ids), *(f for f in multis for _ in range(self.width))]

    def columns(self) -> dict[str, tuple[int, ...]]:
        """Return the id columns of each field by name."""
        found: dict[str, tuple[int, ...]] = {self.id_name: (0,)}
        for i, field in enumerate(self.singles):
            found[field.name] = (1 + i,)
        for i, field in enumerate(self.multis):
            start = self.num_single_ids + i * self.width
            found[field.name] = tuple(range(start, start + self.width))
        return found


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """Both sides, and the counted terms over the columns of both (request first, then item)."""

    request: Side
    item: Side
    terms: tuple[tuple[str, ...], ...]

    @property
    def num_ids(self) -> int:
        """Return the number of id columns of both sides."""
        return self.request.num_ids + self.item.num_ids

    @property
    def num_fields(self) -> int:
        """Return the number of embedded fields of both sides."""
        return self.request.num_fields + self.item.num_fields

    def field_names(self) -> tuple[str, ...]:
        """Return the names of the embedded fields, in order."""
        return (*self.request.columns(), *self.item.columns())

    def term_columns(self) -> list[list[tuple[int, int]]]:
        """Return for each counted term its pairs of id columns; a single field pairs with itself.

        Several pairs stand for one term where a field has several values.
        """
        columns = self.request.columns()
        offset = self.request.num_ids
        for name, own in self.item.columns().items():
            columns[name] = tuple(offset + column for column in own)
        return [
            [
                (left, right)
                for left in columns[term[0]]
                for right in (columns[term[1]] if len(term) == 2 else (left,))
            ]
            for term in self.terms
        ]


def layout_of(schema: FeatureSchema, max_values: int) -> FieldLayout:
    """Lay out a schema; `max_values` values of a multi-valued field are kept."""
    counted = [field.name for field in schema.fields if field.counted]
    terms = [(USER_ID,), (ITEM_ID,), *((name,) for name in counted), *schema.counted_pairs]
    return FieldLayout(
        request=_side(schema, USER_ID, ("user", "context"), max_values),
        item=_side(schema, ITEM_ID, ("item",), max_values),
        terms=tuple(terms),
    )


def _side(schema: FeatureSchema, id_name: str, entities: tuple[Entity, ...], width: int) -> Side:
    fields = [field for entity in entities for field in schema.of(entity)]

    def of(kind: str) -> tuple[Field, ...]:
        return tuple(field for field in fields if field.kind == kind)

    return Side(id_name, of("categorical"), of("multi"), of("numeric"), of("dense"), width)
