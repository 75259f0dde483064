"""The flags of `headrace evaluate sequential`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

_SIZES = "Sizes, in the place of the preset's"
_LEARNING = "Learning, in the place of the preset's"

DatasetOption: TypeAlias = Annotated[
    str, typer.Option("--dataset", help="movielens, of any size.", metavar="NAME")
]
FolderOption: TypeAlias = Annotated[
    Path, typer.Option("--path", help="The folder as it was published.", metavar="DIR")
]
ModelOption: TypeAlias = Annotated[
    str, typer.Option("--model", help="fuxi-alpha, fuxi-beta, hstu or sasrec.", metavar="NAME")
]
PresetOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Published settings: ml-1m, ml-1m-large, ml-20m, ml-20m-large.",
        metavar="NAME",
    ),
]
EpochsOption: TypeAlias = Annotated[
    int | None, typer.Option("--epochs", help="Passes over the users (101).", metavar="N")
]
SeedsOption: TypeAlias = Annotated[
    str, typer.Option("--seeds", help="Seeds, with commas between them.", metavar="N,N,...")
]
RuleOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--rule",
        help="Which epoch counts: upstream (best on the test, as published), validation (best on "
        "the last but one item, which is then not learned), or both.",
        metavar="NAME",
    ),
]
RunFolderOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for checkpoints, TSV, JSON, Markdown, plot.", metavar="DIR"),
]
ResumeOption: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out; more --epochs may be.")
]
DeviceOption: TypeAlias = Annotated[
    str, typer.Option("--device", help="auto, cpu or cuda.", metavar="NAME")
]
AttentionOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--attention",
        help="Of FuXi-alpha: plain, fused (one kernel, on a GPU), or auto: fused where it can be.",
        metavar="NAME",
    ),
]


def _number(flag: str, help_: str, panel: str) -> Any:
    return typer.Option(flag, help=help_, rich_help_panel=panel)


BlocksOption: TypeAlias = Annotated[int | None, _number("--blocks", "Blocks.", _SIZES)]
WidthOption: TypeAlias = Annotated[int | None, _number("--width", "Width of a token.", _SIZES)]
HeadsOption: TypeAlias = Annotated[int | None, _number("--heads", "Attention heads.", _SIZES)]
QueryWidthOption: TypeAlias = Annotated[
    int | None, _number("--d-qk", "Queries and keys, per head.", _SIZES)
]
ValueWidthOption: TypeAlias = Annotated[int | None, _number("--d-v", "Values, per head.", _SIZES)]
FfnOption: TypeAlias = Annotated[
    int | None, _number("--ffn-multiple", "Feed-forward part, in widths.", _SIZES)
]
HistoryOption: TypeAlias = Annotated[
    int | None, _number("--history-length", "Events the model sees.", _SIZES)
]
DropoutOption: TypeAlias = Annotated[float | None, _number("--dropout", "Share.", _LEARNING)]
BatchOption: TypeAlias = Annotated[
    int | None, _number("--batch-size", "Users per step.", _LEARNING)
]
NegativesOption: TypeAlias = Annotated[
    int | None, _number("--negatives", "Drawn items per place.", _LEARNING)
]
TemperatureOption: TypeAlias = Annotated[
    float | None, _number("--temperature", "Of the softmax.", _LEARNING)
]
RateOption: TypeAlias = Annotated[float | None, _number("--learning-rate", "Of AdamW.", _LEARNING)]
DecayOption: TypeAlias = Annotated[float | None, _number("--weight-decay", "Of AdamW.", _LEARNING)]
