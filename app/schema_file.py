"""A feature schema as TOML, as a person would write it."""

from __future__ import annotations

import json

from domain.features import FeatureSchema


def schema_to_toml(schema: FeatureSchema) -> str:
    """Return the `[schema]` tables that declare `schema`; `load_settings` reads them back."""
    pairs = ", ".join(json.dumps(list(pair)) for pair in schema.counted_pairs)
    lines = ["[schema]", f"counted_pairs = [{pairs}]"]
    for field in schema.fields:
        lines += ["", "[[schema.fields]]", f"name = {json.dumps(field.name)}"]
        lines += [f"entity = {json.dumps(field.entity)}", f"kind = {json.dumps(field.kind)}"]
        if field.size:
            lines.append(f"size = {field.size}")
        if field.counted:
            lines.append("counted = true")
    for head in schema.heads:
        lines += ["", "[[schema.heads]]", f"name = {json.dumps(head.name)}"]
        lines += [
            f"feedback_kind = {json.dumps(head.feedback_kind)}",
            f"positive_at = {head.positive_at}",
            f"weight = {head.weight}",
        ]
    return "\n".join(lines) + "\n"
