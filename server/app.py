"""The web application: routes, uploads, pages, and what every answer carries for the browser's safety."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import FormData, Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from server import connection
from server.engine import Engine
from server.hub import Hall, Hub, UnknownRoom, WrongSecret
from server.mask import to_png
from server.protocol import (
    MAX_DRAGS,
    MAX_MESSAGE_BYTES,
    MAX_PROMPT,
    XY,
    Document,
    Drag,
    Edited,
    Id,
    MaskLayer,
    Picture,
    Raster,
)
from server.room import Refused, check_drag
from server.settings import MIB, Settings
from server.store import Store, StoreError
from server.uploads import UploadFault, read_mask, read_picture, too_large

log = logging.getLogger(__name__)

BESIDE_THE_PICTURE = 5 * MIB
"""Bytes that a form may have beside its picture: mask, prompt, drags."""
DRAINED = 64 * MIB
DRAIN_SECONDS = 10.0
"""How much of a refused upload is read and dropped, so that the browser comes to read the answer."""
PUBLIC_FILES = ("icon.svg", "favicon.svg", "favicon.ico", "manifest.webmanifest", "robots.txt")
HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class Fault(Exception):
    """A request that cannot be answered; becomes a JSON error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class NewDrag(msgspec.Struct, forbid_unknown_fields=True):
    """A drag as a form names it."""

    handle: XY
    target: XY


def version() -> str:
    """Of livedrag, as installed."""
    try:
        return installed_version("livedrag")
    except PackageNotFoundError:
        return "0+source"


def create_app(hub: Hub) -> Starlette:
    """The application over an entered `Hub`."""
    pages = Pages(hub)
    routes: list[BaseRoute] = [
        Route("/api/rooms", pages.create_room, methods=["POST"]),
        Route("/api/rooms/{room}/picture", pages.picture),
        Route("/api/rooms/{room}/result", pages.result),
        Route("/api/rooms/{room}/mask", pages.mask, methods=["GET"]),
        Route("/api/rooms/{room}/mask", pages.load_mask, methods=["PUT"]),
        Route("/api/rooms/{room}/masks/{sha256}", pages.loaded_mask),
        Route("/api/samples", pages.samples),
        Route("/healthz", pages.health),
        WebSocketRoute("/ws/{room}", pages.websocket),
        Route("/", pages.index),
        Route("/r/{room}", pages.index),
        Route("/{name:str}", pages.file),
        *_folders(hub.settings.static_dir),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=hub.settings)],
        exception_handlers={
            Fault: _on_fault,
            UploadFault: _on_fault,
            HTTPException: _on_http,
            UnknownRoom: _on_unknown_room,
            WrongSecret: _on_wrong_secret,
            StoreError: _on_store_error,
            Exception: _on_unexpected,
        },
    )


class Pages:
    """The endpoints."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._settings = hub.settings

    async def create_room(self, request: Request) -> Response:
        """A form with a picture makes a room, once all of it has been checked."""
        body = Body(request, self._settings.max_upload_bytes, "the upload", beside=BESIDE_THE_PICTURE)
        try:
            async with body.request.form(max_files=2, max_fields=8, max_part_size=256 * 1024) as form:
                document = await self._document(form)
        except (UploadFault, HTTPException):
            await body.drain()
            raise
        except ClientDisconnect:
            return Response(status_code=400)
        room, secret = await self._hub.create(document)
        log.info("room %s: %d x %d pixels", room, document.picture.width, document.picture.height)
        return JSONResponse({"room": room, "secret": secret, "url": f"/r/{room}#{secret}"}, 201)

    async def _document(self, form: FormData) -> Document:
        prompt = str(form.get("prompt") or "")
        if len(prompt) > MAX_PROMPT:
            raise Fault(422, "prompt_too_long", f"the prompt has {len(prompt)} characters: at most {MAX_PROMPT} work")
        data, name = await self._file(form, "picture")
        image = await asyncio.to_thread(read_picture, data, name, self._settings.max_pixels)
        size = image.size
        picture = Picture(sha256="", width=size[0], height=size[1])
        drags = parse_drags(str(form.get("drags") or "[]"), picture)
        mask: tuple[MaskLayer, ...] = ()
        if "mask" in form:
            data, name = await self._file(form, "mask")
            png = await asyncio.to_thread(read_mask, data, name, size, self._settings.max_pixels)
            mask = (Raster(id="uploaded", sha256=await asyncio.to_thread(self._hub.store.put_picture, png)),)
        sha256 = await asyncio.to_thread(lambda: self._hub.store.put_picture(to_png(image)))
        return Document(
            picture=Picture(sha256=sha256, width=size[0], height=size[1]), drags=drags, mask=mask, prompt=prompt
        )

    async def _file(self, form: FormData, field: str) -> tuple[bytes, str]:
        upload = form.get(field)
        if not isinstance(upload, UploadFile):
            got = "there is no such field" if upload is None else "it is a text"
            raise Fault(422, "missing_file", f"the form's field {field!r} is to be a file, but {got}")
        limit = self._settings.max_upload_bytes
        if upload.size is not None and upload.size > limit:
            raise too_large(upload.size, limit, repr(upload.filename))
        return await upload.read(), upload.filename or field

    async def picture(self, request: Request) -> Response:
        """The uploaded picture."""
        hall = await self._enter(request)
        return self._png(hall.room.document.picture.sha256)

    async def result(self, request: Request) -> Response:
        """The picture that the last run left."""
        hall = await self._enter(request)
        result = hall.document.result
        if result is None:
            raise Fault(404, "no_result", f"room {hall.room.id!r} has no result yet: press Drag and wait for the end")
        return self._png(result.sha256)

    async def mask(self, request: Request) -> Response:
        """The mask as it is now, white may change; all white where nothing was painted."""
        hall = await self._enter(request)
        png = await self._hub.mask_png(hall)
        if png is None:
            png = await asyncio.to_thread(_white, hall.room.document.picture)
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    async def loaded_mask(self, request: Request) -> Response:
        """A mask file that was loaded into the room."""
        hall = await self._enter(request)
        sha256 = request.path_params["sha256"]
        loaded = {layer.sha256 for layer in hall.room.document.mask if isinstance(layer, Raster)}
        if sha256 not in loaded:
            raise Fault(404, "unknown_mask", f"room {hall.room.id!r} has no loaded mask {sha256!r} now")
        return self._png(sha256)

    async def load_mask(self, request: Request) -> Response:
        """A PNG replaces the mask; everybody is told as of an edit. ``Op-Id`` makes sending it again harmless."""
        hall = await self._enter(request, edit=True)
        op_id = request.headers.get("op-id") or secrets.token_urlsafe(12)
        try:
            op_id = msgspec.convert(op_id, Id)
        except msgspec.ValidationError as error:
            raise Fault(422, "bad_op_id", f"Op-Id {op_id!r}: {error}") from None
        body = Body(request, self._settings.max_upload_bytes, "the mask")
        try:
            data = await body.request.body()
        except UploadFault:
            await body.drain()
            raise
        picture = hall.room.document.picture
        size = (picture.width, picture.height)
        png = await asyncio.to_thread(read_mask, data, "mask", size, self._settings.max_pixels)
        sha256 = await asyncio.to_thread(self._hub.store.put_picture, png)
        record = await self._hub.load_mask(hall, op_id, Raster(id=op_id, sha256=sha256))
        assert isinstance(record, Edited)
        return JSONResponse({"seq": record.seq, "sha256": sha256})

    async def samples(self, request: Request) -> Response:
        """Pictures to try, with drags that work."""
        return JSONResponse(await asyncio.to_thread(list_samples, self._settings.static_dir))

    async def health(self, request: Request) -> Response:
        """Whether the server serves, and how its worker is."""
        model = self._hub.model.name if self._hub.model else None
        return JSONResponse(
            {"status": "ok", "version": version(), "model": model, "worker": self._hub.engine.state},
            headers={"Cache-Control": "no-store"},
        )

    async def index(self, request: Request) -> Response:
        """The page; it reads the room's id from its own address."""
        page = self._settings.static_dir / "app" / "index.html"
        if not page.is_file():
            raise Fault(503, "no_page", "the page has not been built: run `make install`, or use the Python client")
        return FileResponse(page, headers={"Cache-Control": "no-cache"})

    async def file(self, request: Request) -> Response:
        """The icon, the manifest, and what the front end's build has put beside its page."""
        name = request.path_params["name"]
        for folder in (self._settings.static_dir / "app", self._settings.static_dir):
            if name in PUBLIC_FILES and (folder / name).is_file():
                return FileResponse(folder / name, headers={"Cache-Control": "no-cache"})
        raise HTTPException(404)

    async def websocket(self, websocket: WebSocket) -> None:
        """``livedrag.v1``."""
        room = websocket.path_params["room"]
        await connection.serve(websocket, self._hub, room, patience=self._settings.deadline)

    async def _enter(self, request: Request, *, edit: bool = False) -> Hall:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        room = request.path_params["room"]
        if scheme.lower() != "bearer":
            await self._hub.open(room)  # an unknown room is the more useful answer
            raise WrongSecret(f"room {room!r} opens with its secret: send 'Authorization: Bearer <secret>'")
        hall, role = await self._hub.enter(room, secret.strip())
        if edit and role == "viewer":
            raise Fault(403, "forbidden", "your link is for viewing: ask for one to edit")
        return hall

    def _png(self, sha256: str) -> Response:
        headers = {"Cache-Control": "private, no-cache", "ETag": f'"{sha256}"'}
        return FileResponse(self._hub.store.picture_path(sha256), media_type="image/png", headers=headers)


def parse_drags(text: str, picture: Picture) -> dict[str, Drag]:
    """Drags from a form's JSON. Raises `Fault`."""
    try:
        drags = msgspec.json.decode(text, type=list[NewDrag])
    except msgspec.MsgspecError as error:
        example = '[{"handle": [x, y], "target": [x, y]}]'
        raise Fault(422, "bad_drags", f"drags {text[:100]!r}: {error}; {example} works") from None
    if len(drags) > MAX_DRAGS:
        raise Fault(422, "too_many", f"there are {len(drags)} drags: at most {MAX_DRAGS} work")
    for drag in drags:
        try:
            check_drag(picture, drag.handle, drag.target)
        except Refused as refusal:
            raise Fault(422, "bad_drags", str(refusal)) from None
    return {f"d{index}": Drag(handle=drag.handle, target=drag.target) for index, drag in enumerate(drags, 1)}


def list_samples(static_dir: Path) -> list[dict[str, object]]:
    """What ``samples.json`` lists and the set-up has composed (blocking)."""
    path = static_dir / "samples.json"
    if not path.is_file():
        return []
    shown = ("name", "title", "picture", "mask", "prompt", "drags", "credit")
    return [
        {key: sample[key] for key in shown if key in sample}
        for sample in json.loads(path.read_text(encoding="utf-8"))
        if (static_dir / "samples" / f"{sample['name']}.png").is_file()
    ]


class Body:
    """The body of a request, which raises `UploadFault` as soon as it is known to have too many bytes.

    ``limit`` counts for the file in it, and is what people are told; ``beside`` it there may be some bytes more.
    """

    def __init__(self, request: Request, limit: int, what: str, *, beside: int = 0) -> None:
        self._request = request
        self._limit = limit
        self._most = limit + beside
        self._what = what
        self._received = 0
        self._ended = False

    @property
    def request(self) -> Request:
        """The same request, with this body."""
        return Request(self._request.scope, self._receive)

    async def _receive(self) -> Message:
        announced = self._request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._most:
            raise too_large(int(announced), self._limit, self._what)
        message = await self._next()
        if self._received > self._most:
            text = f"{self._what} has more than {self._limit / MIB:g} MiB, the most that works"
            raise UploadFault(413, "too_large", text)
        return message

    async def _next(self) -> Message:
        message = await self._request.receive()
        self._received += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read on and drop what is still sent: most clients cannot read an answer before they have sent all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and self._received < DRAINED:
                    await self._next()


def _folders(static_dir: Path) -> list[BaseRoute]:
    """What is served as files, as far as it has been built."""
    places = (("/assets", "app/assets"), ("/samples", "samples"))
    return [
        Mount(path, StaticFiles(directory=static_dir / folder))
        for path, folder in places
        if (static_dir / folder).is_dir()
    ]


def _white(picture: Picture) -> bytes:
    return to_png(Image.new("L", (picture.width, picture.height), 255))


# Errors --------------------------------------------------------------------------------------------------------------


def error_response(status: int, reason: str, message: str) -> JSONResponse:
    """How every error looks."""
    return JSONResponse({"error": {"reason": reason, "message": message}}, status)


async def _on_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, Fault | UploadFault)
    return error_response(error.status, error.reason, str(error))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {400: "bad_request", 404: "unknown_page", 405: "wrong_method"}
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(error.status_code, reasons.get(error.status_code, "http"), message)


async def _on_unknown_room(request: Request, error: Exception) -> Response:
    return error_response(404, "unknown_room", str(error))


async def _on_wrong_secret(request: Request, error: Exception) -> Response:
    return error_response(403, "wrong_secret", str(error))


async def _on_store_error(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, error)
    return error_response(507, "not_saved", str(error))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    return error_response(500, "unexpected", "something unexpected went wrong; the server's log has the details")


class Guard:
    """Middleware: checks Host, and the Origin of WebSockets; adds headers that keep a browser to this server alone."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = settings.hosts
        self._origins = settings.allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not allowed_host(host, self._hosts):
            works = ", ".join(self._hosts) or "any well-formed name"
            refusal = error_response(
                400, "wrong_host", f"Host {host!r} is not served here: {works} (LIVEDRAG_ALLOWED_HOSTS)"
            )
            await refusal(scope, receive, send)
        elif scope["type"] == "websocket" and origin is not None and not self._same_origin(origin, host):
            refusal = error_response(403, "wrong_origin", f"Origin {origin!r} is not this server ({host})")
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send, security_headers(host)))

    def _same_origin(self, origin: str, host: str) -> bool:
        return urlsplit(origin).netloc.lower() == host.lower() or origin in self._origins


def allowed_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a Host header names this server; a port beside the name does not matter."""
    if HOST.fullmatch(host) is None:
        return False
    name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
    return not allowed or name.lower() in {entry.strip("[]").lower() for entry in allowed}


def security_headers(host: str) -> dict[str, str]:
    """Nothing from other hosts, no frames, no guessing of types; ``host`` is a checked Host header."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": f"'self' ws://{host} wss://{host}",
        "font-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with


# Serving -------------------------------------------------------------------------------------------------------------


class CannotServe(Exception):
    """The server cannot start; the text says why and what would work."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `CannotServe`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        text = f"cannot listen at {host}, port {port}: {error.strerror or error}. Choose others with --host and --port"
        raise CannotServe(text) from error


async def serve(settings: Settings, engine: Engine, *, started: Callable[[str, Server], None]) -> None:
    """Serve until told to stop.

    Args:
        started: called once with the address and the server, when both the model and the port are ready.

    Raises:
        CannotServe: the port is taken.
        StoreError: the data directory cannot be used.
        EngineError: the model cannot be loaded.
    """
    with listen(settings.host, settings.port) as listener, Store(settings.data_dir) as store:
        async with Hub(settings, store, engine) as hub:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            server = Server(configuration(create_app(hub), settings))
            started(f"http://{shown}:{port}", server)
            await server.serve(sockets=[listener])


def configuration(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve: frames are compressed already, and dead peers are noticed by WebSocket's own pings."""
    return uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=16 * MAX_MESSAGE_BYTES,  # beyond our own limit, whose answer says more
        ws_ping_interval=settings.heartbeat,
        ws_ping_timeout=settings.deadline - settings.heartbeat,
        lifespan="off",
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        timeout_graceful_shutdown=3,
    )


class Server(uvicorn.Server):
    """uvicorn, which on a signal leaves without raising it again: there is more to close than uvicorn knows of."""

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
