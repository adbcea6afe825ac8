"""Settings from environment variables and flags, as one frozen `Settings`."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from livedrag.limits import GUIDANCE, MAX_GUIDANCE, MAX_PIXELS
from livedrag.server.errors import LivedragError

Quality = Literal["", "latent", "tiny", "full"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 1024 * 1024
MAX_PROMPT_LENGTH = 10_000
MIN_MESSAGE_BYTES = 4096
"""Below this, messages of the page would be refused."""


class SettingsError(LivedragError):
    """A setting has a value that it cannot have."""


@dataclass(frozen=True)
class Rate:
    """How often something may be done: ``burst`` times at once, ``per_second`` times in the long run; 0/0: no limit."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if not (0 <= self.per_second < math.inf and 0 <= self.burst < math.inf):
            raise SettingsError(f"rate {self} must be two numbers of 0 or more")
        if self.per_second and self.burst < 1:
            raise SettingsError(f"rate {self} allows nothing: the burst must be at least 1; use 0/0 for no limit")

    def __str__(self) -> str:
        return f"{self.per_second:g}/{self.burst:g}"

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit."""
        return self.per_second == 0


@dataclass(frozen=True)
class Bounds:
    """The values a number may have; with ``exclusive`` the lower bound itself is not allowed."""

    low: float
    high: float
    exclusive: bool

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.exclusive else self.low <= value
        return above and value <= self.high and value < math.inf

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"from {self.low:.12g} to {self.high:.12g}"
        return f"above {self.low:.12g}" if self.exclusive else f"{self.low:.12g} or more"


def number(default: float, low: float = 0, high: float = math.inf, *, exclusive: bool = False) -> Any:
    """A field with a number within bounds."""
    return field(default=default, metadata={"bounds": Bounds(low, high, exclusive)})


def choice(default: str, *choices: str) -> Any:
    """A field with one of some words."""
    return field(default=default, metadata={"choices": choices})


def default_data_dir() -> Path:
    """The user's data directory."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "livedrag"


def default_static_dir() -> Path:
    """The built page and the samples: inside the package in a wheel, at the top of the repository in a clone."""
    package = Path(__file__).resolve().parent
    packed = package / "static"
    return packed if packed.is_dir() else package.parent / "static"


@dataclass(frozen=True)
class Settings:
    """Every setting. Each field is ``LIVEDRAG_<NAME>`` in the environment; the common ones have flags too."""

    host: str = "127.0.0.1"
    port: int = number(8000, 0, 65535)  # 0: any free port
    model: str = "builtin"
    model_config: str = ""  # folder with the tokenizer of a checkpoint; empty: the hub's cache
    vae: str = ""  # autoencoder that replaces the model's own
    lora: tuple[str, ...] = ()  # on the model, each PATH[:WEIGHT]
    models: str = ""  # folder of ComfyUI or A1111 in which names of models are looked up
    device: str = ""  # comma-separated, or all; empty: the best
    engine: str = choice("local", "local", "ray")  # workers on this machine, or on those of a Ray cluster
    ray_address: str = ""  # of the cluster's head; empty: a cluster on this machine that ends with the server
    ray_cpus: int = number(0)  # of each worker on a CPU; 0: all of its node's
    ray_host: str = ""  # where workers connect to the server; empty: its address in the cluster
    ray_port: int = number(0, 0, 65535)  # 0: any free port
    ray_certificate: str = ""  # file with the certificate by which workers connect with TLS; empty: without
    ray_key: str = ""  # file with its key
    data_dir: Path = field(default_factory=default_data_dir)
    checkpoints_url: str = ""  # a folder or URL that every worker reaches; empty: in the data directory
    static_dir: Path = field(default_factory=default_static_dir)
    log_level: str = choice("info", "debug", "info", "warning", "error")
    log_format: str = choice("text", "text", "json")
    base_path: str = ""  # such as /drag, where a proxy forwards only what lies below it
    password: str = ""  # required to create or enter a room; empty: none
    trusted_proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-For is believed
    allowed_hosts: tuple[str, ...] = ()  # empty: this machine's own names when listening only on it, else any
    allowed_origins: tuple[str, ...] = ()  # besides the host itself, for pages served from elsewhere

    max_upload_bytes: int = number(20 * MIB, 1)
    max_pixels: int = number(MAX_PIXELS, 1, 178_000_000)  # Pillow opens no larger pictures
    max_drags: int = number(64, 1)  # of a room
    max_prompt: int = number(1000, 1, MAX_PROMPT_LENGTH)  # characters
    max_connections: int = number(4000, 1)  # bounded by the process's file descriptors, too
    max_connections_per_address: int = number(1000, 1)
    max_message_bytes: int = number(64 * 1024, MIN_MESSAGE_BYTES)  # of one WebSocket message from a client
    max_unsent_bytes: int = number(8 * MIB, 4 * MIB)  # that may wait for one client; then its connection is closed
    max_room_bytes: int = number(1024 * MIB, 0)  # of a room's log and pictures; 0: no limit
    max_disk: int = number(0)  # bytes of the data directory; 0: no limit
    rooms_per_day: int = number(1000, 0)  # new ones from one address; 0: no limit
    room_days: float = number(0.0)  # rooms unused for so long are deleted; 0: never
    generations: int = number(64, 1)  # generated pictures in memory, finished or not
    generation_seconds: float = number(900.0, exclusive=True)  # one unused for so long is dropped
    generation_steps: int = number(0, 0, 999)  # 0: 50, or as many as the model uses for dragging, if more
    generation_guidance: float = number(GUIDANCE, 0, MAX_GUIDANCE)  # Stable Diffusion works best with 7.5
    session_days: float = number(180.0, exclusive=True)  # cookies unused for so long are forgotten
    admin_token: str = ""  # opens /admin; empty: the password does, and without one there is no /admin
    metrics: bool = True  # whether /metrics answers
    metrics_token: str = ""  # required for /metrics, as a bearer token; empty: the password, if there is one
    sessions: int = number(16, 1)  # on a device; the one idle longest is unloaded first
    memory: int = number(0)  # bytes of the sessions on a device; 0: half of what the device has beside the model
    max_lora_rank: int = number(0)  # of a room; 0: the editor's own limit, here and in the next four
    max_lora_batch: int = number(0)
    max_lora_steps: int = number(0)
    max_lora_copies: int = number(0)
    max_ddim_steps: int = number(0)
    threads: int = number(0)  # of each device worker; 0: the cores, divided among the workers
    checkpoint_every: int = number(10, 1)  # iterations of a run
    metadata: bool = True  # whether results say how they were made
    # Whether rooms share passes of the network; auto: where that is measured to be faster.
    share_passes: Literal["auto", "never"] = choice("auto", "auto", "never")
    cuda_graphs: bool = True  # whether passes run from CUDA graphs on GPUs
    hang: float = number(300.0)  # seconds without a step after which a device worker is restarted; 0: never
    tiny: str = ""  # folder or hub id of a tiny autoencoder, for previews
    # Empty: the best the device has time for.
    preview_quality: Quality = choice("", "", "latent", "tiny", "full")  # noqa: RUF009 - a word is immutable
    heartbeat: float = number(3.0, exclusive=True)  # seconds between pings
    deadline: float = number(10.0, exclusive=True)  # seconds without any message after which a connection is closed

    # Rates, as <per second>/<burst>. Of one person:
    rate_edits: Rate = Rate(60, 600)  # edits, undo and redo; a large burst for edits made offline
    rate_runs: Rate = Rate(5, 40)  # run, stop, reset, seek
    rate_presence: Rate = Rate(30, 60)  # cursors and names
    rate_signals: Rate = Rate(200, 600)  # pings, acknowledged frames and all other messages
    # Of one room. A burst must stay well below max_unsent_bytes, or it disconnects everyone else: a point is 20 bytes.
    rate_strokes: Rate = Rate(25_000, 300_000)  # points of strokes that are painted or restored
    # Of one address, which many people may share:
    rate_connections: Rate = Rate(10, 400)
    rate_entries: Rate = Rate(2, 200)  # attempts to enter, once the password is right
    rate_rooms: Rate = Rate(1, 100)
    rate_generations: Rate = Rate(1, 30)
    rate_requests: Rate = Rate(100, 1000)
    rate_messages: Rate = Rate(3000, 15_000)

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            _check(setting.name, getattr(self, setting.name), setting.metadata)
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", self.base_path):
            raise SettingsError(
                f"base_path {self.base_path!r} must be a path such as /drag, without a slash at the end"
            )
        if self.generation_steps == 1:
            raise SettingsError("generation_steps is 1: must be from 2 to 999, or 0 for the model's own")
        if bool(self.ray_certificate) != bool(self.ray_key):
            raise SettingsError("ray_certificate and ray_key must be given together: one is empty")
        if self.deadline <= self.heartbeat:
            raise SettingsError(f"deadline is {self.deadline:g} s: must be above heartbeat, {self.heartbeat:g} s")

    @property
    def caps(self) -> dict[str, int]:
        """Largest values of the editor's settings, by their names."""
        capped = ("lora_rank", "lora_batch", "lora_steps", "lora_copies", "ddim_steps")
        return {name: cap for name in capped if (cap := getattr(self, f"max_{name}"))}

    @property
    def checkpoints(self) -> str:
        """The folder or URL of the checkpoints."""
        return self.checkpoints_url or str(self.data_dir / "checkpoints")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names this server answers to; empty means any."""
        return self.allowed_hosts or (LOOPBACK if self.host in LOOPBACK else ())


def _check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    bounds, choices = metadata.get("bounds"), metadata.get("choices")
    if bounds is not None and value not in bounds:
        raise SettingsError(f"{name} is {value:.12g}: must be {bounds}")
    if choices is not None and value not in choices:
        named = ", ".join(word for word in choices if word)
        raise SettingsError(f"{name} {value!r} must be one of {named}{'' if all(choices) else ', or empty'}")


def resolve(environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from flags (None means not given), else the environment, else the defaults.

    Raises:
        SettingsError: a value that cannot be read.
    """
    values: dict[str, Any] = {}
    for setting in dataclasses.fields(Settings):
        variable = f"LIVEDRAG_{setting.name.upper()}"
        if flags.get(setting.name) is not None:
            flag = flags[setting.name]
            values[setting.name] = tuple(flag) if isinstance(flag, list) else flag
        elif environment.get(variable):
            values[setting.name] = _read(variable, environment[variable], str(setting.type))
    return Settings(**values)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A warning for each variable that is named like a setting and is none. Values may be secret and are left out."""
    names = [setting.name.upper() for setting in dataclasses.fields(Settings)]
    warnings = []
    for variable in sorted(environment):
        prefix, _, name = variable.partition("_")
        if prefix == "LIVEDRAG" and name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f": did you mean LIVEDRAG_{close[0]}?" if close else ""
            warnings.append(f"{variable} is not a setting and has no effect{hint}")
    return warnings


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
        raise SettingsError(f"{variable}={text!r} must be true or false") from None
    except ValueError:
        expected = "a rate such as 60/600, per second and at once" if kind == "Rate" else "a number"
        raise SettingsError(f"{variable}={text!r} must be {expected}") from None
