"""Flags that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from app.settings import Settings

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="TOML file; see deploy/config/default.toml.", metavar="FILE"
    ),
]
DataDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        "-d",
        help="Folder of the embedded log and the snapshots (data.dir).",
        metavar="DIR",
    ),
]
LogOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Event log: sqlite:///PATH, kafka://HOST:PORT or file:///PATH (data.log).",
        metavar="URL",
    ),
]
OnGapOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--on-gap",
        help="When records were lost before they were read: fail, or skip them (trainer.on_gap).",
        metavar="fail|skip",
    ),
]
InsecureOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Let other machines in without TLS and tokens (server.insecure)."
    ),
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One setting, e.g. --set joiner.policy=fast; repeatable.", metavar="KEY=VALUE"
    ),
]


def settings_from(
    config: Path | None,
    overrides: list[str] | None,
    *,
    data_dir: Path | None = None,
    log: str | None = None,
) -> Settings:
    """Read the settings, with the shared flags on top.

    Raises:
        ConfigError: naming the file or the dotted key.
    """
    # Settings know every component, and with them torch: only a command that runs needs them.
    from app.settings import load_settings

    flags = list(overrides or ())
    if data_dir is not None:
        flags.append(f"data.dir={quoted(str(data_dir))}")
    if log is not None:
        flags.append(f"data.log={quoted(log)}")
    return load_settings(config, flags)


def on_gap_override(on_gap: str | None) -> list[str]:
    """Return the setting that --on-gap stands for; none when it was not given."""
    return [] if on_gap is None else [f"trainer.on_gap={quoted(on_gap)}"]


def insecure_override(insecure: bool) -> list[str]:
    """Return the setting that --insecure stands for; none when it was not given."""
    return ["server.insecure=true"] if insecure else []


def quoted(text: str) -> str:
    """Return a TOML string, so that quotes in a path are part of the path."""
    return json.dumps(text, ensure_ascii=False)
