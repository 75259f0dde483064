from __future__ import annotations

import pytest

from domain.errors import NotReadyError
from serving.live_models import LiveModelSlot
from tests.unit.serving.worlds import make_models


def test_slot_is_not_ready_before_the_first_swap():
    slot = LiveModelSlot()
    assert slot.snapshot_id == ""
    with pytest.raises(NotReadyError, match="no snapshot is live"):
        slot.current()


def test_slot_gives_the_newest_bundle_while_readers_keep_theirs():
    slot = LiveModelSlot()
    slot.swap(make_models("s1"))
    reader = slot.current()
    slot.swap(make_models("s2"))
    assert (reader.snapshot_id, slot.current().snapshot_id, slot.snapshot_id) == ("s1", "s2", "s2")


def test_slot_tells_listeners_of_what_is_live_and_of_every_swap():
    slot, early, late = LiveModelSlot(), [], []
    slot.add_listener(lambda models: early.append(models.snapshot_id))
    slot.swap(make_models("s1"))
    slot.add_listener(lambda models: late.append(models.snapshot_id))
    slot.swap(make_models("s2"))
    assert (early, late) == (["s1", "s2"], ["s1", "s2"])
