"""All errors of the service form one tree."""

from __future__ import annotations

import ast
import builtins

import pytest

from livedrag.server.access.password import PasswordRequired
from livedrag.server.access.rate_limits import RateLimited
from livedrag.server.document.members import NotAllowed, PersonRemoved, WrongSecret
from livedrag.server.errors import ServiceError, UnknownRoom
from livedrag.server.images.animation import AnimationError
from livedrag.server.storage import StoreError
from tests.conftest import ROOT


def test_there_is_one_root() -> None:
    builtin = {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    roots = [
        (path.relative_to(ROOT).as_posix(), node.name)
        for path in sorted((ROOT / "server").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and builtin & {ast.unparse(base) for base in node.bases}
    ]
    assert roots == [("server/errors.py", "LivedragError")]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UnknownRoom("x"), 404, "unknown_room"),
        (WrongSecret("x"), 403, "wrong_secret"),
        (PersonRemoved("x"), 403, "removed"),
        (NotAllowed("x"), 409, "not_allowed"),
        (PasswordRequired("x"), 401, "password"),
        (RateLimited("rate_edits", "edits", "1, 1 are allowed", 2.4), 429, "slow_down"),
        (AnimationError("x"), 503, "encoder_failed"),
        (StoreError("x"), 507, "not_saved"),
    ],
)
def test_every_service_error_has_its_status_and_reason(error: ServiceError, status: int, reason: str) -> None:
    assert (error.status, error.reason) == (status, reason)
    assert "x" in str(error) or isinstance(error, RateLimited)


def test_a_rate_limit_says_when_to_come_back() -> None:
    assert RateLimited("rate_edits", "edits", "1, 1 are allowed", 2.4).headers == {"Retry-After": "3"}
