"""Settings: flags over environment over defaults; an error quotes the value and the allowed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from livedrag.limits import GUIDANCE
from livedrag.server.settings import Rate, Settings, SettingsError, resolve, unknown_variables


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
        ({"LIVEDRAG_PORT": "70000"}, "port is 70000: must be from 0 to 65535"),
        ({"LIVEDRAG_LOG_LEVEL": "loud"}, "log_level 'loud' must be one of debug, info, warning, error"),
        ({"LIVEDRAG_MAX_PIXELS": "0"}, "max_pixels is 0: must be from 1 to 178000000"),
        ({"LIVEDRAG_MAX_PIXELS": "200000000"}, "max_pixels is 200000000: must be from 1 to 178000000"),
        ({"LIVEDRAG_MAX_UNSENT_BYTES": "1"}, "max_unsent_bytes is 1: must be 4194304 or more"),
        ({"LIVEDRAG_MAX_DRAGS": "0"}, "max_drags is 0: must be 1 or more"),
        ({"LIVEDRAG_MAX_PROMPT": "10001"}, "max_prompt is 10001: must be from 1 to 10000"),
        ({"LIVEDRAG_MAX_MESSAGE_BYTES": "100"}, "max_message_bytes is 100: must be 4096 or more"),
        ({"LIVEDRAG_GENERATIONS": "0"}, "generations is 0: must be 1 or more"),
        ({"LIVEDRAG_GENERATION_SECONDS": "0"}, "generation_seconds is 0: must be above 0"),
        ({"LIVEDRAG_GENERATION_STEPS": "1"}, "generation_steps is 1: must be from 2 to 999"),
        ({"LIVEDRAG_GENERATION_GUIDANCE": "nan"}, "generation_guidance is nan: must be from 0 to 50"),
        ({"LIVEDRAG_DEADLINE": "1"}, "deadline is 1 s: must be above heartbeat, 3 s"),
        ({"LIVEDRAG_THREADS": "-1"}, "threads is -1: must be 0 or more"),
        ({"LIVEDRAG_LOG_FORMAT": "xml"}, "log_format 'xml' must be one of text, json"),
        ({"LIVEDRAG_BASE_PATH": "/drag/"}, "'/drag/'"),
        ({"LIVEDRAG_PREVIEW_QUALITY": "best"}, "preview_quality 'best' must be one of latent, tiny, full, or empty"),
        ({"LIVEDRAG_MEMORY": "-1"}, "memory is -1: must be 0 or more"),
        ({"LIVEDRAG_HANG": "nan"}, "hang is nan: must be 0 or more"),
        ({"LIVEDRAG_CHECKPOINT_EVERY": "0"}, "checkpoint_every is 0: must be 1 or more"),
        ({"LIVEDRAG_ENGINE": "slurm"}, "engine 'slurm' must be one of local, ray"),
        ({"LIVEDRAG_RAY_CPUS": "-1"}, "ray_cpus is -1: must be 0 or more"),
        ({"LIVEDRAG_RAY_KEY": "key.pem"}, "ray_certificate and ray_key must be given together"),
        ({"LIVEDRAG_ROOM_DAYS": "-1"}, "room_days is -1: must be 0 or more"),
        ({"LIVEDRAG_SESSION_DAYS": "0"}, "session_days is 0: must be above 0"),
        ({"LIVEDRAG_SESSION_DAYS": "inf"}, "session_days is inf: must be above 0"),
        ({"LIVEDRAG_SESSION_DAYS": "nan"}, "session_days is nan"),
        ({"LIVEDRAG_DEADLINE": "inf"}, "deadline is inf"),
        ({"LIVEDRAG_METRICS": "maybe"}, "LIVEDRAG_METRICS='maybe' must be true or false"),
        ({"LIVEDRAG_RATE_EDITS": "60"}, "LIVEDRAG_RATE_EDITS='60' must be a rate such as 60/600"),
        ({"LIVEDRAG_RATE_EDITS": "5/0"}, "rate 5/0 allows nothing"),
        ({"LIVEDRAG_RATE_EDITS": "-5/1"}, "rate -5/1 must be two numbers of 0 or more"),
    ],
)
def test_a_bad_value_is_refused(environment: dict[str, str], quoted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(environment, {})
    assert quoted in str(caught.value)


def test_a_variable_that_is_not_a_setting_is_named_without_its_value() -> None:
    environment = {"LIVEDRAG_PASWORD": "sesame", "LIVEDRAG_PORT": "1", "LIVEDRAG_QQQ": "", "LIVEDRAGON_PORT": "1"}
    assert unknown_variables(environment) == [
        "LIVEDRAG_PASWORD is not a setting and has no effect: did you mean LIVEDRAG_PASSWORD?",
        "LIVEDRAG_QQQ is not a setting and has no effect",
    ]


def test_the_guidance_is_the_editors() -> None:
    assert Settings().generation_guidance == GUIDANCE
