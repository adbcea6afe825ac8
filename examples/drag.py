"""Drag a picture on a running server, without a browser, and save the previews and the result.

    livedrag serve &
    python examples/drag.py bear.png --drag 62,150:40,110 -o dragged.png --frames frames/

The script creates a room; people can watch and help at the address it prints. `livedrag.server.client` has everything
else that a script can do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from urllib.error import URLError

from websockets.exceptions import ConnectionClosed

from livedrag.server.client import Client, NewRoom, OperationRejected, RequestFailed, create_room
from livedrag.server.document.protocol import AddDrag, Ended, SetPrompt, SetSettings


def main() -> int:
    """Run the script; returns its exit code."""
    parser = argparse.ArgumentParser(description="Drag a picture on a running livedrag server.")
    parser.add_argument("picture", type=Path, help="a PNG, JPEG or WebP file")
    parser.add_argument("--drag", action="append", required=True, metavar="X0,Y0:X1,Y1", help="can be repeated")
    parser.add_argument("--mask", type=Path, help="a PNG of the same size; white areas may change")
    parser.add_argument("--prompt", default="", help="what the picture shows")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, as on the page")
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address of the server (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("dragged.png"), help="the result (%(default)s)")
    parser.add_argument("--frames", type=Path, metavar="DIR", help="save the previews there")
    options = parser.parse_args()
    try:
        room = make_room(options)
        sys.stdout.write(f"watch at {options.server}{room.url}\n")
        ended = asyncio.run(drag(options, room))
    except URLError as error:
        sys.stderr.write(f"drag.py: no livedrag answers at {options.server}: {error.reason}\n")
        return 1
    except (RequestFailed, OperationRejected, ConnectionClosed, OSError, ValueError) as error:
        sys.stderr.write(f"drag.py: {error}\n")
        return 1
    sys.stdout.write(f"{ended.run.outcome} after {ended.run.iterations} iterations: {options.output}\n")
    return 0 if ended.run.outcome != "failed" else 1


def make_room(options: argparse.Namespace) -> NewRoom:
    """Create a room with the picture."""
    mask = {"mask": options.mask.read_bytes()} if options.mask else {}
    return create_room(options.server, options.picture.read_bytes(), name=options.picture.name, **mask)


async def drag(options: argparse.Namespace, room: NewRoom) -> Ended:
    """Place the drags, start the run, and save every preview as it arrives, then the result."""
    async with Client.join(options.server, room.id, room.secret, name="drag.py") as client:
        for number, text in enumerate(options.drag, 1):
            handle, target = (parse_place(place) for place in text.split(":"))
            await client.edit(AddDrag(id=f"d{number}", handle=handle, target=target))
        if options.prompt:
            await client.edit(SetPrompt(prompt=options.prompt))
        if options.set:
            await client.edit(SetSettings(settings=dict(parse_setting(text) for text in options.set)))
        started = await client.run()
        async for frame in client.frames(started.run.id):
            sys.stdout.write(f"{frame.stage} {frame.iteration}\n")
            if options.frames:
                options.frames.mkdir(parents=True, exist_ok=True)
                name = f"{frame.frame:06}-{frame.stage}-{frame.iteration:04}.{frame.format}"
                (options.frames / name).write_bytes(frame.data)
        ended = await client.end_of(started.run.id)
        if ended.result is not None:
            options.output.write_bytes(await client.get("result"))
        return ended


def parse_place(text: str) -> tuple[float, float]:
    """``X,Y`` in pixels of the picture."""
    x, y = text.split(",")
    return float(x), float(y)


def parse_setting(text: str) -> tuple[str, bool | int | float | str]:
    """``NAME=VALUE``; a value that is not JSON is taken as a string."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
