"""What the quick selection shares: a process that forks trainers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.lives import Zygote, zygote


@pytest.fixture(scope="session")
def forks() -> Iterator[Zygote]:
    with zygote() as running:
        yield running
