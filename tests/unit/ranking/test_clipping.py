"""Gradients far larger than usual are cut to what is usual, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domain.errors import ConfigError
from ranking.clipping import ClippingConfig, NormClipper


def _vector(norm: float) -> list[torch.Tensor]:
    """Two gradients that are together a vector of this norm."""
    return [torch.tensor([0.6 * norm]), torch.tensor([[0.0, 0.8 * norm]])]


def _norm(parts: list[torch.Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in parts]).norm())


def _used_to(norm: float, factor: float = 5.0) -> NormClipper:
    clipper = NormClipper(ClippingConfig(factor=factor))
    for _ in range(40):
        clipper.clip(_vector(norm))
    return clipper


@pytest.mark.parametrize("usual", [1e-4, 1.0, 300.0])
def test_median_finds_the_norms_whatever_their_size(usual: float) -> None:
    clipper = NormClipper(ClippingConfig())
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        clipper.clip(_vector(usual * float(rng.lognormal(0.0, 0.7))))
    assert clipper.median == pytest.approx(usual, rel=0.35)


def test_a_gradient_far_larger_than_usual_is_cut_to_the_bound_and_keeps_its_direction() -> None:
    clipper = _used_to(2.0)
    parts = _vector(1e6)
    bound = 5.0 * clipper.median
    assert clipper.clip(parts) == pytest.approx(1e6)
    assert _norm(parts) == pytest.approx(bound, rel=1e-4)
    assert float(parts[0]) / float(parts[1][0, 1]) == pytest.approx(0.75, rel=1e-4)
    assert clipper.clipped == 1
    # One outlier moves what is usual by a twentieth, however large it is.
    assert clipper.median < 2.0 * 1.2


@pytest.mark.parametrize("norm", [0.0, 0.1, 9.0])
def test_what_is_usual_passes_as_it_is(norm: float) -> None:
    clipper, parts = _used_to(2.0), _vector(norm)
    expected = [part.clone() for part in parts]
    clipper.clip(parts)
    assert all(torch.equal(part, before) for part, before in zip(parts, expected, strict=True))
    assert clipper.clipped == 0


def test_first_gradients_and_a_factor_of_zero_are_never_cut() -> None:
    fresh, off = NormClipper(ClippingConfig()), _used_to(1.0, factor=0.0)
    for clipper in (fresh, off):
        clipper.clip(_vector(1.0))
        parts = _vector(1e5)
        clipper.clip(parts)
        assert _norm(parts) == pytest.approx(1e5)
        assert clipper.clipped == 0


def test_saved_clipper_goes_on() -> None:
    first, second = _used_to(3.0), NormClipper(ClippingConfig())
    second.load(first.save())
    for clipper in (first, second):
        clipper.clip(_vector(70.0))
    assert first.save() == second.save()
    assert second.clipped == 1


def test_config_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.clipping\.factor must be 0 or at least 1"):
        ClippingConfig(factor=0.5)
