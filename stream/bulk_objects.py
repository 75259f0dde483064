"""Many objects of a frozen dataclass at once, made field by field.

A frozen dataclass sets each field of each object through Python, which is most of the time that
decoding takes. Here each field is set for all objects in one pass in C, by the descriptors that
`slots=True` makes, past the guard that only `__setattr__` holds. No `__post_init__` is called.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import fields
from itertools import repeat
from typing import Any, TypeVar, cast

T = TypeVar("T")


def make_objects(made_of: type[T], count: int, /, **columns: Iterable[Any]) -> list[T]:
    """Return `count` objects of a dataclass with slots, from one column for each of its fields.

    >>> from domain.events import ShownItem
    >>> make_objects(ShownItem, 1, item_id=["a"], position=[0], score=[0.0], probability=[1.0])
    [ShownItem(item_id='a', position=0, score=0.0, probability=1.0)]
    """
    setters = _setters(cast(Hashable, made_of))
    assert columns.keys() == setters.keys(), made_of
    new: Any = object.__new__
    made: list[T] = list(map(new, repeat(made_of, count)))
    for name, column in columns.items():
        deque(map(setters[name], made, column), maxlen=0)
    return made


@functools.cache
def _setters(made_of: Any) -> dict[str, Callable[[Any, Any], None]]:
    return {one.name: getattr(made_of, one.name).__set__ for one in fields(made_of)}
