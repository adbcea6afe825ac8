"""Environment and flags become one frozen `Settings`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 1024 * 1024


class SettingsFault(Exception):
    """A setting with a value that cannot be; its text quotes both and says what would work."""


def default_data_dir() -> Path:
    """Where rooms are kept if nobody says where."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "livedrag"


def default_static_dir() -> Path:
    """The pages and samples: beside this file in a wheel, at the top of the repository in a clone."""
    packed = Path(__file__).parent / "static"
    return packed if packed.is_dir() else Path(__file__).parent.parent / "static"


@dataclass(frozen=True)
class Settings:
    """All that can be set. Each field is ``LIVEDRAG_<NAME>`` in the environment; there are flags for the usual ones."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    model: str = "builtin"
    device: str = ""  # empty: the best there is
    data_dir: Path = field(default_factory=default_data_dir)
    static_dir: Path = field(default_factory=default_static_dir)
    log_level: str = "info"
    allowed_hosts: tuple[str, ...] = ()  # empty: this machine's own names when listening on it alone, else any
    allowed_origins: tuple[str, ...] = ()  # besides the host itself, for pages served from elsewhere

    max_upload_bytes: int = 20 * MIB
    max_pixels: int = 25_000_000
    sessions: int = 16  # kept on the device; the one idle for longest goes first
    threads: int = 0  # of the device worker; 0: as many as there are cores
    heartbeat: float = 3.0  # seconds between pings
    deadline: float = 10.0  # seconds without a sign of life

    def __post_init__(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise SettingsFault(f"log_level {self.log_level!r} is none of {', '.join(LOG_LEVELS)}")
        if not 0 <= self.port <= 65535:
            raise SettingsFault(f"port {self.port} is not between 0 and 65535")
        for name in ("max_upload_bytes", "max_pixels", "sessions", "heartbeat", "deadline"):
            if not getattr(self, name) > 0:
                raise SettingsFault(f"{name} {getattr(self, name)!r} is not above 0")
        if self.threads < 0:
            raise SettingsFault(f"threads {self.threads} is below 0, which stands for as many as there are cores")
        if self.deadline <= self.heartbeat:
            raise SettingsFault(f"deadline {self.deadline:g} s is not above heartbeat {self.heartbeat:g} s")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names this server answers to; none means any."""
        return self.allowed_hosts or (LOOPBACK if self.host in LOOPBACK else ())


def resolve(environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from flags (those that are None were not given), else the environment, else the defaults.

    Raises:
        SettingsFault: a value that cannot be read.
    """
    values: dict[str, Any] = {}
    for setting in dataclasses.fields(Settings):
        variable = f"LIVEDRAG_{setting.name.upper()}"
        if flags.get(setting.name) is not None:
            values[setting.name] = flags[setting.name]
        elif environment.get(variable):
            values[setting.name] = _read(variable, environment[variable], str(setting.type))
    return Settings(**values)


def _read(variable: str, text: str, kind: str) -> object:
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "Path":
                return Path(text)
            case "tuple[str, ...]":
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case _:
                return text
    except ValueError:
        raise SettingsFault(f"{variable}={text!r} is not a number") from None
