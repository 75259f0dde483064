"""Where settings come from: a TOML file, the environment and flags, each as values by key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from app.processes import STOP_WITH_PARENT
from app.setting_keys import SettingKeys, from_text
from domain.errors import ConfigError

ENV_PREFIX = "HEADRACE_"
_DELIMITER = "__"


@dataclass(frozen=True, slots=True)
class Layers:
    """What was set, the later layer winning; what nobody set is not here.

    Attributes:
        values: value by dotted key.
        sources: where it was set, by dotted key, as error messages end: " (in FILE)"; empty for
            flags, which the caller has before her eyes.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def add(self, values: Mapping[str, Any], source: str) -> None:
        """Put a layer on top."""
        self.values.update(values)
        self.sources.update(dict.fromkeys(values, source))


def read_layers(
    keys: SettingKeys, path: Path | None, environment: Mapping[str, str], flags: Sequence[str]
) -> Layers:
    """Return everything that is set, flags over environment over file.

    Raises:
        ConfigError: the file cannot be read, or a key does not exist.
    """
    layers = Layers()
    if path is not None:
        source = f" (in {path})"
        layers.add(keys.flat(read_toml(path, str(path)), source), source)
    for name, text in sorted(environment.items()):
        dotted = _dotted(keys, name)
        if dotted:
            source = f" (in {name})"
            keys.check(dotted, source)
            layers.add({dotted: _value(keys, dotted, text, source)}, source)
    for flag in flags:
        dotted, equals, text = flag.partition("=")
        dotted = dotted.strip()
        if not equals or not all(dotted.split(".")):
            raise ConfigError(f"--set {flag}: expected section.key=value")
        keys.check(dotted, "")
        layers.add({dotted: _value(keys, dotted, text.strip(), "")}, "")
    return layers


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """Return a TOML file's content.

    Raises:
        ConfigError: it cannot be read; `name` is how the message calls it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not TOML: {error}") from error


def _dotted(keys: SettingKeys, name: str) -> str:
    """Return the key that an environment variable sets; empty when it is none of ours.

    Not every HEADRACE_ variable is a setting: Kubernetes makes HEADRACE_PORT and
    HEADRACE_SERVICE_HOST for a service called headrace. What looks like a setting that is written
    a little wrong would be ignored without a word, so it is an error.
    """
    if not name.startswith(ENV_PREFIX) or name == STOP_WITH_PARENT:
        return ""
    written = name.removeprefix(ENV_PREFIX).lower()
    if _DELIMITER in written or written in keys.top:
        return written.replace(_DELIMITER, ".")
    variables = {key.replace(".", _DELIMITER): key for key in keys.types}
    meant = next((key for key in variables if key.replace(_DELIMITER, "_") == written), None)
    if meant is None:
        close = get_close_matches(written, [key for key in variables if _DELIMITER not in key], 1)
        meant = close[0] if close else None
    if meant is None:
        return ""
    raise ConfigError(
        f"{variables[meant]}: expected environment variable {ENV_PREFIX}{meant.upper()}, got {name}"
    )


def _value(keys: SettingKeys, dotted: str, text: str, source: str) -> Any:
    if dotted not in keys.types:
        raise ConfigError(f"{dotted}: expected one of its keys, as in {dotted}.KEY=VALUE{source}")
    return from_text(text, keys.types[dotted])
