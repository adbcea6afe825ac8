"""Host, Origin, proxies, rates, and the headers of every response."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from livedrag.server.client import NewRoom, RequestFailed, create_room
from livedrag.server.settings import Rate
from tests.quiet import png, quiet_server
from tests.server.web.browser import Visitor, answer, refusal


def test_pages_of_other_origins_are_refused(address: str, room: NewRoom) -> None:
    evil = Visitor(address, Origin="http://evil.example")
    for method, path in (("POST", "/api/rooms"), ("DELETE", f"/api/rooms/{room.id}"), ("POST", "/api/password")):
        assert refusal(evil.ask(method, path, {})) == (403, "wrong_origin")


def test_a_trusted_proxy_names_its_clients(tmp_path: Path) -> None:
    def made(data: Path, **settings: Any) -> tuple[str, list[int]]:
        with quiet_server(data, rate_entries=Rate(0.001, 2), **settings) as (address, _):
            room, statuses = create_room(address, png()), []
            for client in ("10.1.1.1", "10.1.1.2", "10.1.1.3"):
                visitor = Visitor(address, **{"X-Forwarded-For": client, "X-Forwarded-Proto": "https"})
                statuses.append(visitor.enter(room, room.secret)[0])
            return visitor.set_cookie, statuses

    cookie, statuses = made(tmp_path / "trusting", trusted_proxies=("127.0.0.1",))
    assert statuses == [200, 200, 200]
    assert "Secure" in cookie
    cookie, statuses = made(tmp_path / "wary")
    assert statuses == [200, 200, 429], "a stranger does not get round the limit by naming others"


def test_too_many_requests_are_refused_with_a_time_to_retry(tmp_path: Path) -> None:
    with quiet_server(tmp_path, rate_rooms=Rate(0.01, 1), rate_requests=Rate(0.01, 5)) as (address, _):
        create_room(address, png())
        with pytest.raises(RequestFailed, match=r"too many new rooms from one address: 0\.01 per second") as caught:
            create_room(address, png())
        assert (caught.value.status, caught.value.reason) == (429, "slow_down")
        for _ in range(3):
            assert answer(address, "/healthz")[0] == 200
        status, headers, body = answer(address, "/healthz")
        assert (status, json.loads(body)["error"]["reason"]) == (429, "slow_down")
        assert 1 <= int(headers["retry-after"]) <= 100
        assert "content-security-policy" in headers


def test_every_response_has_security_headers(address: str) -> None:
    for path in ("/", "/healthz", "/nothing"):
        _, headers, _ = answer(address, path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert f"connect-src 'self' {address.replace('http', 'ws')} " in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "a b", "127.0.0.1; script-src *"])
def test_other_hosts_are_refused(address: str, host: str) -> None:
    status, headers, body = answer(address, "/healthz", Host=host)
    assert status == 400
    assert host in json.loads(body)["error"]["message"]
    assert "connect-src 'self';" in headers["content-security-policy"], "and not what was sent as Host"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "[::1]:8000", "127.0.0.1"])
def test_own_names_are_served(address: str, host: str) -> None:
    assert answer(address, "/healthz", Host=host)[0] == 200
