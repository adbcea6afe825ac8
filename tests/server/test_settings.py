"""Settings: flags over environment over defaults, and what is refused quotes itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from livedrag.server.settings import Rate, SettingsError, resolve


def test_flags_win_over_the_environment_which_wins_over_the_defaults() -> None:
    environment = {"LIVEDRAG_PORT": "9000", "LIVEDRAG_DATA_DIR": "rooms", "LIVEDRAG_HEARTBEAT": "1.5", "OTHER": "x"}
    settings = resolve(environment, {"port": 9001, "data_dir": None, "command": "serve"})
    assert (settings.port, settings.data_dir, settings.heartbeat, settings.model) == (
        9001,
        Path("rooms"),
        1.5,
        "builtin",
    )


def test_lists_are_separated_by_commas() -> None:
    assert resolve({"LIVEDRAG_ALLOWED_HOSTS": "a.example, b.example"}, {}).hosts == ("a.example", "b.example")


def test_a_server_for_this_machine_alone_answers_to_its_own_names() -> None:
    assert "localhost" in resolve({}, {"host": "127.0.0.1"}).hosts
    assert resolve({}, {"host": "0.0.0.0"}).hosts == ()


def test_rates_and_switches_are_read() -> None:
    settings = resolve({"LIVEDRAG_RATE_EDITS": "2.5/10", "LIVEDRAG_RATE_RUNS": "0/0", "LIVEDRAG_METRICS": "no"}, {})
    assert settings.rate_edits == Rate(2.5, 10)
    assert settings.rate_runs.unlimited
    assert settings.metrics is False


@pytest.mark.parametrize(
    ("environment", "quoted"),
    [
        ({"LIVEDRAG_PORT": "http"}, "LIVEDRAG_PORT='http'"),
        ({"LIVEDRAG_PORT": "70000"}, "70000"),
        ({"LIVEDRAG_LOG_LEVEL": "loud"}, "'loud' is none of debug, info"),
        ({"LIVEDRAG_MAX_PIXELS": "0"}, "max_pixels 0"),
        ({"LIVEDRAG_MAX_DRAGS": "0"}, "max_drags 0"),
        ({"LIVEDRAG_MAX_PROMPT": "10001"}, "max_prompt 10001 is out of range: 1 to 10000 works"),
        ({"LIVEDRAG_MAX_MESSAGE_BYTES": "100"}, "max_message_bytes 100: at least 4096 work"),
        ({"LIVEDRAG_GENERATIONS": "0"}, "generations 0"),
        ({"LIVEDRAG_GENERATION_SECONDS": "0"}, "generation_seconds 0"),
        ({"LIVEDRAG_GENERATION_STEPS": "1"}, "generation_steps 1 is out of range: 2 to 999"),
        ({"LIVEDRAG_GENERATION_GUIDANCE": "nan"}, "generation_guidance nan"),
        ({"LIVEDRAG_DEADLINE": "1"}, "deadline 1 s"),
        ({"LIVEDRAG_THREADS": "-1"}, "threads -1"),
        ({"LIVEDRAG_LOG_FORMAT": "xml"}, "'xml' is none of text, json"),
        ({"LIVEDRAG_BASE_PATH": "/drag/"}, "'/drag/'"),
        ({"LIVEDRAG_PREVIEW_QUALITY": "best"}, "'best' is none of latent, tiny, full"),
        ({"LIVEDRAG_MEMORY": "-1"}, "memory -1"),
        ({"LIVEDRAG_HANG": "nan"}, "hang nan s"),
        ({"LIVEDRAG_CHECKPOINT_EVERY": "0"}, "checkpoint_every 0"),
        ({"LIVEDRAG_ROOM_DAYS": "-1"}, "room_days -1"),
        ({"LIVEDRAG_SESSION_DAYS": "0"}, "session_days 0"),
        ({"LIVEDRAG_SESSION_DAYS": "inf"}, "session_days inf"),
        ({"LIVEDRAG_SESSION_DAYS": "nan"}, "session_days nan"),
        ({"LIVEDRAG_DEADLINE": "inf"}, "deadline inf"),
        ({"LIVEDRAG_METRICS": "maybe"}, "LIVEDRAG_METRICS='maybe' is neither true nor false"),
        ({"LIVEDRAG_RATE_EDITS": "60"}, "LIVEDRAG_RATE_EDITS='60' is not a rate such as 60/600"),
        ({"LIVEDRAG_RATE_EDITS": "5/0"}, "5/0 lets nothing pass"),
        ({"LIVEDRAG_RATE_EDITS": "-5/1"}, "-5/1"),
    ],
)
def test_what_cannot_be_is_refused(environment: dict[str, str], quoted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(environment, {})
    assert quoted in str(caught.value)
