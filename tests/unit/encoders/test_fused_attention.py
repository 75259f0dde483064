"""FuXi-alpha's attention as one kernel gives what the plain form gives, forward and backward.

There is no GPU where tests run: Triton interprets the kernels, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from domain.errors import ConfigError
from encoders import fused_attention
from encoders.fused_attention import use_fused
from tests.needed_tools import need_module

ROOT = Path(__file__).parents[3]
Q = torch.zeros(1, 2, 1, 4)
TIMES = torch.zeros(1, 2, dtype=torch.int64)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    need_module("triton")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.unit.encoders.fused_cases"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


CASES = (
    "tiny", "one event", "two tiles, uneven", "exact tile, many buckets", "milliseconds",
    "wide heads",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_kernel_gives_output_and_gradients_of_the_plain_form(
    found: dict[str, Any], case: str
) -> None:
    far = {name: size for name, size in found["cases"][case].items() if size > 2e-5}
    assert far == {}
    named = set(found["cases"][case])
    for gradient in ("uvqk_DX", "times.weight", "positions.weight"):
        assert {f"blocks.0.{gradient}", f"blocks.1.{gradient}"} <= named
    assert {"out", "x"} <= named


def test_every_case_ran(found: dict[str, Any]) -> None:
    assert set(found["cases"]) == set(CASES)


def test_bucket_edges_are_those_of_the_oracle(found: dict[str, Any]) -> None:
    assert found["edges"] == 0


def test_kernel_is_asked_for_only_where_it_can_run(found: dict[str, Any]) -> None:
    assert found["fits"] == {"whole seconds": False, "fused": True}
    assert not use_fused("plain", Q, Q, TIMES)
    assert not use_fused("auto", Q, Q, TIMES)


def test_demanding_it_where_it_cannot_run_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"attention: .* got tensors on cpu; it runs on a CUDA"):
        use_fused("fused", Q, Q, TIMES)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ConfigError, match="up to 128 in float32 or bfloat16, and whole seconds"):
        use_fused("fused", Q, Q, TIMES.float())
    monkeypatch.setattr(fused_attention, "_kernels", lambda: None)
    with pytest.raises(ConfigError, match="Triton is not installed here"):
        use_fused("fused", Q, Q, TIMES)


def test_a_missing_triton_is_told_from_a_broken_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(fused_attention.importlib, "import_module", missing)
    assert fused_attention._kernels.__wrapped__() is None

    def broken(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(fused_attention.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        fused_attention._kernels.__wrapped__()
