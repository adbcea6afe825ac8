"""Client: what was asked for is done once, whatever becomes of the connection; and frames come one after the other."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TypeVar

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from livedrag.server.client import Client, NewRoom, OperationRejected, RequestFailed, create_room, request
from livedrag.server.device.messages import Start
from livedrag.server.document.protocol import (
    VERSION,
    AddDrag,
    Close,
    Edited,
    Frame,
    MoveDrag,
    People,
    PersonPresence,
    Presences,
    ProtocolError,
    RemoveDrag,
    SetPrompt,
    Snapshot,
    Welcome,
    encode,
)
from livedrag.server.document.protocol_examples import SERVER
from tests.conftest import find_free_port
from tests.quiet import QuietEngine, png, quiet_server
from tests.traffic import serving_traffic

Kind = TypeVar("Kind")
D1 = AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))


def test_edits_made_over_a_breaking_connection_are_done_once_each(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret) as client,
            Client.join(address, room.id, room.secret) as other,
        ):
            edits = []
            for number in range(30):
                edits.append(asyncio.create_task(client.edit(AddDrag(id=f"d{number}", handle=(1, 1), target=(9, 9)))))
                await asyncio.sleep(0.01)
                if number % 7 == 3:
                    client.socket.transport.abort()
            records = await asyncio.gather(*edits)
            assert client.connections >= 2
            assert len({record.seq for record in records}) == 30
            await other.edit(RemoveDrag(id="d0"))
            assert other.seq == 31
            assert list(other.document.drags) == [f"d{number}" for number in range(1, 30)]
            await client.edit(RemoveDrag(id="d1"))
            assert client.document.drags == {id: drag for id, drag in other.document.drags.items() if id != "d1"}

    asyncio.run(story())


def test_a_client_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    port = find_free_port()

    address = f"http://127.0.0.1:{port}"

    async def story() -> None:
        first = serving_traffic(tmp_path / "data", port)
        await asyncio.to_thread(first.__enter__)
        room = await asyncio.to_thread(create_room, address, png())
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(D1)
            await asyncio.to_thread(first.__exit__, None, None, None)
            moving = asyncio.create_task(client.edit(MoveDrag(id="d1", target=(40, 40))))
            await asyncio.sleep(0.2)
            assert not moving.done()
            second = serving_traffic(tmp_path / "data", port)
            await asyncio.to_thread(second.__enter__)
            assert (await moving).seq == 2
            assert client.document.drags["d1"].target == (40, 40)
            assert client.connections == 2
        await asyncio.to_thread(second.__exit__, None, None, None)

    asyncio.run(story())


def test_a_closed_door_ends_the_client_and_what_it_waits_for(address: str, room: NewRoom) -> None:
    async def story() -> None:
        with pytest.raises(ConnectionClosed) as caught:
            async with Client.join(address, room.id, "wrong"):
                pass
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == Close.WRONG_SECRET
        async with Client.join(address, room.id, room.secret, reconnect=False) as client:
            client.socket.transport.abort()
            with pytest.raises(ConnectionClosed):
                await client.edit(D1)
            with pytest.raises(ConnectionClosed):
                await client.wait(Frame)

    asyncio.run(story())


def test_a_refused_operation_says_why_and_is_not_sent_again(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            with pytest.raises(OperationRejected, match="no drag 'nowhere'"):
                await client.edit(RemoveDrag(id="nowhere"))
            client.socket.transport.abort()
            await client.edit(D1)
            assert client.seq == 1

    asyncio.run(story())


def test_frames_come_until_the_run_has_ended(address: str, engine: QuietEngine, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(D1)
            run = (await client.run()).run.id
            await asyncio.to_thread(engine.expect, Start, room.id)
            seen = []
            engine.show(room.id, run, 1)
            async for frame in client.frames(run):
                seen.append(frame.iteration)
                if frame.iteration < 5:
                    engine.show(room.id, run, frame.iteration + 1)
                else:
                    await client.stop()
            assert seen == [1, 2, 3, 4, 5]
            assert (await client.end_of(run)).run.outcome == "stopped"

    asyncio.run(story())


def test_the_end_of_a_run_is_learned_from_a_snapshot_too(address: str, engine: QuietEngine, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret) as client,
            Client.join(address, room.id, room.secret) as other,
        ):
            await client.edit(D1)
            run = (await client.run()).run.id
            await asyncio.to_thread(engine.expect, Start, room.id)
            client.socket.transport.abort()
            await other.stop()
            ended = await client.end_of(run)
            assert ended.run.outcome == "stopped"
            assert ended.result is not None
            assert ended.tracked == {"d1": (30.0, 20.0)}

    asyncio.run(story())


def test_a_password_and_a_name_may_have_any_letters(tmp_path: Path) -> None:
    password = "Schlüssel 鍵 100%"
    with quiet_server(tmp_path, password=password) as (address, _):
        with pytest.raises(RequestFailed) as refused:
            create_room(address, png())
        assert refused.value.status == 401
        room = create_room(address, png(), password=password)

        async def story() -> None:
            with pytest.raises(ConnectionClosed) as closed:
                async with Client.join(address, room.id, room.secret):
                    pass
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == Close.PASSWORD
            async with Client.join(address, room.id, room.secret, name="Žofie 鍵", password=password) as client:
                await client.load_mask(png(color="white", mode="L"))
                loaded = await client.wait(Edited)
                assert loaded.by == client.welcome.person, "what is done by HTTP is done by the same person"
                assert await client.get("picture")

        asyncio.run(story())


def test_an_owner_gives_out_links_and_puts_people_out(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret, name="Ada") as owner:
            link = await owner.make_link("viewer")
            assert {"viewer", "owner"} == {entry["role"] for entry in await owner.links()}
            async with Client.join(address, room.id, link["secret"], name="Bob") as guest:
                with pytest.raises(OperationRejected, match="view only"):
                    await guest.edit(D1)
                await owner.set_role(guest.welcome.person, "editor")
                await guest.edit(D1)
                await guest.undo()
                assert guest.document.drags == {}
                await guest.redo()
                await guest.point((3.0, 4.0), tool="points")
                shown = await owner.wait(Presences, lambda shown: guest.welcome.person in shown.people)
                assert shown.people[guest.welcome.person] == PersonPresence(cursor=(3.0, 4.0), tool="points")
                await guest.rename("Bo")
                await owner.wait(People, lambda told: "Bo" in {person.name for person in told.people.values()})
                await owner.remove(guest.welcome.person)
                with pytest.raises(ConnectionClosed) as closed:
                    await guest.wait(Frame)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == Close.REMOVED
            await owner.revoke(link["id"])
            with pytest.raises(ConnectionClosed):
                async with Client.join(address, room.id, link["secret"], name="Cem"):
                    pass
            await owner.delete_room()
            with pytest.raises(ConnectionClosed) as closed:
                await owner.wait(Frame)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == Close.ROOM_DELETED

    asyncio.run(story())


def test_only_so_many_messages_are_remembered(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret, remember=5) as client:
            seen = client.count
            for number in range(20):
                await client.edit(SetPrompt(prompt=str(number)))
            assert len(client.received) == 5
            assert client.count >= seen + 20
            last = await client.wait(type(client.received[-1]), since=client.count - 1)
            assert last is client.received[-1]

    asyncio.run(story())


def test_an_error_in_others_words_is_an_error_of_the_request() -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/html": b"<h1>Bad gateway</h1>", "/text": b'"error"', "/ours": b'{"error": "odd"}'}[self.path]
            self.send_response(502)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for path in ("/html", "/text", "/ours"):
            with pytest.raises(RequestFailed, match=r"the answer was 502 Bad Gateway: '.*(gateway|error)") as caught:
                request(f"http://127.0.0.1:{proxy.server_port}", "GET", path)
            assert (caught.value.status, caught.value.reason) == (502, "http")
        proxy.shutdown()


@pytest.mark.parametrize("again", [False, True], ids=["at once", "when it connects again"])
def test_a_server_that_speaks_otherwise_ends_the_client_and_what_it_waits_for(again: bool) -> None:
    """Such as one of a newer version: the next message would be no better, so nothing is tried again."""
    hellos = 0

    async def speak(socket: ServerConnection) -> None:
        nonlocal hellos
        hellos += 1
        await socket.recv()
        if hellos == 1:
            await socket.send(encode(example(Welcome)))
            await socket.send(encode(example(Snapshot)))
            await socket.recv()
            if again:
                socket.transport.abort()
        await socket.send(b"\xc1 of another protocol")
        await socket.wait_closed()

    async def story() -> None:
        async with serve(speak, "127.0.0.1", 0, subprotocols=[VERSION]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with Client.join(f"http://127.0.0.1:{port}", "r", "secret") as client, asyncio.timeout(10):
                coming = asyncio.create_task(client.wait(Edited))
                with pytest.raises(ProtocolError):
                    await client.edit(D1)
                with pytest.raises(ProtocolError):
                    await coming
                with pytest.raises(ProtocolError):
                    await client.edit(D1)
                assert not client.connected
                assert [message async for message in client.messages()] == []
                assert hellos == 1 + again

    asyncio.run(story())


def example(kind: type[Kind]) -> Kind:
    """A message as a server sends it."""
    return next(message for message in SERVER if isinstance(message, kind))
