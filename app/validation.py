"""What pydantic complains of, as part of one clear line."""

from __future__ import annotations

from pydantic import ValidationError


def first_complaint(error: ValidationError) -> str:
    """Return the dotted key of the first complaint, and what it is."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {first['msg'].lower()}"
