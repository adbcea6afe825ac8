"""Environment and flags become one frozen `Settings`."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from livedrag.server.errors import LivedragError

Quality = Literal["", "latent", "tiny", "full"]
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
QUALITIES: tuple[Quality, ...] = ("", "latent", "tiny", "full")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 1024 * 1024
MAX_GUIDANCE = 50.0
MAX_PROMPT_LENGTH = 10_000
MIN_MESSAGE_BYTES = 4096


class SettingsError(LivedragError):
    """A setting with a value that it cannot have."""


@dataclass(frozen=True)
class Rate:
    """How often something may be done: ``burst`` times at once, ``per_second`` times in the long run; 0/0: no limit."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if not (0 <= self.per_second < math.inf and 0 <= self.burst < math.inf):
            raise SettingsError(f"a rate of {self} is not two numbers from 0 on")
        if self.per_second and self.burst < 1:
            raise SettingsError(f"a rate of {self} lets nothing pass: a burst of at least 1 works, or 0/0 for no limit")

    def __str__(self) -> str:
        return f"{self.per_second:g}/{self.burst:g}"

    @property
    def unlimited(self) -> bool:
        """Whether nothing is too often."""
        return self.per_second == 0


def default_data_dir() -> Path:
    """Where rooms are kept if nobody says where."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "livedrag"


def default_static_dir() -> Path:
    """The pages and samples: beside this file in a wheel, at the top of the repository in a clone."""
    package = Path(__file__).resolve().parent
    packed = package / "static"
    return packed if packed.is_dir() else package.parent / "static"


@dataclass(frozen=True)
class Settings:
    """All that can be set. Each field is ``LIVEDRAG_<NAME>`` in the environment; there are flags for the usual ones."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    model: str = "builtin"
    device: str = ""  # several with commas, or all; empty: the best there is
    data_dir: Path = field(default_factory=default_data_dir)
    static_dir: Path = field(default_factory=default_static_dir)
    log_level: str = "info"
    log_format: str = "text"  # or json: one object a line
    base_path: str = ""  # such as /drag, where a proxy hands on what lies below it
    password: str = ""  # asked for before a room is made or entered; empty: none
    trusted_proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-For is believed
    allowed_hosts: tuple[str, ...] = ()  # empty: this machine's own names when listening on it alone, else any
    allowed_origins: tuple[str, ...] = ()  # besides the host itself, for pages served from elsewhere

    max_upload_bytes: int = 20 * MIB
    max_pixels: int = 25_000_000
    max_drags: int = 64  # of a room
    max_prompt: int = 1000  # characters
    max_message_bytes: int = 64 * 1024  # of what a client sends over its WebSocket
    room_days: float = 0.0  # rooms that nobody has used for so long are deleted; 0: none are
    generations: int = 16  # pictures made from words that are held in memory, or being made
    generation_seconds: float = 900.0  # one that nobody has used for so long is forgotten
    generation_steps: int = 0  # of making one; 0: as many as the model's sessions take
    generation_guidance: float = 3.0  # how closely it follows the words; Stable Diffusion likes 7.5
    session_days: float = 180.0  # cookies that nobody has used for so long are forgotten
    metrics: bool = True  # whether /metrics answers
    sessions: int = 16  # kept on the device; the one idle for longest goes first
    memory: int = 0  # bytes that the sessions on a device may hold; 0: no limit
    threads: int = 0  # of each device worker; 0: as many as there are cores, shared by the workers
    checkpoint_every: int = 10  # iterations of a run
    hang: float = 300.0  # seconds without a step after which a device worker is started again; 0: never
    tiny: str = ""  # folder or hub id of a tiny autoencoder, for previews
    preview_quality: Quality = ""  # latent, tiny or full; empty: what the device has the time for
    heartbeat: float = 3.0  # seconds between pings
    deadline: float = 10.0  # seconds without a sign of life

    # How often, as <a second>/<at once>; 0/0 sets no limit. Of one person:
    rate_edits: Rate = Rate(60, 600)  # edits, undo and redo; many at once when somebody comes back online
    rate_runs: Rate = Rate(5, 40)  # run, stop, reset, seek
    rate_presence: Rate = Rate(30, 60)  # cursors and names
    rate_signals: Rate = Rate(200, 600)  # pings, acknowledged frames and whatever else there is
    # Of one address, behind which many people may be:
    rate_connections: Rate = Rate(10, 400)
    rate_entries: Rate = Rate(2, 200)  # secrets and passwords that are tried
    rate_rooms: Rate = Rate(1, 100)
    rate_generations: Rate = Rate(1, 30)
    rate_requests: Rate = Rate(100, 1000)
    rate_messages: Rate = Rate(3000, 15_000)

    def __post_init__(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise SettingsError(f"log_level {self.log_level!r} is none of {', '.join(LOG_LEVELS)}")
        if self.log_format not in LOG_FORMATS:
            raise SettingsError(f"log_format {self.log_format!r} is none of {', '.join(LOG_FORMATS)}")
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", self.base_path):
            raise SettingsError(f"base_path {self.base_path!r} is no path such as /drag, without a slash at its end")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port {self.port} is not between 0 and 65535")
        for name in (
            "max_upload_bytes",
            "max_pixels",
            "max_drags",
            "sessions",
            "generations",
            "generation_seconds",
            "session_days",
            "checkpoint_every",
            "heartbeat",
            "deadline",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} {getattr(self, name)!r} is not a number above 0")
        if not 0 <= self.room_days < math.inf:
            raise SettingsError(f"room_days {self.room_days:g} is below 0, which stands for keeping rooms for ever")
        if not 1 <= self.max_prompt <= MAX_PROMPT_LENGTH:
            raise SettingsError(f"max_prompt {self.max_prompt} is out of range: 1 to {MAX_PROMPT_LENGTH} works")
        if self.max_message_bytes < MIN_MESSAGE_BYTES:
            works = f"at least {MIN_MESSAGE_BYTES} work, or no message of the page would come through"
            raise SettingsError(f"max_message_bytes {self.max_message_bytes}: {works}")
        if self.generation_steps and not 2 <= self.generation_steps <= 999:
            works = "2 to 999 works, or 0 for the model's own"
            raise SettingsError(f"generation_steps {self.generation_steps} is out of range: {works}")
        if not 0 <= self.generation_guidance <= MAX_GUIDANCE:
            raise SettingsError(
                f"generation_guidance {self.generation_guidance:g}: 0 to {MAX_GUIDANCE:g} works, 3 to 8 is usual"
            )
        if self.preview_quality not in QUALITIES:
            works = ", ".join(QUALITIES[1:])
            raise SettingsError(f"preview_quality {self.preview_quality!r} is none of {works}, and not empty")
        if self.threads < 0:
            raise SettingsError(f"threads {self.threads} is below 0, which stands for as many as there are cores")
        if self.memory < 0:
            raise SettingsError(f"memory {self.memory} is below 0, which stands for no limit")
        if not 0 <= self.hang < math.inf:
            raise SettingsError(f"hang {self.hang:g} s is below 0, which stands for never")
        if self.deadline <= self.heartbeat:
            raise SettingsError(f"deadline {self.deadline:g} s is not above heartbeat {self.heartbeat:g} s")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names this server answers to; none means any."""
        return self.allowed_hosts or (LOOPBACK if self.host in LOOPBACK else ())


def resolve(environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from flags (those that are None were not given), else the environment, else the defaults.

    Raises:
        SettingsError: a value that cannot be read.
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
            case "bool":
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
            case "Rate":
                per_second, burst = text.split("/")
                return Rate(float(per_second), float(burst))
            case _:
                return text
    except KeyError:
        raise SettingsError(f"{variable}={text!r} is neither true nor false") from None
    except ValueError:
        works = "a rate such as 60/600, a second and at once" if kind == "Rate" else "a number"
        raise SettingsError(f"{variable}={text!r} is not {works}") from None
