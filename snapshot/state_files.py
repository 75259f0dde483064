"""A component's state as files: arrays in safetensors, the rest in JSON; the way back is exact."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from domain.errors import SnapshotDamagedError, SnapshotError
from domain.state import State
from snapshot.disk import naming

ARRAYS = ".safetensors"
OTHERS = ".json"

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_DTYPES = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
)
_LEAVES = (str, int, float, bool, type(None))
_READABLE_BY_ALL = 0o644

Arrays = dict[str, NDArray[Any]]


def write_state(folder: Path, component: str, state: State) -> list[str]:
    """Write `<component>.json` and, when there are arrays, `<component>.safetensors`.

    Arrays are named by the keys that lead to them, joined by "/" (in a key "~" is written "~0" and
    "/" "~1", as in JSON pointers). The JSON keeps a null in each array's place, and with it the
    order of keys.

    Returns:
        The names of the files written.

    Raises:
        SnapshotError: naming the place in the state that could not be read back as it is (a key
            that is no str, a NaN, a type or dtype that has no exact form), or the file that could
            not be written.
    """
    if _COMPONENT.fullmatch(component) is None or component == "manifest":
        raise SnapshotError(
            "component names must be letters, digits, - and _ and not 'manifest', "
            f"got {component!r}"
        )
    tree, arrays = split(state, component)
    try:
        text = json.dumps({"arrays": sorted(arrays), "tree": tree}, allow_nan=False)
    except ValueError as error:  # an int of more digits than Python converts
        raise SnapshotError(f"{component}: {error}") from error
    path = folder / f"{component}{OTHERS}"
    with naming(path):
        path.write_text(text, encoding="utf-8")
    if not arrays:
        return [path.name]
    arrays_path = folder / f"{component}{ARRAYS}"
    try:
        with naming(arrays_path):
            save_file(arrays, arrays_path)
            arrays_path.chmod(_READABLE_BY_ALL)
    except SafetensorError as error:
        raise SnapshotError(f"{arrays_path}: {error}") from error
    return [path.name, arrays_path.name]


def read_state(others: bytes, arrays: bytes | None, where: str) -> State:
    """Return the state whose files held these bytes.

    Raises:
        SnapshotDamagedError: naming `where`; the files are not what `write_state` wrote.
    """
    try:
        document = json.loads(others)
        names, tree = document["arrays"], document["tree"]
        found = {} if arrays is None else load(arrays)
        if sorted(found) != names:
            raise ValueError(f"expected arrays {names}, got {sorted(found)}")
        return join(tree, found)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise SnapshotDamagedError(f"{where}: not a state: {error!r}") from error


def split(state: State, where: str) -> tuple[State, Arrays]:
    """Return a state with null in the place of each array, and the arrays by path.

    Raises:
        SnapshotError: naming the place, after `where`, that has no exact form on disk.
    """
    arrays: Arrays = {}
    return _without_arrays(state, where, "", arrays), arrays


def join(tree: State, arrays: Arrays) -> State:
    """Put arrays back where `split` took them from, into `tree` itself.

    Raises:
        KeyError, TypeError: there is no such place.
    """
    for name, array in arrays.items():
        *parents, last = (_unescaped(key) for key in name.split("/"))
        node = tree
        for key in parents:
            node = node[key]
        node[last] = array
    return tree


def _without_arrays(node: State, where: str, prefix: str, arrays: Arrays) -> dict[str, Any]:
    """Return a copy with null for each array; the arrays themselves are put into `arrays`."""
    copy: dict[str, Any] = {}
    for key, value in node.items():
        place = f"{where}.{key}"
        if type(key) is not str:
            raise SnapshotError(f"{place}: keys must be str, got {key!r}")
        name = prefix + _escaped(key)
        if isinstance(value, dict):
            copy[key] = _without_arrays(value, place, f"{name}/", arrays)
        elif isinstance(value, np.ndarray):
            copy[key] = None
            arrays[name] = _plain(value, name, place)
        else:
            _check_json(value, place)
            copy[key] = value
    return copy


def _plain(array: NDArray[Any], name: str, place: str) -> NDArray[Any]:
    if type(array) is not np.ndarray or array.dtype.name not in _DTYPES or not array.dtype.isnative:
        raise SnapshotError(
            f"{place}: expected a plain array of bool, int, uint or float (16 to 64 bits, native "
            f"byte order), got {type(array).__name__} of {array.dtype.str}"
        )
    if name == "__metadata__":
        raise SnapshotError(f"{place}: safetensors keeps this name for itself")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SnapshotError(f"{place!a}: a key is not valid Unicode") from error
    return np.asarray(array, order="C")


def _check_json(value: object, place: str) -> None:
    """Refuse what JSON would lose or change: NaN, tuples, NumPy scalars, subclasses, arrays.

    Raises:
        SnapshotError: naming the place.
    """
    if type(value) is list:
        _check_list(value, place)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise SnapshotError(f"{place}.{key}: keys must be str, got {key!r}")
            _check_json(item, f"{place}.{key}")
    elif type(value) not in _LEAVES:
        raise SnapshotError(
            f"{place}: expected an array, str, int, float, bool, None or a list of them, "
            f"got {type(value).__name__}"
        )
    elif type(value) is float and not math.isfinite(value):
        raise SnapshotError(f"{place}: JSON has no {value}; keep it in an array")


def _check_list(values: list[Any], place: str) -> None:
    # Id lists hold millions of str: looking at their types in one go takes a tenth of the time.
    if set(map(type, values)) <= {str, int, bool, type(None)}:
        return
    for i, value in enumerate(values):
        _check_json(value, f"{place}[{i}]")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")
