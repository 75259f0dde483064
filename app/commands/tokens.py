"""`headrace tokens`: who may call a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="""Tokens by which a server knows its clients.

Examples:
- `headrace tokens new shop --allow read,publish --file tokens.txt`
""",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def tokens() -> None:
    """Keep `new` a command of its own: Typer would make the only one the group itself."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The client's name, as logs will have it.")],
    file: Annotated[Path, typer.Option("--file", help="File to add it to (server.access.tokens).")],
    allow: Annotated[
        str, typer.Option("--allow", help="What it may do: read, publish, admin.", metavar="LIST")
    ] = "read",
) -> None:
    """Make a token, print it once, and add its hash to a file.

    The token itself is kept nowhere: give it to the client, which sends it with every call as
    metadata `authorization: Bearer TOKEN`. To take it back, delete its line.

    Examples:
    - `headrace tokens new shop --allow read,publish --file tokens.txt`
    """
    from app.token_file import add_token

    typer.echo(add_token(file, name, allow.split(",")))
