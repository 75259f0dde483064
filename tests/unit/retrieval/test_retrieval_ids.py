"""Ids, rows and the catalog: no collision, rows used again, room made for new items."""

from __future__ import annotations

from retrieval.catalog import Catalog
from retrieval.id_rows import UNKNOWN, IdRows


def test_released_row_goes_to_the_next_new_id() -> None:
    ids = IdRows()
    for name in "abc":
        ids.admit(name)
    ids.release(1)
    assert ids.row("b") == UNKNOWN
    assert ids.admit("d") == 1
    assert ids.num_rows == 3


def test_known_rows_are_ascending_without_repeats() -> None:
    ids = IdRows()
    for name in "abc":
        ids.admit(name)
    assert ids.known(["c", "x", "a", "c"]).tolist() == [0, 2]


def test_empty_string_is_an_id_like_any_other() -> None:
    ids, restored = IdRows(), IdRows()
    for name in ("", "a", "b"):
        ids.admit(name)
    ids.release(1)
    restored.load(ids.save())
    assert restored.row("") == 0
    assert not restored.owns(1)
    assert restored.admit("c") == ids.admit("c") == 1


def catalog_of(num_items: int, max_items: int) -> Catalog:
    catalog = Catalog(max_items)
    for item in range(num_items):
        catalog.admit(f"i{item}", item)
    return catalog


def test_room_is_made_by_the_item_seen_longest_ago() -> None:
    catalog = catalog_of(3, 3)
    catalog.admit("i0", 10)
    assert catalog.make_room(1).tolist() == [1]
    assert catalog.admit("new", 11) == 1
    assert catalog.num_available == 3


def test_items_taken_out_leave_first() -> None:
    catalog = catalog_of(3, 3)
    catalog.set_available(2, available=False)
    assert catalog.make_room(1).tolist() == [2]


def test_items_about_to_be_learned_stay() -> None:
    catalog = catalog_of(3, 3)
    assert catalog.make_room(1, keep=["i0"]).tolist() == [1]


def test_nobody_leaves_while_there_is_room() -> None:
    assert catalog_of(3, 5).make_room(2).tolist() == []
