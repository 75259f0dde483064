"""The keeper with a real index: live queries are asked again, and what a search covers is tuned."""

from __future__ import annotations

import numpy as np

from domain.clock import ManualClock
from monitoring.metrics import Metrics
from retrieval.index_care import IndexCare
from retrieval.live_index import LiveIndex
from retrieval.vector_index import IndexConfig
from serving.index_keeper import IndexKeeper, IndexKeeperConfig
from serving.live_models import LiveModelSlot
from tests.unit.serving.worlds import make_models

NUM = 3_000
WIDTH = 8
WINDOW = 20


def test_searches_come_to_hold_the_target_and_worn_lists_are_made_anew() -> None:
    rng = np.random.default_rng(0)
    vectors_ND = rng.normal(size=(NUM, WIDTH)).astype(np.float32)
    config = IndexConfig(kind="ivf", ivf_lists=40, ivf_probes=1)
    live = LiveIndex(config, WIDTH, lambda rows: vectors_ND[rows])
    live.synchronise(np.ones(NUM, np.bool_))
    slot, metrics = LiveModelSlot(), Metrics()
    keeper = IndexKeeper(
        slot,
        lambda models: IndexCare(live, config, WIDTH, models.lock),
        ManualClock(),
        IndexKeeperConfig(probe_share=0.5, window=WINDOW, target_recall=0.9, core_share=1.0),
        metrics.retrieval.index,
    )
    slot.swap(make_models("s"))

    def window() -> tuple[float | None, ...]:
        """Ask for a window of queries; return recall, lists searched and retrainings after it."""
        for query_D in rng.normal(size=(2 * WINDOW, WIDTH)).astype(np.float32):
            live.search(query_D[None], 10, exclude=np.arange(5))
            keeper.look_once()
        names = ("recall_ratio", "probed_lists", "retrainings_total")
        prefix = "headrace_retrieval_index"
        return tuple(metrics.registry.get_sample_value(f"{prefix}_{name}") for name in names)

    assert keeper.look_once() is False  # from here on, live queries are kept
    shown = [window() for _ in range(5)]
    assert [retrained for _, _, retrained in shown] == [0.0] * 5
    assert shown[0][1] == 4.0
    assert 0.2 < shown[0][0] < 0.6  # usually 0.3: one list of forty
    assert shown[-1][0] >= 0.85  # usually 0.92
    assert 4 < shown[-1][1] < 40  # usually 8

    vectors_ND[:, :2] = 0.1 * vectors_ND[:, :2] + 3.0  # all of them somewhere else
    for part in np.array_split(rng.permutation(NUM), 10):
        for row in part.tolist():
            live.mark(row)
        live.flush()
    assert window()[2] == 1.0
    assert [window() for _ in range(3)][-1][2] == 1.0
    ids, vectors = live.index.held(0, 40)  # type: ignore[attr-defined]
    assert sorted(ids.tolist()) == list(range(NUM))
    np.testing.assert_array_equal(vectors, vectors_ND[ids])
