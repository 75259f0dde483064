"""Arrays that grow with the catalog: room is doubled, so that n rows cost O(n) copies in all."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)

_SMALLEST_ROOM = 64


def room_for(num_rows: int, room: int) -> int:
    """Return `room`, doubled until it holds `num_rows`.

    >>> room_for(65, 0), room_for(64, 64)
    (128, 64)
    """
    room = max(room, _SMALLEST_ROOM)
    while room < num_rows:
        room *= 2
    return room


def grown(array: NDArray[_Scalar], num_rows: int, fill: float, axis: int = 0) -> NDArray[_Scalar]:
    """Return `array` with room for `num_rows` along `axis`, new entries set to `fill`.

    The array itself comes back when there is room already.
    """
    if array.shape[axis] >= num_rows:
        return array
    shape = list(array.shape)
    shape[axis] = room_for(num_rows, array.shape[axis])
    larger = np.full(shape, fill, dtype=array.dtype)
    larger[tuple(slice(0, size) for size in array.shape)] = array
    return larger
