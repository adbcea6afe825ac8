"""A Python client of ``livedrag.v1``, for scripts, tests and benchmarks.

    room = create_room("http://127.0.0.1:8000", Path("bear.png").read_bytes())
    async with Client.join(address, room.id, room.secret) as client:
        await client.edit(AddDrag(id="arm", handle=(62, 150), target=(40, 110)))
        started = await client.run()
        async for frame in client.frames(started.run.id):
            Path(f"{frame.iteration:04}.{frame.format}").write_bytes(frame.data)
        Path("result.png").write_bytes(await client.get("result"))

It needs `livedrag.server.document` and the packages msgspec, msgpack and websockets, but neither torch nor Starlette.
``examples/drag.py`` is a complete script.
"""

from livedrag.server.client.client import Client, new_id
from livedrag.server.client.errors import OperationRejected, RequestFailed
from livedrag.server.client.http import NewRoom, create_generated_room, create_room, request

__all__ = [
    "Client",
    "NewRoom",
    "OperationRejected",
    "RequestFailed",
    "create_generated_room",
    "create_room",
    "new_id",
    "request",
]
