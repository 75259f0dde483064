"""Joiner counts: what became of every impression and every piece of feedback."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class JoinerCounts:
    """What became of every impression and every piece of feedback.

    Impressions observed = joined + repeated + late. Feedback observed = joined + repeated + late +
    unlabelled + organic + orphaned + contradictory + what still waits (`Joiner.num_early`).

    Attributes:
        impressions_joined: opened to collect labels.
        impressions_repeated: known already.
        impressions_late: window closed by the watermark on arrival; no examples, because their
            feedback may be lost and silence would mean nothing.
        impressions_settled_early: settled before their window closed, over `max_pending`.
        feedback_joined: decided a label of its impression.
        feedback_repeated: said what had been decided before.
        feedback_late: after the attribution window, or after the watermark had closed it.
        feedback_unlabelled: of a kind that decides no head.
        feedback_organic: became an organic example, its impression not named or never seen.
        feedback_orphaned: decided nothing positively, and its impression never came.
        feedback_contradictory: about an item or by a user that its impression does not have.
    """

    impressions_joined: int = 0
    impressions_repeated: int = 0
    impressions_late: int = 0
    impressions_settled_early: int = 0
    feedback_joined: int = 0
    feedback_repeated: int = 0
    feedback_late: int = 0
    feedback_unlabelled: int = 0
    feedback_organic: int = 0
    feedback_orphaned: int = 0
    feedback_contradictory: int = 0
