"""`headrace evaluate`: models compared the way papers compare them."""

from __future__ import annotations

import typer

from app.commands import evaluate_incremental, evaluate_sequential

app = typer.Typer(help="Compare models the way papers compare them.", no_args_is_help=True)
app.command("incremental")(evaluate_incremental.incremental)
app.command("sequential")(evaluate_sequential.sequential)
