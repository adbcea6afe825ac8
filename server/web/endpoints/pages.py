"""The page, what it loads, and the sample pictures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from livedrag.server.errors import ServiceError
from livedrag.server.web.context import context_of

PUBLIC_FILES = (
    "icon.svg",
    "icon-192.png",
    "icon-512.png",
    "icon-maskable-512.png",
    "apple-touch-icon.png",
    "favicon.svg",
    "favicon.ico",
    "manifest.webmanifest",
    "robots.txt",
    "service-worker.js",
)
GZIP = ".gz"


async def index(request: Request) -> Response:
    """The page; it reads the room's id from its own address."""
    settings = context_of(request).settings
    page = settings.static_dir / "app" / "index.html"
    if not page.is_file():
        text = "the page has not been built: run `make install`, or use the Python client"
        raise ServiceError(503, "no_page", text)
    headers = {"Cache-Control": "no-cache"}
    if not settings.base_path:
        return FileResponse(page, headers=headers)
    text = await asyncio.to_thread(page.read_text, "utf-8")
    return HTMLResponse(rebase(settings.base_path, text), headers=headers)


async def file(request: Request) -> Response:
    """Icons, the manifest, and other files at the top level."""
    name, static_dir = request.path_params["name"], context_of(request).settings.static_dir
    for folder in (static_dir / "app", static_dir):
        if name in PUBLIC_FILES and (folder / name).is_file():
            return FileResponse(folder / name, headers={"Cache-Control": "no-cache"})
    raise HTTPException(404)


async def samples(request: Request) -> Response:
    """Sample pictures with drags to try."""
    return JSONResponse(await asyncio.to_thread(list_samples, context_of(request).settings.static_dir))


def static_folders(static_dir: Path) -> list[BaseRoute]:
    """Routes of the folders that are served as they are, if they have been built."""
    places = (("/assets", "app/assets", AssetFiles), ("/samples", "samples", StaticFiles))
    return [
        Mount(path, files(directory=static_dir / folder))
        for path, folder, files in places
        if (static_dir / folder).is_dir()
    ]


class AssetFiles(StaticFiles):
    """Files whose names contain a digest of their content: browsers store them for good.

    One that the build has compressed, as ``static/build.py`` does, is sent so to who accepts it.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = None
        if accepts_gzip(Headers(scope=scope).get("accept-encoding", "")):
            with contextlib.suppress(HTTPException):
                response = await super().get_response(path + GZIP, scope)
                response.headers["Content-Encoding"] = "gzip"
        if response is None:
            response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers.add_vary_header("Accept-Encoding")
        return response


def accepts_gzip(accepted: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip."""
    weights = {}
    for entry in accepted.lower().split(","):
        coding, _, weight = entry.partition(";")
        weights[coding.strip()] = weight.strip().removeprefix("q=").strip(" 0.") != "" or not weight.strip()
    return weights.get("gzip", weights.get("*", False))


def rebase(base: str, page: str) -> str:
    """The page as served below a base path: what it loads and the API lie below it too."""
    named = page.replace('name="livedrag-base" content=""', f'name="livedrag-base" content="{base}"')
    return re.sub(r'(\b(?:src|href)=")/(?!/)', rf"\g<1>{base}/", named)


def list_samples(static_dir: Path) -> list[dict[str, object]]:
    """The samples of ``samples.json`` whose pictures have been built (blocking)."""
    path = static_dir / "samples.json"
    if not path.is_file():
        return []
    shown = ("name", "title", "picture", "mask", "prompt", "drags", "credit", "animation")
    return [
        {key: sample[key] for key in shown if key in sample}
        for sample in json.loads(path.read_text(encoding="utf-8"))
        if (static_dir / "samples" / f"{sample['name']}.png").is_file()
    ]
