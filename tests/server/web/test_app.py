"""Routes and errors of the application."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.routing import Route

from livedrag.server.client import RequestFailed, request
from livedrag.server.document.protocol_page import HTTP
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.settings import Settings
from livedrag.server.storage import Store
from livedrag.server.web.app import create_app
from tests.quiet import QuietEngine


def test_every_route_for_programs_is_on_the_page_of_the_protocol(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        app = create_app(RoomRegistry(Settings(data_dir=tmp_path), store, QuietEngine()))
    routes = {
        (method, route.path.replace(":int", ""))
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith(("/api/", "/healthz", "/metrics"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(method, path) for method, path, _, _ in HTTP}


def test_unknown_pages_and_methods_are_json_errors(address: str) -> None:
    for method, path, status in (
        ("GET", "/nothing/here", 404),
        ("DELETE", "/api/rooms", 405),
        ("GET", "/build.py", 404),
    ):
        with pytest.raises(RequestFailed) as caught:
            request(address, method, path)
        assert caught.value.status == status
        assert path in str(caught.value)
