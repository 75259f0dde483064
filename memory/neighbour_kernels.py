"""The search of the nearest-neighbour memory, compiled: the k most similar of a window, exactly.

A matrix product finds who comes into question; its rounding depends on the machine and on the
queries beside a query, so those are compared anew, by a sum in a fixed order. Equal ones: the newer
first. The slow twin is `neighbours.search_numpy`.

Shape legend: N = queries, D = hidden size, W = room of the window, k = neighbours.
"""

from __future__ import annotations

import numpy as np

from memory.kernels import compiled


def _push(heap_k, value):  # type: ignore[no-untyped-def]
    """Replace the smallest value of a binary heap, which is its first, and sift down."""
    size = heap_k.shape[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap_k[child + 1] < heap_k[child]:
            child += 1
        if heap_k[child] >= value:
            break
        heap_k[at] = heap_k[child]
        at = child
    heap_k[at] = value


def _nearest(  # type: ignore[no-untyped-def]
    rough_NW, query_ND, unit_WD, order_W, slack, slots_Nk, cosine_Nk
):
    """Write the slots of each query's nearest and their cosines, best first; -1 for none.

    `order_W` grows with the time of writing. `slack` is more than rounding can change a product by.
    """
    num_queries, count = slots_Nk.shape
    num_slots = rough_NW.shape[1]
    heap_k = np.empty(count, np.float32)
    for n in range(num_queries):
        slots_Nk[n] = -1
        cosine_Nk[n] = -np.inf
        heap_k[:] = -np.inf
        for w in range(num_slots):
            if rough_NW[n, w] > heap_k[0]:
                _sift(heap_k, rough_NW[n, w])
        least = heap_k[0] - slack
        for w in range(num_slots):
            if rough_NW[n, w] < least:
                continue
            cosine = np.float32(0)
            for d in range(query_ND.shape[1]):
                cosine += query_ND[n, d] * unit_WD[w, d]
            _insert(slots_Nk[n], cosine_Nk[n], w, cosine, order_W)


def _insert_sorted(slots_k, cosine_k, slot, cosine, order_W):  # type: ignore[no-untyped-def]
    """Put a slot where it belongs among the best, if it does."""
    at = slots_k.shape[0]
    while at > 0:
        before = slots_k[at - 1]
        if before >= 0 and (
            cosine_k[at - 1] > cosine
            or (cosine_k[at - 1] == cosine and order_W[before] > order_W[slot])
        ):
            break
        at -= 1
    if at == slots_k.shape[0]:
        return
    for i in range(slots_k.shape[0] - 1, at, -1):
        slots_k[i] = slots_k[i - 1]
        cosine_k[i] = cosine_k[i - 1]
    slots_k[at] = slot
    cosine_k[at] = cosine


_sift = compiled(_push)
_insert = compiled(_insert_sorted)
nearest = compiled(_nearest)
