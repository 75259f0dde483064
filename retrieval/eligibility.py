"""Which rows may be in an answer: in the catalog, and past every filter of the request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.requests import RetrievalRequest
from retrieval.catalog import Catalog
from retrieval.item_columns import ItemColumns


class Eligibility:
    """Turns a request's filters into a bitmap over the rows of a catalog; N rows."""

    def __init__(self, catalog: Catalog, columns: ItemColumns) -> None:
        self._catalog = catalog
        self._columns = columns

    def allowed(self, request: RetrievalRequest) -> NDArray[np.bool_] | None:
        """Return the rows that allow list and conditions let through, bool (N,).

        None when the request has neither: then the whole catalog is, less what is excluded, and
        nothing of its size need be made for it.
        """
        if request.allow is None and not request.where:
            return None
        available_N = self._catalog.available
        if request.allow is None:
            allowed_N = available_N.copy()
        else:
            rows = self._catalog.ids.known(request.allow)
            allowed_N = np.zeros(len(available_N), dtype=np.bool_)
            allowed_N[rows] = available_N[rows]
        for condition in request.where:
            allowed_N &= self._columns.meeting(condition)
        return allowed_N

    def bitmap(self, request: RetrievalRequest) -> NDArray[np.bool_]:
        """Return the rows that pass every filter, bool (N,)."""
        allowed_N = self.allowed(request)
        eligible_N = self._catalog.available.copy() if allowed_N is None else allowed_N
        eligible_N[self._catalog.ids.known(request.exclude)] = False
        return eligible_N

    def rows(self, request: RetrievalRequest) -> NDArray[np.int64]:
        """Return the rows that pass every filter, ascending."""
        rows: NDArray[np.int64] = np.flatnonzero(self.bitmap(request))
        return rows
