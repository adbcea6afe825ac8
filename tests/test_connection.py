"""Connection: the outbox never grows; a WebSocket that says nonsense is told so and closed, and the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import msgpack
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from server.client import Client, NewRoom, OperationRejected, create_room
from server.connection import Outbox
from server.engine import Change, Complained, Finished, Reported, Rewind, Start
from server.protocol import (
    VERSION,
    AckFrame,
    AddDrag,
    AddStroke,
    Edit,
    Edited,
    Ended,
    Fault,
    Frame,
    Hello,
    MoveDrag,
    People,
    Person,
    Points,
    ServerMessage,
    SetPrompt,
    Started,
    Stroke,
    decode_server,
    encode,
)
from tests.quiet import QuietEngine, png, quiet_server

D1 = AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, QuietEngine]]:
    with quiet_server(tmp_path_factory.mktemp("rooms"), heartbeat=0.2, deadline=1.0) as served:
        yield served


@pytest.fixture
def address(served: tuple[str, QuietEngine]) -> str:
    return served[0]


@pytest.fixture
def engine(served: tuple[str, QuietEngine]) -> QuietEngine:
    return served[1]


@pytest.fixture
def room(address: str) -> NewRoom:
    return create_room(address, png())


# The outbox ----------------------------------------------------------------------------------------------------------


def frame(number: int) -> Frame:
    return Frame(
        frame=number,
        run="r",
        stage="dragging",
        iteration=number,
        format="webp",
        width=1,
        height=1,
        time=0.0,
        data=b"",
    )


def drain(outbox: Outbox) -> list[ServerMessage]:
    messages = []
    while (packed := outbox.take()) is not None:
        messages.append(decode_server(packed))
    return messages


def edited(seq: int) -> Edited:
    return Edited(seq=seq, op_id=f"o{seq}", by="p", op=SetPrompt(prompt=str(seq)))


def a_person(name: str) -> People:
    return People(people={"p": Person(name=name, colour="#000000", role="editor", here=True)})


def test_reliable_messages_keep_their_order_and_volatile_ones_their_latest() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(edited(number))
        outbox.put(a_person(str(number)))
    assert drain(outbox) == [edited(0), edited(1), edited(2), a_person("2")]


def test_a_client_holds_two_frames_and_then_gets_the_newest() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.put(frame(number))
        if number < 2:
            assert drain(outbox) == [frame(number)]
    assert drain(outbox) == []
    outbox.put(edited(1))
    assert drain(outbox) == [edited(1)]
    outbox.acknowledge(99)
    assert drain(outbox) == []
    outbox.acknowledge(0)
    assert drain(outbox) == [frame(4)]


def test_points_of_a_run_come_after_its_start() -> None:
    outbox = Outbox()
    before, after = (Points(run=run, iteration=1, handles={}, distances={}, loss=0.0) for run in ("r1", "r2"))
    outbox.put(before)
    outbox.put(edited(1))
    outbox.put(after)
    assert drain(outbox) == [edited(1), after]


# Over a real socket --------------------------------------------------------------------------------------------------


def test_a_slow_viewer_holds_two_frames_slows_nobody_and_gets_the_newest(
    address: str, engine: QuietEngine, room: NewRoom
) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret) as quick,
            Client.join(address, room.id, room.secret, acknowledge=False) as slow,
        ):
            await quick.edit(D1)
            run = (await quick.run()).run.id
            await asyncio.to_thread(engine.expect, Start, room.id)
            for iteration in range(1, 31):
                engine.show(room.id, run, iteration)
                await quick.wait(Frame, lambda frame, iteration=iteration: frame.iteration == iteration)  # type: ignore[misc]
            assert [message.iteration for message in slow.received if isinstance(message, Frame)] == [1, 2]
            slow.acknowledge = True
            held = [message for message in slow.received if isinstance(message, Frame)]
            await slow.send(AckFrame(frame=held[0].frame))
            newest = await slow.wait(Frame, lambda frame: frame.iteration > 2)
            assert newest.iteration == 30
            await quick.stop()
            await slow.wait(Ended)

    asyncio.run(story())


def test_a_late_joiner_sees_the_run_at_once(address: str, engine: QuietEngine, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as first:
            await first.edit(D1)
            run = (await first.run()).run.id
            engine.show(room.id, run, 7)
            engine.tell(
                Reported(
                    room=room.id,
                    record=Points(run=run, iteration=7, handles={"d1": (11, 11)}, distances={"d1": 9}, loss=1),
                )
            )
            await first.wait(Points)
            began = time.monotonic()
            async with Client.join(address, room.id, room.secret) as late:
                assert (await late.wait(Points)).iteration == 7
                assert (await late.wait(Frame)).iteration == 7
                assert time.monotonic() - began < 0.5
                assert late.document == first.document
                await late.stop()
                assert (await first.wait(Ended)).run.outcome == "stopped"
                await late.wait(Ended)
                assert late.document == first.document
                assert late.document.drags["d1"].tracked == D1.target
                assert await late.get("result") == png()

    asyncio.run(story())


def test_edits_reach_everybody_and_the_engine_while_it_runs(address: str, engine: QuietEngine, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret, name="Ada") as ada,
            Client.join(address, room.id, room.secret, name="Grace") as grace,
        ):
            assert {person.name for person in (await grace.wait(People)).people.values()} == {"Ada", "Grace"}
            await ada.edit(D1)
            await grace.edit(AddStroke(stroke=Stroke(id="s", mode="paint", radius=4, points=[(5, 5)])))
            await ada.run()
            start = await asyncio.to_thread(engine.expect, Start, room.id)
            assert start.picture == await ada.get("picture")
            assert start.goal.mask == await ada.get("mask")
            await grace.edit(MoveDrag(id="d1", target=(50, 40)))
            change = await asyncio.to_thread(engine.expect, Change, room.id)
            while change.goal.seq < grace.seq:
                change = await asyncio.to_thread(engine.expect, Change, room.id)
            assert change.goal.drags["d1"].target == (50, 40)
            engine.tell(Complained(room=room.id, message="that will not do"))
            assert (await grace.wait(Fault)).message == "that will not do"
            await grace.stop()
            await ada.wait(Ended)
            await ada.reset()
            await asyncio.to_thread(engine.expect, Rewind, room.id)
            await grace.edit(SetPrompt(prompt="so they are equal"))
            await ada.wait(Edited, lambda edited: edited.op == SetPrompt(prompt="so they are equal"))
            assert ada.document == grace.document
            assert ada.document.result is None

    asyncio.run(story())


def test_what_people_wait_for_is_there_within_a_tenth_of_a_second(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            waits = []
            for number in range(50):
                began = time.monotonic()
                await client.edit(SetPrompt(prompt=str(number)))
                waits.append(time.monotonic() - began)
            assert sorted(waits)[len(waits) // 2] < 0.1

    asyncio.run(story())


def test_an_operation_sent_again_changes_nothing_and_is_answered(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            first = await client.edit(D1, op_id="once")
            assert await client.edit(D1, op_id="once") == first
            assert client.seq == 1

    asyncio.run(story())


def test_a_refused_or_malformed_operation_is_answered_and_the_connection_goes_on(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            with pytest.raises(OperationRejected, match=r"\(100, 10\) lies outside the picture of 64 x 48"):
                await client.edit(AddDrag(id="d", handle=(100, 10), target=(5, 5)))
            with pytest.raises(OperationRejected, match="length <= 1000"):
                await client.edit(SetPrompt(prompt="x" * 1001))
            with pytest.raises(OperationRejected, match="nothing is running"):
                await client.stop()
            await client.edit(D1)

    asyncio.run(story())


def test_a_mask_that_lets_nothing_change_is_no_mask_to_drag_with(
    address: str, engine: QuietEngine, room: NewRoom
) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(D1)
            await client.edit(AddStroke(stroke=Stroke(id="s1", mode="erase", radius=200, points=[(32, 24)])))
            with pytest.raises(OperationRejected, match="lets nothing change: paint a region or clear the mask"):
                await client.run()
            await client.edit(AddStroke(stroke=Stroke(id="s2", mode="paint", radius=5, points=[(32, 24)])))
            await client.run()
            await client.wait(Started)

    asyncio.run(story())
    assert engine.expect(Start, room.id).goal.mask is not None


async def closed_with(address: str, path: str, *messages: bytes | str) -> tuple[Fault, int]:
    """Send messages; returns the error that comes back, and the close code."""
    url = address.replace("http", "ws") + path
    async with connect(url, compression=None, proxy=None) as socket:
        for message in messages:
            await socket.send(message)
        received: list[ServerMessage] = []
        with contextlib.suppress(ConnectionClosedError):
            async for packed in socket:
                received.append(decode_server(packed))
    fault = received[-1]
    assert isinstance(fault, Fault)
    assert socket.close_code is not None
    assert fault.message.startswith(socket.close_reason or "?")
    return fault, socket.close_code


@pytest.mark.parametrize(
    ("messages", "code", "quoted"),
    [
        ([b"\xc1garbage"], 4400, "garbage"),
        (["text"], 4400, "'text'"),
        ([encode(Edit(op_id="o", base=0, op=D1))], 4400, "'edit': say 'hello' first"),
        ([encode(Hello(version="livedrag.v9", secret="x"))], 4406, "'livedrag.v9'"),
        ([encode(Hello(version=VERSION, secret="wrong"))], 4403, "does not open room"),
        (["hello", b"\xc1"], 4400, "MessagePack"),
        (["hello", b"x" * 70_000], 1009, "70000 bytes: at most 65536"),
        (["hello", "hello"], 4400, "second time"),
        (["hello", msgpack.packb({"type": "explode"})], 4400, "explode"),
        ([], 4408, "no hello came within 1 s"),
    ],
)
def test_nonsense_is_answered_and_closes_that_connection_alone(
    address: str, room: NewRoom, messages: list[bytes | str], code: int, quoted: str
) -> None:
    hello = encode(Hello(version=VERSION, secret=room.secret))

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as bystander:
            sent = [hello if message == "hello" else message for message in messages]
            fault, closed = await closed_with(address, f"/ws/{room.id}", *sent)
            assert closed == code
            assert quoted in fault.message
            await bystander.edit(SetPrompt(prompt="still here"))

    asyncio.run(story())


def test_an_unknown_room_is_named(address: str) -> None:
    hello = encode(Hello(version=VERSION, secret="x"))
    fault, code = asyncio.run(closed_with(address, "/ws/nowhere", hello))
    assert (code, fault.reason) == (4404, "unknown_room")
    assert "'nowhere'" in fault.message


@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), ("http://localhost:1", 403)])
def test_pages_of_other_origins_cannot_connect(address: str, room: NewRoom, origin: str, status: int) -> None:
    async def story() -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{address.replace('http', 'ws')}/ws/{room.id}", origin=origin, proxy=None):  # type: ignore[arg-type]
                pass
        assert caught.value.response.status_code == status
        assert origin.encode() in caught.value.response.body

    asyncio.run(story())


def test_our_own_page_can(address: str, room: NewRoom) -> None:
    async def story() -> None:
        url = f"{address.replace('http', 'ws')}/ws/{room.id}"
        async with connect(url, origin=address, subprotocols=[VERSION], proxy=None) as socket:  # type: ignore[arg-type, list-item]
            assert socket.subprotocol == VERSION
            await socket.send(encode(Hello(version=VERSION, secret=room.secret)))
            assert b"welcome" in await socket.recv(decode=False)

    asyncio.run(story())


def test_two_rooms_do_not_hear_each_other(address: str, room: NewRoom) -> None:
    other = create_room(address, png())

    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret) as here,
            Client.join(address, other.id, other.secret) as there,
        ):
            await here.edit(D1)
            await there.edit(SetPrompt(prompt="elsewhere"))
            assert there.document.drags == {}
            assert not any(isinstance(message, Started) for message in there.received)

    asyncio.run(story())


def test_people_who_leave_are_no_fault(address: str, room: NewRoom, caplog: pytest.LogCaptureFixture) -> None:
    """A browser says 1001 when its page is left; others just go, in the middle of what they are sent."""

    async def story() -> None:
        hello, url = encode(Hello(version=VERSION, secret=room.secret)), address.replace("http", "ws")
        for code in (1001, 1000, 1001, 4999):
            async with connect(f"{url}/ws/{room.id}", compression=None, proxy=None) as socket:
                await socket.send(hello)
                await socket.recv()
                await socket.close(code)
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(D1)

    asyncio.run(story())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
