"""Many texts as one byte string: their UTF-8, a zero byte between two of them.

A repeated string field costs an object per text on the way in and on the way out; this form is
joined and split in one go. See `Tensor` in protos/headrace/v1/tensors.proto.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import InvalidRequestError

_BETWEEN = "\0"


def pack_texts(texts: Sequence[str]) -> bytes:
    r"""Return texts as bytes.

    >>> pack_texts(["film-7", "b"])
    b'film-7\x00b'

    Raises:
        InvalidRequestError: a text holds a zero byte itself, so another form must be asked for.
    """
    data = _BETWEEN.join(texts).encode()
    if data.count(b"\0") != max(len(texts) - 1, 0):
        raise InvalidRequestError(
            "answer_form", "an id of the answer holds a zero byte: ask for ANSWER_FORM_ITEMS"
        )
    return data


def unpack_texts(where: str, data: bytes, shape: Sequence[int]) -> tuple[str, ...]:
    """Return the texts again.

    Raises:
        InvalidRequestError: naming the field below `where`, when data and shape do not agree.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{where}.data", f"expected UTF-8: {error.reason}") from error
    if not text and list(shape) == [0]:
        return ()
    texts = text.split(_BETWEEN)
    if list(shape) != [len(texts)]:
        raise InvalidRequestError(
            f"{where}.shape", f"data holds {len(texts)} texts, shape says {list(shape)}"
        )
    return tuple(texts)
