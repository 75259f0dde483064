"""Rows and ranks against slow, obvious twins."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.faiss_flat_index import FaissFlatIndex
from retrieval.id_rows import UNKNOWN, IdRows
from retrieval.ranks import ranks_of_targets

names = st.sampled_from("abcdef")


@given(st.lists(st.tuples(st.sampled_from(["admit", "release"]), names), max_size=40))
def test_ids_never_share_a_row_and_a_restored_map_goes_on_identically(
    steps: list[tuple[str, str]],
) -> None:
    ids, held = IdRows(), set()
    for verb, name in steps:
        if verb == "admit":
            ids.admit(name)
            held.add(name)
        elif name in held:
            ids.release(ids.row(name))
            held.discard(name)
        restored = IdRows()
        restored.load(ids.save())
        rows = [restored.row(name) for name in sorted(held)]
        assert len(set(rows)) == len(held) == len(ids)
        assert rows == [ids.row(name) for name in sorted(held)]
        assert all(ids.row(name) == UNKNOWN for name in "abcdef" if name not in held)
        assert ids.num_rows <= 6
        assert restored.admit("new") == IdRowsCopy(ids).admit("new")


class IdRowsCopy(IdRows):
    """A copy made by hand, so that admitting to it leaves the original alone."""

    def __init__(self, other: IdRows) -> None:
        super().__init__()
        self._row_of = dict(other._row_of)
        self._id_of = list(other._id_of)
        self._free = list(other._free)


@given(
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 8)),
        elements=st.sampled_from([0.0, 1.0, 2.5, -3.0, float("-inf")]),
    ),
    data=st.data(),
)
def test_rank_is_the_place_in_a_stable_sort(scores: np.ndarray, data: st.DataObject) -> None:
    num_users, num_items = scores.shape
    targets = data.draw(
        st.lists(st.integers(-1, num_items - 1), min_size=num_users, max_size=num_users)
    )
    expected = []
    for scores_N, target in zip(scores, targets, strict=True):
        if target == UNKNOWN or np.isinf(scores_N[target]):
            expected.append(-1)
        else:
            order = sorted(range(num_items), key=lambda item, s=scores_N: (-s[item], item))
            expected.append(order.index(target) + 1)
    assert ranks_of_targets(torch.from_numpy(scores), np.array(targets)).tolist() == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["upsert", "remove"]), st.lists(st.integers(0, 9), max_size=6)),
        max_size=25,
    )
)
def test_flat_index_holds_what_a_dictionary_would(steps: list[tuple[str, list[int]]]) -> None:
    index, twin = FaissFlatIndex(3), {}
    rng = np.random.default_rng(0)
    for verb, chosen in steps:
        ids = np.unique(np.array(chosen, np.int64))
        if verb == "upsert":
            vectors = rng.normal(size=(len(ids), 3)).astype(np.float32)
            index.upsert(ids, vectors)
            twin.update(zip(ids.tolist(), vectors, strict=True))
        else:
            assert index.remove(ids) == sum(twin.pop(i, None) is not None for i in ids.tolist())
    query = np.ones((1, 3), np.float32)
    hits = index.search(query, 10)
    found = dict(zip(hits.ids_BK[0].tolist(), hits.scores_BK[0].tolist(), strict=True))
    found.pop(-1, None)
    assert found.keys() == twin.keys()
    for item, score in found.items():
        np.testing.assert_allclose(score, twin[item].sum(), rtol=1e-4, atol=1e-5)
