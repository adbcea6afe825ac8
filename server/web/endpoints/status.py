"""How the server is doing, for people who run it."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from livedrag.server.errors import ServiceError
from livedrag.server.metrics import CONTENT_TYPE, DeviceStats, state_of
from livedrag.server.web.context import check_password, context_of
from livedrag.software import version


async def health(request: Request) -> Response:
    """Version, model, capabilities, limits, and whether the worker is ready and the disk has space."""
    registry = context_of(request).registry
    return JSONResponse(
        {
            "status": "ok",
            "version": version(),
            "model": registry.model.name if registry.model else None,
            "worker": registry.engine.state,
            "workers": _by_node(registry.engine.workers()),
            "storage": "read-only" if registry.store.space.problem() else "ok",
            "capabilities": registry.capabilities,
            "limits": {"upload_bytes": registry.room_limits.upload_bytes, "pixels": registry.room_limits.pixels},
        },
        headers={"Cache-Control": "no-store"},
    )


def _by_node(workers: Iterable[DeviceStats]) -> dict[str, dict[str, int]]:
    """How many workers are in which state, by node."""
    nodes: dict[str, Counter[str]] = {}
    for worker in workers:
        nodes.setdefault(worker.node, Counter())[state_of(worker)] += 1
    return {node: dict(states) for node, states in nodes.items()}


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
