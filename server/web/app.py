"""The web application: its routes, its middleware and how errors are answered."""

from __future__ import annotations

import asyncio
import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from livedrag.server.access.rate_limits import RateLimited
from livedrag.server.errors import Busy, ServiceError
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.web import websocket
from livedrag.server.web.context import Context, context_of
from livedrag.server.web.endpoints import admin, edits, entry, generations, members, pages, pictures, rooms, status
from livedrag.server.web.security import SecurityMiddleware, error_response

log = logging.getLogger(__name__)

STOPPING_RETRY_SECONDS = 5
"""When a client whose request is cut off by the server's end may try again."""

ROUTES: list[BaseRoute] = [
    Route("/api/password", entry.give_password, methods=["POST"]),
    Route("/api/rooms/{room}/enter", entry.enter_room, methods=["POST"]),
    Route("/api/generations", generations.generate, methods=["POST"]),
    Route("/api/generations/{generation}", generations.follow, methods=["GET"]),
    Route("/api/generations/{generation}", generations.cancel, methods=["DELETE"]),
    Route("/api/generations/{generation}/picture", generations.picture),
    Route("/api/edits", edits.create, methods=["POST"]),
    Route("/api/rooms", rooms.create, methods=["POST"]),
    Route("/api/rooms/{room}", rooms.delete, methods=["DELETE"]),
    Route("/api/rooms/{room}", rooms.rename, methods=["PATCH"]),
    Route("/api/rooms/{room}/copy", rooms.copy, methods=["POST"]),
    Route("/api/rooms/{room}/export", rooms.export),
    Route("/api/rooms/{room}/links", members.list_links, methods=["GET"]),
    Route("/api/rooms/{room}/links", members.make_link, methods=["POST"]),
    Route("/api/rooms/{room}/links/{link}", members.revoke_link, methods=["DELETE"]),
    Route("/api/rooms/{room}/people/{person}", members.give_role, methods=["PUT"]),
    Route("/api/rooms/{room}/people/{person}", members.remove, methods=["DELETE"]),
    Route("/api/rooms/{room}/picture", pictures.picture, methods=["GET"]),
    Route("/api/rooms/{room}/picture", pictures.replace_picture, methods=["PUT"]),
    Route("/api/rooms/{room}/result", pictures.result),
    Route("/api/rooms/{room}/quick-preview", pictures.keep_quick_preview, methods=["POST"]),
    Route("/api/rooms/{room}/mask", pictures.mask, methods=["GET"]),
    Route("/api/rooms/{room}/mask", pictures.load_mask, methods=["PUT"]),
    Route("/api/rooms/{room}/masks/{sha256}", pictures.loaded_mask),
    Route("/api/rooms/{room}/moments/{moment:int}", pictures.moment),
    Route("/api/models", rooms.models),
    Route("/api/rooms/{room}/numbers.csv", pictures.numbers_csv),
    Route("/api/rooms/{room}/numbers.json", pictures.numbers_json),
    Route("/api/rooms/{room}/trajectory.webp", pictures.trajectory_webp),
    Route("/api/rooms/{room}/trajectory.mp4", pictures.trajectory_mp4),
    Route("/api/samples", pages.samples),
    Route("/api/admin", admin.status, methods=["GET"]),
    Route("/api/admin/rooms/{room}/eject", admin.eject, methods=["POST"]),
    Route("/api/admin/rooms/{room}", admin.delete, methods=["DELETE"]),
    Route("/api/admin/drain", admin.drain, methods=["POST"]),
    Route("/admin", admin.page),
    Route("/admin/{name}", admin.file),
    Route("/healthz", status.health),
    Route("/metrics", status.metrics),
    WebSocketRoute("/ws/{room}", websocket.connect),
    Route("/", pages.index),
    Route("/r/{room}", pages.index),
    Route("/{name:str}", pages.file),
]


def create_app(registry: RoomRegistry) -> Starlette:
    """The application over an entered `RoomRegistry`."""
    security = Middleware(
        SecurityMiddleware, settings=registry.settings, limits=registry.limits, metrics=registry.metrics
    )
    app = Starlette(
        routes=[*ROUTES, *pages.static_folders(registry.settings.static_dir)],
        middleware=[security, Middleware(_AnswerWhenStopped, registry=registry)],
        exception_handlers={
            ServiceError: _on_service_error,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
            Exception: _on_unexpected,
        },
    )
    app.state.context = Context.of(registry)
    return app


class _AnswerWhenStopped:
    """Answers requests that are cancelled because the server stops, which are not errors of the application."""

    def __init__(self, app: ASGIApp, registry: RoomRegistry) -> None:
        self._app, self._registry = app, registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if scope["type"] != "http" or not self._registry.is_stopping:
                raise
            if not has_started:
                await error_response(Busy("the server is stopping", STOPPING_RETRY_SECONDS))(scope, receive, send)


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, RateLimited):
        context_of(request).registry.metrics.rejects.labels(error.setting).inc()
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {400: "bad_request", 404: "unknown_page", 405: "wrong_method"}
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(ServiceError(error.status_code, reasons.get(error.status_code, "http"), message))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client has gone


async def _on_unexpected(request: Request, error: Exception) -> Response:
    return error_response(ServiceError(500, "unexpected", "an unexpected error occurred; see the server's log"))
