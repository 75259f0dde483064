"""Rules for lists are checked against the schema they name fields of, before a server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import load_settings
from domain.errors import ConfigError
from serving.diversity import AttributeCap

SCHEMA = """
[schema]
fields = [
  { name = "maker", entity = "item", kind = "categorical" },
  { name = "opens_ms", entity = "item", kind = "numeric" },
]
"""


def load(folder: Path, text: str):
    path = folder / "my.toml"
    path.write_text(SCHEMA + text)
    return load_settings(path)


def test_rules_are_read_from_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [recommender.availability]
        from_feature = "opens_ms"
        [recommender.diversity]
        mmr_lambda = 0.8
        caps = [{ feature = "maker", at_most = 2 }]
        [recommender.exploration]
        share = 0.05
        """,
    )
    assert settings.recommender.availability.from_feature == "opens_ms"
    assert settings.recommender.diversity.caps == (AttributeCap(feature="maker", at_most=2),)
    assert settings.recommender.exploration.share == 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[recommender.availability]\nfrom_feature = "maker"',
            "recommender.availability.from_feature must name a numeric field of items (opens_ms), "
            "got 'maker'",
        ),
        (
            '[recommender.diversity]\ncaps = [{ feature = "opens_ms", at_most = 2 }]',
            "recommender.diversity.caps must name categorical or multi-valued fields of items "
            "(maker), got 'opens_ms'",
        ),
        ("[recommender.exploration]\nshare = 2.0", "recommender.exploration.share must be from"),
    ],
)
def test_field_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
