"""Instruments of the retrieval index while it serves: what searches find, and what they cost."""

from __future__ import annotations

from monitoring.instruments import Maker


class IndexMetrics:
    """What live queries find of the exact answer, and what was done about it."""

    def __init__(self, make: Maker) -> None:
        self.recall = make.gauge(
            "retrieval_index_recall_ratio",
            "Share of the exact answer that searches find, over the last live queries asked again.",
        )
        self.asked_again = make.counter(
            "retrieval_index_asked_again_total", "Live queries answered exactly as well."
        )
        self.probed_lists = make.gauge(
            "retrieval_index_probed_lists", "Lists that a query searches; 0 is a complete search."
        )
        self.retrainings = make.counter(
            "retrieval_index_retrainings_total", "Times the lists were made anew while serving."
        )
