"""Settings of the processes themselves: where their files lie and where they listen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where a deployment keeps its files.

    Attributes:
        dir: folder of the embedded log, the snapshots and the processes' own logs.
        log: URL of the event log; empty means `events.sqlite` in `dir`.
    """

    dir: str = "headrace-data"
    log: str = ""

    def __post_init__(self) -> None:
        if self.log and not self.log.startswith(("sqlite:///", "kafka://", "file:///")):
            raise ConfigError(
                "data.log must be sqlite:///PATH, kafka://HOST:PORT or file:///PATH, "
                f"got {self.log!r}"
            )

    @property
    def log_url(self) -> str:
        """Return the event log's URL."""
        # In a URL a percent sign begins a code for another character.
        return self.log or f"sqlite:///{str(self.embedded_log).replace('%', '%25')}"

    @property
    def embedded_log(self) -> Path:
        """Return the file of the log that is used when no other is named."""
        return self.path / "events.sqlite"

    @property
    def path(self) -> Path:
        """Return the folder, absolute."""
        return Path(self.dir).expanduser().absolute()

    @property
    def snapshots(self) -> Path:
        """Return the folder of the snapshots."""
        return self.path / "snapshots"

    @property
    def deltas(self) -> Path:
        """Return the folder of what was learned between snapshots."""
        return self.path / "deltas"

    @property
    def journal(self) -> Path:
        """Return the folder of the step journal."""
        return self.path / "journal"

    @property
    def history(self) -> Path:
        """Return the file with the past of the metrics."""
        return self.path / "history.sqlite"

    @property
    def reports(self) -> Path:
        """Return the folder of replay reports that the dashboard lists."""
        return self.path / "reports"

    @property
    def process_logs(self) -> Path:
        """Return the folder of the child processes' logs."""
        return self.path / "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Where /metrics, /healthz and /readyz are answered.

    Attributes:
        host: address to listen on.
        trainer_port: port of the trainer's page; 0 is off.
        server_port: port of the server's page; 0 is off.
    """

    host: str = "127.0.0.1"
    trainer_port: int = 9101
    server_port: int = 9102

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("metrics.host must be an address, got ''")
        for name in ("trainer_port", "server_port"):
            if not 0 <= getattr(self, name) <= 65_535:
                raise ConfigError(f"metrics.{name} must be a port, got {getattr(self, name)}")
