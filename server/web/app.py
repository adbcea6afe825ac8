"""The web application: routes, uploads, pages, and what every answer carries for the browser's safety."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import msgspec
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket

from livedrag.server.access.credentials import PasswordRequired
from livedrag.server.access.rate_limits import RateLimited
from livedrag.server.device.engine import Engine
from livedrag.server.document.checks import Refused, check_drag, check_drag_count, check_prompt
from livedrag.server.document.members import RANKS, AccessDenied, NotAllowed
from livedrag.server.document.protocol import (
    XY,
    Close,
    Document,
    Drag,
    Edited,
    Id,
    MaskLayer,
    Picture,
    Raster,
    Role,
    RoomLimits,
)
from livedrag.server.images.animation import animate, encode_mp4
from livedrag.server.images.mask import to_png
from livedrag.server.images.uploads import UploadFault, read_mask, read_picture, too_large
from livedrag.server.metrics import CONTENT_TYPE, Metrics
from livedrag.server.rooms.generation import GenerationError, steps_of
from livedrag.server.rooms.registry import RoomRegistry, UnknownRoom
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.settings import MIB, Settings
from livedrag.server.storage import Store, StoreError
from livedrag.server.storage.archive import export_room
from livedrag.server.storage.errors import ArchiveError
from livedrag.server.web import websocket as connection
from livedrag.server.web.security import COOKIE, SecurityMiddleware, address_of, error_response, visitor_of

log = logging.getLogger(__name__)

BESIDE_THE_PICTURE = 5 * MIB
"""Bytes that a form may have beside its picture: mask, prompt, drags."""
MOST_LETTER = 12
"""Bytes of a character as JSON, at most: two surrogates, each written as an escape."""
MOST_JSON = 4096
"""Bytes of a body that only says who somebody is or what they may do."""
DRAINED = 64 * MIB
DRAIN_SECONDS = 10.0
"""How much of a refused upload is read and dropped, so that the browser comes to read the answer."""
PUBLIC_FILES = ("icon.svg", "favicon.svg", "favicon.ico", "manifest.webmanifest", "robots.txt")


class Fault(Exception):
    """A request that cannot be answered; becomes a JSON error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody says at the door."""

    secret: str = ""
    password: str = ""


class NewGeneration(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody would like to see."""

    prompt: str
    seed: int | None = None


class FromGeneration(msgspec.Struct, forbid_unknown_fields=True):
    """What a room is to be made of."""

    generation: str


class NewRole(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody, or whoever comes by a link, may do."""

    role: Role


T = TypeVar("T")
P = ParamSpec("P")


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


def create_app(hub: RoomRegistry) -> Starlette:
    """The application over an entered `RoomRegistry`."""
    pages = Pages(hub)
    routes: list[BaseRoute] = [
        Route("/api/generations", pages.generate, methods=["POST"]),
        Route("/api/generations/{generation}", pages.follow_generation, methods=["GET"]),
        Route("/api/generations/{generation}", pages.cancel_generation, methods=["DELETE"]),
        Route("/api/generations/{generation}/picture", pages.generation_picture),
        Route("/api/password", pages.password, methods=["POST"]),
        Route("/api/rooms", pages.create_room, methods=["POST"]),
        Route("/api/rooms/{room}", pages.delete_room, methods=["DELETE"]),
        Route("/api/rooms/{room}/enter", pages.enter, methods=["POST"]),
        Route("/api/rooms/{room}/links", pages.links, methods=["GET"]),
        Route("/api/rooms/{room}/links", pages.make_link, methods=["POST"]),
        Route("/api/rooms/{room}/links/{link}", pages.revoke_link, methods=["DELETE"]),
        Route("/api/rooms/{room}/people/{person}", pages.give_role, methods=["PUT"]),
        Route("/api/rooms/{room}/people/{person}", pages.remove, methods=["DELETE"]),
        Route("/api/rooms/{room}/export", pages.export),
        Route("/api/rooms/{room}/trajectory.webp", pages.trajectory),
        Route("/api/rooms/{room}/trajectory.mp4", pages.film),
        Route("/api/rooms/{room}/moments/{moment:int}", pages.moment),
        Route("/api/rooms/{room}/picture", pages.picture),
        Route("/api/rooms/{room}/result", pages.result),
        Route("/api/rooms/{room}/mask", pages.mask, methods=["GET"]),
        Route("/api/rooms/{room}/mask", pages.load_mask, methods=["PUT"]),
        Route("/api/rooms/{room}/masks/{sha256}", pages.loaded_mask),
        Route("/api/samples", pages.samples),
        Route("/healthz", pages.health),
        Route("/metrics", pages.metrics),
        WebSocketRoute("/ws/{room}", pages.websocket),
        Route("/", pages.index),
        Route("/r/{room}", pages.index),
        Route("/{name:str}", pages.file),
        *_folders(hub.settings.static_dir),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(SecurityMiddleware, settings=hub.settings, limits=hub.limits, metrics=hub.metrics)],
        exception_handlers={
            Fault: _on_fault,
            UploadFault: _on_fault,
            GenerationError: _on_fault,
            HTTPException: _on_http,
            UnknownRoom: _on_unknown_room,
            PasswordRequired: _on_needs_password,
            AccessDenied: _on_no_entry,
            NotAllowed: _on_not_allowed,
            RateLimited: functools.partial(_on_slow_down, hub.metrics),
            StoreError: _on_store_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_unexpected,
        },
    )


class Pages:
    """The endpoints."""

    def __init__(self, hub: RoomRegistry) -> None:
        self._hub = hub
        self._settings = hub.settings
        self._filming = asyncio.Semaphore(1)  # trajectories take a core for a second or so
        self._decoding = asyncio.Semaphore(2)  # a picture takes much memory, and its core for as long
        self._exporting = asyncio.Semaphore(2)

    # Entering --------------------------------------------------------------------------------------------------------

    async def password(self, request: Request) -> Response:
        """Whoever says the server's password gets a cookie that has passed it."""
        self._hub.limits.check_address(address_of(request), "enter")
        said = await self._json(request, Said)
        cookie = await self._hub.doors.give_cookie(replace(visitor_of(request), password=said.password, counted=True))
        return self._with_cookie(Response(status_code=204), request, cookie)

    async def enter(self, request: Request) -> Response:
        """A link's secret becomes a cookie, which opens the room from then on, and a ticket for one connection."""
        self._hub.limits.check_address(address_of(request), "enter")
        said = await self._json(request, Said)
        visitor = visitor_of(request)
        visitor = replace(visitor, password=said.password or visitor.password, counted=True)
        cookie, role, ticket = await self._hub.doors.enter(request.path_params["room"], visitor, said.secret)
        return self._with_cookie(JSONResponse({"role": role, "ticket": ticket}), request, cookie)

    async def links(self, request: Request) -> Response:
        """The ways into a room; their secrets are not kept."""
        hall, _ = await self._enter(request, "owner")
        links = sorted(hall.guests.links.values(), key=lambda link: link.made)
        return JSONResponse([{"id": k.id, "role": k.role, "made": k.made, "used": k.used} for k in links])

    async def make_link(self, request: Request) -> Response:
        """One more way in."""
        role = (await self._json(request, NewRole)).role  # first, or who is put out meanwhile would make one still
        hall, _ = await self._enter(request, "owner")
        link, secret = await self._hub.doors.make_link(hall, role)
        url = f"{self._settings.base_path}/r/{hall.room.id}#{secret}"
        shown = {"id": link.id, "role": link.role, "made": link.made, "used": None, "secret": secret, "url": url}
        return JSONResponse(shown, 201)

    async def revoke_link(self, request: Request) -> Response:
        """Take a way in away, and put out who came by it."""
        hall, by = await self._enter(request, "owner")
        link = request.path_params["link"]
        if link not in hall.guests.links:
            raise Fault(404, "unknown_link", f"there is no link {link!r}: there are {', '.join(hall.guests.links)}")
        await self._hub.doors.revoke_link(hall, link, by)
        return Response(status_code=204)

    async def give_role(self, request: Request) -> Response:
        """Let somebody do more, or less."""
        role = (await self._json(request, NewRole)).role
        hall, by = await self._enter(request, "owner")
        await self._hub.doors.give_role(hall, self._person(request, hall), role, by)
        return Response(status_code=204)

    async def remove(self, request: Request) -> Response:
        """Put somebody out for good."""
        hall, by = await self._enter(request, "owner")
        await self._hub.doors.remove(hall, self._person(request, hall), by)
        return Response(status_code=204)

    async def delete_room(self, request: Request) -> Response:
        """Delete the room with everything in it."""
        hall, _ = await self._enter(request, "owner")
        await self._hub.delete(hall)
        return Response(status_code=204)

    def _person(self, request: Request, hall: LiveRoom) -> str:
        person: str = request.path_params["person"]
        if person not in hall.guests.members:
            raise Fault(404, "unknown_person", f"nobody in room {hall.room.id!r} is {person!r}")
        return person

    async def _json(self, request: Request, kind: type[T], most: int = MOST_JSON) -> T:
        """The body, which is small and JSON."""
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise Fault(413, "too_large", f"the body has more than {most} bytes, the most that works here")
        try:
            return msgspec.json.decode(data or b"{}", type=kind)
        except msgspec.MsgspecError as error:
            raise Fault(422, "bad_body", f"body: {error}") from None  # without what it says: it may be a secret

    def _with_cookie(self, response: Response, request: Request, cookie: str) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.set_cookie(  # again, where there was one: it lasts from its last use
            COOKIE,
            cookie,
            max_age=round(self._settings.session_days * 86_400),
            path=f"{self._settings.base_path}/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    # Drawings --------------------------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> Response:
        """Words become a picture, which a room can be made of."""
        self._hub.limits.check_address(address_of(request), "generate")
        await self._hub.doors.check_password(visitor_of(request))
        wanted = await self._json(request, NewGeneration, MOST_JSON + MOST_LETTER * self._settings.max_prompt)
        assert self._hub.model is not None
        job = self._hub.generations.begin(wanted.prompt, wanted.seed, self._hub.model)
        return JSONResponse({"id": job.id, "prompt": job.generation.prompt, "seed": job.generation.seed}, 201)

    async def follow_generation(self, request: Request) -> Response:
        """How far it is, a JSON object a line, from the newest on until its end."""
        await self._hub.doors.check_password(visitor_of(request))
        generation = self._hub.generations.find(request.path_params["generation"])
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy is not to hold lines back
        lines = self._hub.generations.follow(generation)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)

    async def generation_picture(self, request: Request) -> Response:
        """The picture that was made."""
        await self._hub.doors.check_password(visitor_of(request))
        png, _ = self._hub.generations.finished(request.path_params["generation"])
        return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    async def cancel_generation(self, request: Request) -> Response:
        """Nobody wants it any more."""
        await self._hub.doors.check_password(visitor_of(request))
        self._hub.generations.cancel(request.path_params["generation"])
        return Response(status_code=204)

    # Rooms -----------------------------------------------------------------------------------------------------------

    async def create_room(self, request: Request) -> Response:
        """A form with a picture makes a room, once all of it has been checked; so does a generation, by its id."""
        self._hub.limits.check_address(address_of(request), "create")
        await self._hub.doors.check_password(visitor_of(request))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            return await self._create(await self._generated_document(request))
        body = Body(request, self._settings.max_upload_bytes, "the upload", beside=BESIDE_THE_PICTURE)
        try:
            async with body.request.form(max_files=2, max_fields=8, max_part_size=256 * 1024) as form:
                document = await self._document(form)
        except (UploadFault, HTTPException):
            await body.drain()
            raise
        return await self._create(document)

    async def _create(self, document: Document) -> Response:
        room, secret = await self._hub.create(document)
        log.info("a room of %d x %d pixels", document.picture.width, document.picture.height, extra={"room": room})
        url = f"{self._settings.base_path}/r/{room}#{secret}"
        return JSONResponse({"room": room, "secret": secret, "url": url}, 201)

    async def _generated_document(self, request: Request) -> Document:
        png, generation = self._hub.generations.finished((await self._json(request, FromGeneration)).generation)
        width, height = Image.open(io.BytesIO(png)).size
        sha256 = await asyncio.to_thread(self._hub.store.put_picture, png)
        assert self._hub.model is not None
        usual = generation.ddim_steps == steps_of(self._hub.model)
        return Document(
            picture=Picture(sha256=sha256, width=width, height=height, generation=generation),
            prompt=generation.prompt,
            settings={} if usual else {"ddim_steps": generation.ddim_steps},
        )

    async def _document(self, form: FormData) -> Document:
        prompt = str(form.get("prompt") or "")
        try:
            check_prompt(prompt, self._hub.most)
        except Refused as refusal:
            raise Fault(422, "prompt_too_long", str(refusal)) from None
        data, name = await self._file(form, "picture")
        image = await self._decode(read_picture, data, name, self._settings.max_pixels)
        size = image.size
        picture = Picture(sha256="", width=size[0], height=size[1])
        drags = parse_drags(str(form.get("drags") or "[]"), picture, self._hub.most)
        mask: tuple[MaskLayer, ...] = ()
        if "mask" in form:
            data, name = await self._file(form, "mask")
            png = await self._decode(read_mask, data, name, size, self._settings.max_pixels)
            mask = (Raster(id="uploaded", sha256=await asyncio.to_thread(self._hub.store.put_picture, png)),)
        png = await self._decode(to_png, image)
        sha256 = await asyncio.to_thread(self._hub.store.put_picture, png)
        return Document(
            picture=Picture(sha256=sha256, width=size[0], height=size[1]), drags=drags, mask=mask, prompt=prompt
        )

    async def _decode(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something with the pixels of a picture, for few at a time."""
        async with self._decoding:
            return await asyncio.to_thread(work, *args, **kwargs)

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
        hall, _ = await self._enter(request)
        return self._png(hall.room.document.picture.sha256)

    async def result(self, request: Request) -> Response:
        """The picture that the last run left."""
        hall, _ = await self._enter(request)
        result = hall.document.result
        if result is None:
            raise Fault(404, "no_result", f"room {hall.room.id!r} has no result yet: press Drag and wait for the end")
        return self._png(result.sha256)

    async def mask(self, request: Request) -> Response:
        """The mask as it is now, white may change; all white where nothing was painted."""
        hall, _ = await self._enter(request)
        png = await self._hub.mask_png(hall)
        if png is None:
            png = await asyncio.to_thread(_white, hall.room.document.picture)
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    async def loaded_mask(self, request: Request) -> Response:
        """A mask file that was loaded into the room."""
        hall, _ = await self._enter(request)
        sha256 = request.path_params["sha256"]
        loaded = {layer.sha256 for layer in hall.room.document.mask if isinstance(layer, Raster)}
        if sha256 not in loaded:
            raise Fault(404, "unknown_mask", f"room {hall.room.id!r} has no loaded mask {sha256!r} now")
        return self._png(sha256)

    async def load_mask(self, request: Request) -> Response:
        """A PNG replaces the mask; everybody is told as of an edit. ``Op-Id`` makes sending it again harmless."""
        hall, by = await self._enter(request, "editor")
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
        png = await self._decode(read_mask, data, "mask", size, self._settings.max_pixels)
        sha256 = await asyncio.to_thread(self._hub.store.put_picture, png)
        hall, by = await self._enter(request, "editor")  # who was put out meanwhile loads no mask
        record = await self._hub.load_mask(hall, by, op_id, Raster(id=op_id, sha256=sha256))
        if not isinstance(record, Edited) or not isinstance(record.op, Raster):
            text = f"Op-Id {op_id!r} names another operation of this room: choose one that was not used, or none"
            raise Fault(409, "op_id_used", text)
        return JSONResponse({"seq": record.seq, "sha256": record.op.sha256})

    async def moment(self, request: Request) -> Response:
        """A small picture of a kept moment."""
        hall, _ = await self._enter(request)
        picture = hall.thumbnails.get(request.path_params["moment"])
        if picture is None:
            moment = request.path_params["moment"]
            raise Fault(
                404, "unknown_moment", f"there is no picture of moment {moment}: it was thinned away, or never was"
            )
        # Not for ever: a picture that is prepared anew has another timeline, with the same ids.
        etag = f'"{hashlib.sha256(picture).hexdigest()}"'
        headers = {"Cache-Control": "private, no-cache", "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(picture, media_type="image/webp", headers=headers)

    async def trajectory(self, request: Request) -> Response:
        """How the content came to where it is, as an animated WebP."""
        hall, _ = await self._enter(request)
        async with self._filming:
            webp = await asyncio.to_thread(animate, await self._shots(hall))
        return Response(webp, media_type="image/webp", headers={"Cache-Control": "no-store"})

    async def film(self, request: Request) -> Response:
        """The same as an MP4, where there is an encoder."""
        hall, _ = await self._enter(request)
        encoder = self._hub.encoder
        if encoder is None:
            text = "this server has no ffmpeg that makes MP4s: trajectory.webp works, or install livedrag's extra mp4"
            raise Fault(404, "no_encoder", text)
        async with self._filming:
            mp4 = await asyncio.to_thread(encode_mp4, await self._shots(hall), encoder)
        return Response(mp4, media_type="video/mp4", headers={"Cache-Control": "no-store"})

    async def _shots(self, hall: LiveRoom) -> list[bytes]:
        shots = await asyncio.to_thread(self._hub.checkpoints.frames, hall.room.id)
        if len(shots) < 2:
            text = f"room {hall.room.id!r} has no trajectory yet: press Drag and wait for the end"
            raise Fault(404, "no_trajectory", text)
        return [shot.data for shot in shots]

    async def export(self, request: Request) -> Response:
        """The room with everything in it, as a zip that another server can import."""
        hall, _ = await self._enter(request, "editor")
        file = tempfile.TemporaryFile()  # noqa: SIM115 - sent after this has returned
        try:
            async with self._exporting:
                await asyncio.to_thread(export_room, self._hub.store, hall.room.id, file)
        except BaseException as error:
            file.close()
            if isinstance(error, ArchiveError):  # deleted meanwhile
                raise Fault(404, "unknown_room", str(error)) from None
            raise
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        headers = {
            "Content-Disposition": f'attachment; filename="livedrag-{hall.room.id}.zip"',
            "Content-Length": str(size),
            "Cache-Control": "no-store",
        }
        return StreamingResponse(chunks_of(file), media_type="application/zip", headers=headers)

    async def samples(self, request: Request) -> Response:
        """Pictures to try, with drags that work."""
        return JSONResponse(await asyncio.to_thread(list_samples, self._settings.static_dir))

    async def health(self, request: Request) -> Response:
        """Whether the server serves, and how its worker is."""
        model = self._hub.model.name if self._hub.model else None
        return JSONResponse(
            {
                "status": "ok",
                "version": version(),
                "model": model,
                "worker": self._hub.engine.state,
                "capabilities": self._hub.capabilities,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def metrics(self, request: Request) -> Response:
        """What this server counts, for Prometheus."""
        if not self._settings.metrics:
            raise Fault(404, "no_metrics", "this server shows no metrics (LIVEDRAG_METRICS)")
        return Response(self._hub.metrics.text(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    async def index(self, request: Request) -> Response:
        """The page; it reads the room's id from its own address."""
        page = self._settings.static_dir / "app" / "index.html"
        if not page.is_file():
            raise Fault(503, "no_page", "the page has not been built: run `make install`, or use the Python client")
        if not self._settings.base_path:
            return FileResponse(page, headers={"Cache-Control": "no-cache"})
        text = below(self._settings.base_path, await asyncio.to_thread(page.read_text, "utf-8"))
        return HTMLResponse(text, headers={"Cache-Control": "no-cache"})

    async def file(self, request: Request) -> Response:
        """The icon, the manifest, and what the front end's build has put beside its page."""
        name = request.path_params["name"]
        for folder in (self._settings.static_dir / "app", self._settings.static_dir):
            if name in PUBLIC_FILES and (folder / name).is_file():
                return FileResponse(folder / name, headers={"Cache-Control": "no-cache"})
        raise HTTPException(404)

    async def websocket(self, websocket: WebSocket) -> None:
        """``livedrag.v1``."""
        room, visitor = websocket.path_params["room"], visitor_of(websocket)
        try:
            self._hub.limits.check_address(visitor.address, "connect")
        except RateLimited as error:
            self._hub.metrics.rejects.add(error.setting)
            await connection.refuse(websocket, self._hub, Close.TOO_MANY, "too_many", str(error))
            return
        patience, most_bytes = self._settings.deadline, self._settings.max_message_bytes
        await connection.serve(websocket, self._hub, room, visitor, patience=patience, most_bytes=most_bytes)

    async def _enter(self, request: Request, least: Role = "viewer") -> tuple[LiveRoom, str]:
        """The room of a request, and who asks, who must have a role in it."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        given = secret.strip() if scheme.lower() == "bearer" else ""
        hall, person = await self._hub.doors.visit(request.path_params["room"], visitor_of(request), given)
        role = hall.guests.role(person) or "viewer"
        if RANKS[role] < RANKS[least]:
            texts = {"editor": "your link is for viewing: ask for one to edit", "owner": "only an owner may do this"}
            raise Fault(403, "forbidden", texts[least])
        return hall, person

    def _png(self, sha256: str) -> Response:
        headers = {"Cache-Control": "private, no-cache", "ETag": f'"{sha256}"'}
        return FileResponse(self._hub.store.picture_path(sha256), media_type="image/png", headers=headers)


def below(base: str, page: str) -> str:
    """The page as it is served below a base path: what it loads, and what it asks for, lies there."""
    named = page.replace('name="livedrag-base" content=""', f'name="livedrag-base" content="{base}"')
    return re.sub(r'(\b(?:src|href)=")/(?!/)', rf"\g<1>{base}/", named)


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """A file in pieces; it is closed at the end."""
    with file:
        while piece := file.read(MIB):
            yield piece


def parse_drags(text: str, picture: Picture, most: RoomLimits) -> dict[str, Drag]:
    """Drags from a form's JSON. Raises `Fault`."""
    try:
        drags = msgspec.json.decode(text, type=list[NewDrag])
    except msgspec.MsgspecError as error:
        example = '[{"handle": [x, y], "target": [x, y]}]'
        raise Fault(422, "bad_drags", f"drags {text[:100]!r}: {error}; {example} works") from None
    try:
        check_drag_count(len(drags), most)
    except Refused as refusal:
        raise Fault(422, "too_many", str(refusal)) from None
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
    shown = ("name", "title", "picture", "mask", "prompt", "drags", "credit", "animation")
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


async def _on_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, Fault | UploadFault | GenerationError)
    return error_response(error.status, error.reason, str(error))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {400: "bad_request", 404: "unknown_page", 405: "wrong_method"}
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(error.status_code, reasons.get(error.status_code, "http"), message)


async def _on_unknown_room(request: Request, error: Exception) -> Response:
    return error_response(404, "unknown_room", str(error))


async def _on_needs_password(request: Request, error: Exception) -> Response:
    return error_response(401, "password", str(error))


async def _on_no_entry(request: Request, error: Exception) -> Response:
    assert isinstance(error, AccessDenied)
    return error_response(403, error.reason, str(error))


async def _on_not_allowed(request: Request, error: Exception) -> Response:
    return error_response(409, "not_allowed", str(error))


async def _on_slow_down(metrics: Metrics, request: Request, error: Exception) -> Response:
    assert isinstance(error, RateLimited)
    metrics.rejects.add(error.setting)
    response = error_response(429, "slow_down", str(error))
    response.headers["Retry-After"] = str(math.ceil(error.seconds))
    return response


async def _on_store_error(request: Request, error: Exception) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, error)
    return error_response(507, "not_saved", str(error))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody reads


async def _on_unexpected(request: Request, error: Exception) -> Response:
    return error_response(500, "unexpected", "something unexpected went wrong; the server's log has the details")


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
        async with RoomRegistry(settings, store, engine) as hub:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            server = Server(configuration(create_app(hub), settings), hub)
            started(f"http://{shown}:{port}", server)
            await server.serve(sockets=[listener])


def configuration(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve: frames are compressed already, and dead peers are noticed by WebSocket's own pings."""
    return uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=16 * settings.max_message_bytes,  # beyond our own limit, whose answer says more
        ws_ping_interval=settings.heartbeat,
        ws_ping_timeout=settings.deadline - settings.heartbeat,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        lifespan="off",
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        timeout_graceful_shutdown=3,
    )


class Server(uvicorn.Server):
    """uvicorn, which on a signal leaves without raising it again: there is more to close than uvicorn knows of."""

    def __init__(self, config: uvicorn.Config, hub: RoomRegistry) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell people that they may come back, then close their connections."""
        await self._hub.say_goodbye()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
