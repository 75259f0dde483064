"""Many texts as two byte strings: their UTF-8 one after the other, and where each begins.

A repeated string field costs an object per text on the way in and on the way out; this form is cut
out of one string. See `Tensor` in protos/headrace/v1/tensors.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from domain.errors import InvalidRequestError

_OFFSET = np.dtype("<u4")


def pack_texts(texts: Sequence[str]) -> tuple[bytes, bytes]:
    """Return data and offsets.

    >>> data, offsets = pack_texts(["film-7", "b"])
    >>> data, list(np.frombuffer(offsets, "<u4"))
    (b'film-7b', [0, 6, 7])
    """
    parts = [text.encode() for text in texts]
    offsets = np.zeros(len(parts) + 1, _OFFSET)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return b"".join(parts), offsets.tobytes()


def unpack_texts(where: str, data: bytes, offsets: bytes) -> tuple[str, ...]:
    """Return the texts again.

    Raises:
        InvalidRequestError: naming the field below `where`, when the bytes do not fit together.
    """
    if not offsets or len(offsets) % _OFFSET.itemsize:
        raise InvalidRequestError(
            f"{where}.offsets",
            f"expected uint32, one more than there are texts, got {len(offsets)} bytes",
        )
    starts = np.frombuffer(offsets, _OFFSET)
    if starts[0] != 0 or starts[-1] != len(data) or (starts[1:] < starts[:-1]).any():
        raise InvalidRequestError(
            f"{where}.offsets",
            f"expected to rise from 0 to the {len(data)} bytes of data, "
            f"got {starts[0]} to {starts[-1]}",
        )
    try:
        text = data.decode()
        if len(text) == len(data):  # one byte a character: cut the text, not the bytes
            return tuple([text[start:end] for start, end in pairwise(starts.tolist())])
        return tuple([data[start:end].decode() for start, end in pairwise(starts.tolist())])
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{where}.data", f"expected UTF-8: {error.reason}") from error
