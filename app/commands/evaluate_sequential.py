"""`headrace evaluate sequential`: each user's last item among all items."""

from __future__ import annotations

import typer

from app import sequential_options as options

_SETTINGS = (
    "blocks", "width", "heads", "d_qk", "d_v", "ffn_multiple", "history_length", "dropout",
    "batch_size", "negatives", "temperature", "learning_rate", "weight_decay", "epochs",
    "attention",
)  # fmt: skip


def sequential(
    context: typer.Context,
    dataset: options.DatasetOption,
    path: options.FolderOption,
    model: options.ModelOption = "fuxi-alpha",
    preset: options.PresetOption = "ml-1m",
    epochs: options.EpochsOption = None,
    seeds: options.SeedsOption = "1,2,3",
    rule: options.RuleOption = "both",
    out: options.RunFolderOption = None,
    resume: options.ResumeOption = False,
    device: options.DeviceOption = "auto",
    attention: options.AttentionOption = None,
    blocks: options.BlocksOption = None,
    width: options.WidthOption = None,
    heads: options.HeadsOption = None,
    d_qk: options.QueryWidthOption = None,
    d_v: options.ValueWidthOption = None,
    ffn_multiple: options.FfnOption = None,
    history_length: options.HistoryOption = None,
    dropout: options.DropoutOption = None,
    batch_size: options.BatchOption = None,
    negatives: options.NegativesOption = None,
    temperature: options.TemperatureOption = None,
    learning_rate: options.RateOption = None,
    weight_decay: options.DecayOption = None,
) -> None:
    """Train a sequence model and rank each user's last item among all items.

    Leave-one-out as in the research trainer that HSTU and FuXi-alpha were published with, on
    MovieLens of any size. Prints a Markdown table, a line per rule and seed. Ctrl-C leaves a table
    of what is done; with --out, --resume goes on from the last epoch and comes to the same
    numbers. See docs/evaluation.md.

    Examples:
    - `headrace evaluate sequential --dataset movielens --path DIR --model hstu`
    - `headrace evaluate sequential --dataset movielens --path DIR --out runs`
    - `headrace evaluate sequential --dataset movielens --path DIR --epochs 20`
    """
    from app.evaluate_sequential import Wanted, run_sequential

    wanted = Wanted(
        dataset=dataset,
        path=path,
        seeds=seeds,
        rule=rule,
        out=out,
        resume=resume,
        device=device,
    )
    changes = {name: context.params[name] for name in _SETTINGS}
    raise typer.Exit(run_sequential(wanted, model, preset, changes))
