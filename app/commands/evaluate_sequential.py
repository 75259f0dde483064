"""`headrace evaluate sequential`: each user's last item among all items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_SIZES = "Sizes, in the place of the preset's"
_LEARNING = "Learning, in the place of the preset's"


def sequential(
    dataset: Annotated[
        str, typer.Option("--dataset", help="movielens, of any size.", metavar="NAME")
    ],
    path: Annotated[
        Path, typer.Option("--path", help="The folder as it was published.", metavar="DIR")
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="fuxi-alpha, fuxi-beta, hstu or sasrec.", metavar="NAME"),
    ] = "fuxi-alpha",
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="Published settings: ml-1m, ml-1m-large, ml-20m, ml-20m-large.",
            metavar="NAME",
        ),
    ] = "ml-1m",
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the users (101).", metavar="N")
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Seeds, with commas between them.", metavar="N,N,...")
    ] = "1,2,3",
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            help="Which epoch counts: upstream (best on the test, as published), validation "
            "(best on the last but one item, which is then not learned), or both.",
            metavar="NAME",
        ),
    ] = "both",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for checkpoints, TSV, JSON, Markdown, plot.", metavar="DIR"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; more --epochs may be.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu or cuda.", metavar="NAME")
    ] = "auto",
    blocks: Annotated[
        int | None, typer.Option("--blocks", help="Blocks.", rich_help_panel=_SIZES)
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", help="Width of a token.", rich_help_panel=_SIZES)
    ] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", help="Attention heads.", rich_help_panel=_SIZES)
    ] = None,
    d_qk: Annotated[
        int | None,
        typer.Option("--d-qk", help="Queries and keys, per head.", rich_help_panel=_SIZES),
    ] = None,
    d_v: Annotated[
        int | None, typer.Option("--d-v", help="Values, per head.", rich_help_panel=_SIZES)
    ] = None,
    ffn_multiple: Annotated[
        int | None,
        typer.Option(
            "--ffn-multiple", help="Feed-forward part, in widths.", rich_help_panel=_SIZES
        ),
    ] = None,
    history_length: Annotated[
        int | None,
        typer.Option("--history-length", help="Events the model sees.", rich_help_panel=_SIZES),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option("--dropout", help="Share dropped.", rich_help_panel=_LEARNING),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Users per step.", rich_help_panel=_LEARNING),
    ] = None,
    negatives: Annotated[
        int | None,
        typer.Option("--negatives", help="Drawn items per place.", rich_help_panel=_LEARNING),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Of the softmax.", rich_help_panel=_LEARNING),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="Of AdamW.", rich_help_panel=_LEARNING),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option("--weight-decay", help="Of AdamW.", rich_help_panel=_LEARNING),
    ] = None,
) -> None:
    """Train a sequence model and rank each user's last item among all items.

    Leave-one-out as in the research trainer that HSTU and FuXi-alpha were published with, on
    MovieLens of any size. Prints a Markdown table, a line per rule and seed. Ctrl-C leaves a table
    of what is done; with --out, --resume goes on from the last epoch and comes to the same
    numbers. See docs/evaluation.md.

    Examples:
    - `headrace evaluate sequential --dataset movielens --path DIR --model hstu --out hstu-run`
    - `headrace evaluate sequential --dataset movielens --path DIR --preset ml-1m-large`
    - `headrace evaluate sequential --dataset movielens --path DIR --epochs 20 --seeds 1`
    """
    from app.evaluate_sequential import Wanted, run_sequential

    changes = {
        "blocks": blocks,
        "width": width,
        "heads": heads,
        "d_qk": d_qk,
        "d_v": d_v,
        "ffn_multiple": ffn_multiple,
        "history_length": history_length,
        "dropout": dropout,
        "batch_size": batch_size,
        "negatives": negatives,
        "temperature": temperature,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "epochs": epochs,
    }
    wanted = Wanted(
        dataset=dataset,
        path=path,
        seeds=seeds,
        rule=rule,
        out=out,
        resume=resume,
        device=device,
    )
    raise typer.Exit(run_sequential(wanted, model, preset, changes))
