"""How the server is doing, for people who run it."""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from livedrag.server.errors import ServiceError
from livedrag.server.metrics import CONTENT_TYPE
from livedrag.server.version import version
from livedrag.server.web.context import check_password, context_of


async def health(request: Request) -> Response:
    """Version, model, capabilities, and whether the worker is ready and the disk has space."""
    registry = context_of(request).registry
    return JSONResponse(
        {
            "status": "ok",
            "version": version(),
            "model": registry.model.name if registry.model else None,
            "worker": registry.engine.state,
            "storage": "read-only" if registry.store.space.problem() else "ok",
            "capabilities": registry.capabilities,
        },
        headers={"Cache-Control": "no-store"},
    )


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format, for those who have the token or, without one, the server's password."""
    context = context_of(request)
    if not context.settings.metrics:
        raise ServiceError(404, "no_metrics", "this server shows no metrics (LIVEDRAG_METRICS)")
    token = context.settings.metrics_token
    if not token:
        await check_password(request)
    elif not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode()):
        raise ServiceError(401, "token", "send 'Authorization: Bearer <token>', the token of LIVEDRAG_METRICS_TOKEN")
    return Response(
        context.registry.metrics.text(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
    )
