"""`headrace freshness`: how soon a running server's answers show what has just happened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def freshness(
    server: Annotated[
        str, typer.Option("--server", help="The server's address.", metavar="HOST:PORT")
    ] = "127.0.0.1:50051",
    rounds: Annotated[
        int, typer.Option("--rounds", help="Markers of each kind to publish.", min=1)
    ] = 20,
    pause_s: Annotated[
        float, typer.Option("--pause-s", help="Time between two of them.", min=0.0)
    ] = 0.1,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", help="Longest wait for one to show.", min=0.1)
    ] = 30.0,
    kind: Annotated[
        str, typer.Option("--kind", help="Kind of feedback; the schema must have a head for it.")
    ] = "click",
    weights: Annotated[
        bool,
        typer.Option("--weights/--no-weights", help="Wait for the models too; needs a trainer."),
    ] = True,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", help="Authority of the server's certificate (PEM); switches TLS on."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with a token that may read and publish."),
    ] = None,
) -> int:
    """Measure how soon answers show what has just happened, on a running system.

    Publishes markers through the server and asks it until each one shows: new items, and actions of
    users made up for the purpose. The items are withdrawn at the end; what stays behind are three
    actions per round, of users who never come back. The exit status is 1 when a marker did not
    show in time. Times are those of one caller, with the calls themselves in them; its clock and
    the server's should agree.

    Examples:
    - `headrace freshness --server 127.0.0.1:50051`
    - `headrace freshness --server rec.example.com:443 --ca ca.pem`
    - `headrace freshness --rounds 100 --no-weights`
    """
    from app.freshness_probe import HISTORY, ITEM, MARKERS, RANK, ProbeConfig, open_channel
    from app.freshness_run import FreshnessPlan, measure_freshness

    plan = FreshnessPlan(
        markers=MARKERS if weights else (ITEM, HISTORY, RANK),
        rounds=rounds,
        pause_s=pause_s,
        probe=ProbeConfig(kind=kind, timeout_s=timeout_s),
    )
    with open_channel(server, ca, token_file) as channel:
        return measure_freshness(channel, plan)
