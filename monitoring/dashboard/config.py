"""Where the dashboard listens and how often it looks."""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardConfig:
    """How the dashboard is served.

    Attributes:
        host: address to listen on. There is no login, so other machines are let in only on purpose.
        port: 0 takes any free one.
        refresh_s: time between two looks at the records while a page is open.
        reports: folder of replay reports; empty means `reports` in `data.dir`.
    """

    host: str = "127.0.0.1"
    port: int = 8050
    refresh_s: float = 2.0
    reports: str = ""

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("dashboard.host must be an address, got ''")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"dashboard.port must be a port, got {self.port}")
        if not 0.5 <= self.refresh_s <= 3_600:
            raise ConfigError(f"dashboard.refresh_s must lie in 0.5..3600, got {self.refresh_s}")
