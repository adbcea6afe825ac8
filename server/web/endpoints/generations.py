"""Pictures generated from a prompt."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from livedrag.server.web.body import MAX_JSON, read_json
from livedrag.server.web.context import check_password, check_rate, context_of

MAX_ESCAPED = 12
"""Bytes of one character in JSON at most: two surrogates, each written as an escape."""


class NewGeneration(msgspec.Struct, forbid_unknown_fields=True):
    """The prompt of a picture; without a seed, a random one."""

    prompt: str
    seed: int | None = None


async def generate(request: Request) -> Response:
    """Begin to generate a picture."""
    check_rate(request, "generate")
    await check_password(request)
    context = context_of(request)
    wanted = await read_json(request, NewGeneration, MAX_JSON + MAX_ESCAPED * context.settings.max_prompt)
    assert context.registry.model is not None
    job = context.registry.generations.begin(wanted.prompt, wanted.seed, context.registry.model)
    return JSONResponse({"id": job.id, "prompt": job.generation.prompt, "seed": job.generation.seed}, 201)


async def follow(request: Request) -> Response:
    """Its progress until it ends, one JSON object a line, the newest first."""
    await check_password(request)
    generations = context_of(request).registry.generations
    job = generations.find(request.path_params["generation"])
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must not hold lines back
    return StreamingResponse(generations.follow(job), media_type="application/x-ndjson", headers=headers)


async def picture(request: Request) -> Response:
    """The finished picture."""
    await check_password(request)
    png, _ = context_of(request).registry.generations.finished(request.path_params["generation"])
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


async def cancel(request: Request) -> Response:
    """Stop generating and forget the picture."""
    await check_password(request)
    context_of(request).registry.generations.cancel(request.path_params["generation"])
    return Response(status_code=204)
