"""One WebSocket: its outbox never grows, nonsense closes it with a reason, and other connections are unaffected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.typing import Origin

from livedrag.server.client import Client, NewRoom, OperationRejected, RequestFailed, create_room
from livedrag.server.device.messages import (
    CommandFailed,
    MomentInfo,
    PreparationProgress,
    Prepare,
    ResetSession,
    RunProgress,
    Seek,
    Start,
    TimelineChanged,
    UpdateRun,
    WorkerRestarted,
    WorkerRestarting,
)
from livedrag.server.device.messages import SeekCompleted as EngineSought
from livedrag.server.document.protocol import (
    VERSION,
    AckFrame,
    AddDrag,
    AddStroke,
    Edit,
    Edited,
    Ended,
    EngineReport,
    ErrorMessage,
    Frame,
    Hello,
    History,
    Moments,
    MoveDrag,
    People,
    Person,
    PersonPresence,
    Ping,
    Points,
    Prepared,
    Presence,
    Presences,
    Rejected,
    Rename,
    Restore,
    Resumed,
    Seeked,
    ServerMessage,
    SetPrompt,
    SetSettings,
    Snapshot,
    Started,
    Stroke,
    decode_server,
    encode,
)
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.settings import Rate
from tests.quiet import QuietEngine, png, quiet_server
from tests.stored import contents

D1 = AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))


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


def test_where_people_point_is_not_lost_on_a_slow_client() -> None:
    outbox = Outbox()
    here, there = PersonPresence(cursor=(1.0, 2.0)), PersonPresence(cursor=(3.0, 4.0))
    outbox.put(Presences(people={"p": here, "q": here}))
    outbox.put(Presences(people={"q": None, "r": there}))
    assert drain(outbox) == [Presences(people={"p": here, "q": None, "r": there})]
    outbox.put(Presences(people={"p": there}))
    assert drain(outbox) == [Presences(people={"p": there})]


# Over a real socket --------------------------------------------------------------------------------------------------


def test_a_slow_viewer_holds_two_frames_delays_no_one_and_gets_the_newest(
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
                RunProgress(
                    room=room.id,
                    record=Points(run=run, iteration=7, handles={"d1": (11, 11)}, distances={"d1": 9}, loss=1),
                )
            )
            await first.wait(Points)
            began = time.monotonic()
            async with Client.join(address, room.id, room.secret) as late:
                assert (await late.wait(Points)).iteration == 7
                assert (await late.wait(Frame)).iteration == 7
                assert time.monotonic() - began < 5
                assert late.document == first.document
                await late.stop()
                assert (await first.wait(Ended)).run.outcome == "stopped"
                await late.wait(Ended)
                assert late.document == first.document
                assert late.document.drags["d1"].tracked == D1.target
                assert await late.get("result") == png()

    asyncio.run(story())


def test_edits_reach_everyone_and_the_engine_during_a_run(address: str, engine: QuietEngine, room: NewRoom) -> None:
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
            assert contents(start.picture) == await ada.get("picture")
            assert start.desired.mask == await ada.get("mask")
            await grace.edit(MoveDrag(id="d1", target=(50, 40)))
            change = await asyncio.to_thread(engine.expect, UpdateRun, room.id)
            while change.desired.seq < grace.seq:
                change = await asyncio.to_thread(engine.expect, UpdateRun, room.id)
            assert change.desired.drags["d1"].target == (50, 40)
            engine.tell(CommandFailed(room=room.id, message="that will not do"))
            assert (await grace.wait(ErrorMessage)).message == "that will not do"
            await grace.stop()
            await ada.wait(Ended)
            await ada.reset()
            await asyncio.to_thread(engine.expect, ResetSession, room.id)
            await grace.edit(SetPrompt(prompt="so they are equal"))
            await ada.wait(Edited, lambda edited: edited.op == SetPrompt(prompt="so they are equal"))
            assert ada.document == grace.document
            assert ada.document.result is None

    asyncio.run(story())


def test_what_people_wait_for_is_there_soon(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            waits = []
            for number in range(50):
                began = time.monotonic()
                await client.edit(SetPrompt(prompt=str(number)))
                waits.append(time.monotonic() - began)
            assert sorted(waits)[len(waits) // 2] < 1

    asyncio.run(story())


def test_undo_right_after_an_edit_is_of_that_edit(address: str, room: NewRoom) -> None:
    """It is sent before the edit has been answered."""

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            edited, undone = await asyncio.gather(client.edit(D1, op_id="just-now"), client.undo())
            assert (undone.seq, undone.undoes) == (edited.seq + 1, "just-now")
            assert client.document.drags == {}

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
            with pytest.raises(OperationRejected, match="1001 characters, the limit is 1000"):
                await client.edit(SetPrompt(prompt="x" * 1001))
            with pytest.raises(OperationRejected, match="nothing is running"):
                await client.stop()
            await client.edit(D1)

    asyncio.run(story())


def test_limits_are_set_announced_and_enforced(tmp_path: Path) -> None:
    limits = {"max_drags": 2, "max_prompt": 5, "max_message_bytes": 4096}

    async def story(address: str, room: NewRoom) -> None:
        async with Client.join(address, room.id, room.secret) as client:
            most = client.welcome.limits
            assert (most.drags, most.prompt, most.message_bytes) == (2, 5, 4096)
            for drag in (D1, replace(D1, id="d2")):
                await client.edit(drag)
            with pytest.raises(OperationRejected, match="3 drags, the limit is 2"):
                await client.edit(replace(D1, id="d3"))
            await client.edit(SetPrompt(prompt="a cat"))
            with pytest.raises(OperationRejected, match="6 characters, the limit is 5"):
                await client.edit(SetPrompt(prompt="a bear"))
        hello = encode(Hello(version=VERSION, secret=room.secret))
        fault, code = await closed_with(address, f"/ws/{room.id}", hello, bytes(4097))
        assert (code, fault.message) == (1009, "message of 4097 bytes: at most 4096 are allowed")

    with quiet_server(tmp_path, **limits) as (address, _):
        asyncio.run(story(address, create_room(address, png())))
        drag = '{"handle": [1, 1], "target": [9, 9]}'
        for fields, reason in (
            ({"prompt": "a bear"}, "prompt_too_long"),
            ({"drags": f"[{', '.join([drag] * 3)}]"}, "too_many"),
        ):
            with pytest.raises(RequestFailed) as caught:
                create_room(address, png(), **fields)
            assert (caught.value.status, caught.value.reason) == (422, reason)


def test_a_mask_that_lets_nothing_change_is_no_mask_to_drag_with(
    address: str, engine: QuietEngine, room: NewRoom
) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(D1)
            await client.edit(AddStroke(stroke=Stroke(id="s1", mode="erase", radius=200, points=[(32, 24)])))
            with pytest.raises(OperationRejected, match="paint an editable area or clear the mask"):
                await client.run()
            await client.edit(AddStroke(stroke=Stroke(id="s2", mode="paint", radius=5, points=[(32, 24)])))
            await client.run()
            await client.wait(Started)

    asyncio.run(story())
    assert engine.expect(Start, room.id).desired.mask is not None


async def closed_with(address: str, path: str, *messages: bytes | str) -> tuple[ErrorMessage, int]:
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
    assert isinstance(fault, ErrorMessage)
    assert socket.close_code is not None
    assert fault.message.startswith(socket.close_reason or "?")
    return fault, socket.close_code


@pytest.mark.parametrize(
    ("messages", "code", "quoted"),
    [
        ([b"\xc1garbage"], 4400, "garbage"),
        (["text"], 4400, "'text'"),
        ([encode(Edit(op_id="o", base=0, op=D1))], 4400, "'edit': send 'hello' first"),
        ([encode(Hello(version="livedrag.v9", secret="x"))], 4406, "'livedrag.v9'"),
        ([encode(Hello(version=VERSION, secret="wrong"))], 4403, "does not open room"),
        (["hello", b"\xc1"], 4400, "MessagePack"),
        (["hello", b"x" * 70_000], 1009, "70000 bytes: at most 65536"),
        (["hello", "hello"], 4400, "second time"),
        (["hello", msgpack.packb({"type": "explode"})], 4400, "explode"),
        ([b"\x91" * 995 + b"\xc0"], 4400, "nested too deeply"),
        ([b"\x81\xa4type" + b"\x91" * 900 + b"\xc0"], 4400, ""),
        (["hello", b"\x91" * 995 + b"\xc0"], 4400, "nested too deeply"),
        ([msgpack.packb({"type": ["x"]})], 4400, "type"),
        (["hello", msgpack.packb({"type": {}, "op_id": "x"})], 4400, "type"),
        (["hello", msgpack.packb({"type": "edit", "op_id": ["x"]})], 4400, "op"),
        ([], 4408, "no 'hello' within 1 s"),
    ],
)
def test_nonsense_is_answered_and_closes_that_connection_alone(
    address: str,
    room: NewRoom,
    caplog: pytest.LogCaptureFixture,
    messages: list[bytes | str],
    code: int,
    quoted: str,
) -> None:
    hello = encode(Hello(version=VERSION, secret=room.secret))

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as bystander:
            sent = [hello if message == "hello" else message for message in messages]
            fault, closed = await closed_with(address, f"/ws/{room.id}", *sent)
            assert closed == code
            assert quoted in fault.message
            await bystander.edit(SetPrompt(prompt="still here"))

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert not caplog.records


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
        async with connect(url, origin=Origin(address), subprotocols=[VERSION], proxy=None) as socket:
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


# People --------------------------------------------------------------------------------------------------------------


def test_cursors_reach_everyone_in_batches(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret, name="Ada") as ada,
            Client.join(address, room.id, room.secret, name="Grace") as grace,
        ):
            await grace.wait(People, lambda people: len(people.people) == 2)
            began = time.monotonic()
            for x in range(50):
                await ada.send(Presence(cursor=(float(x), 2.0), selected="d1", tool="points", busy=True))
            me = ada.welcome.person
            last = await grace.wait(
                Presences, lambda update: (update.people[me] or PersonPresence()).cursor == (49.0, 2.0)
            )
            assert last.people == {me: PersonPresence(cursor=(49.0, 2.0), selected="d1", tool="points", busy=True)}
            update = [message for message in grace.received if isinstance(message, Presences)]
            assert len(update) <= 2 + (time.monotonic() - began) * 30
            async with Client.join(address, room.id, room.secret, name="Late") as late:
                assert (await late.wait(Presences)).people[me] == last.people[me]
        async with Client.join(address, room.id, room.secret, name="Grace") as grace:
            async with Client.join(address, room.id, room.secret, name="Ada") as ada:
                await ada.send(Presence(cursor=(1.0, 2.0)))
                await grace.wait(Presences, lambda update: me in update.people)
            assert (await grace.wait(Presences, lambda update: update.people.get(me, update) is None)).people == {
                me: None
            }

    asyncio.run(story())


def test_names_change_and_who_has_edited_stays_listed(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret, name="Ada") as ada:
            async with (
                Client.join(address, room.id, room.secret, name="Grace") as grace,
                Client.join(address, room.id, room.secret, name="Vera"),
            ):
                await grace.edit(D1)
                await grace.send(Rename(name="  Grace H. "))
                me = grace.welcome.person
                renamed = await ada.wait(
                    People, lambda update: me in update.people and update.people[me].name == "Grace H."
                )
                assert all(person.colour.startswith("#") and person.here for person in renamed.people.values())
                assert len({person.colour for person in renamed.people.values()}) == 3
            gone = await ada.wait(People, lambda update: len(update.people) == 2 and not update.people[me].here)
            assert gone.people[me].name == "Grace H."
            edited = await ada.wait(Edited)
            assert edited.by == me

    asyncio.run(story())

    async def later() -> None:  # the room was closed meanwhile, and is read from the disk
        async with Client.join(address, room.id, room.secret, name="Ada") as ada:
            names = {person.name for person in (await ada.wait(People)).people.values()}
            assert names == {"Ada", "Grace H."}

    asyncio.run(later())


def test_two_tabs_are_one_person_until_both_are_closed(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret, name="Ada") as ada:
            async with Client.join(address, room.id, room.secret, name="Grace") as first:
                async with Client.join(address, room.id, room.secret, name="Grace") as second:
                    assert first.welcome.person == second.welcome.person
                    assert first.welcome.you != second.welcome.you
                    await second.send(Presence(cursor=(1.0, 1.0)))
                    await ada.wait(Presences)
                    before = ada.count
                update = await ada.wait(People, since=before)
                assert update.people[first.welcome.person].here
                # Had the person's presence been removed, that would have come before this.
                await first.send(Presence(cursor=(2.0, 2.0)))
                await ada.wait(Presences, lambda update: any(p and p.cursor == (2, 2) for p in update.people.values()))
                assert not [m for m in ada.received if isinstance(m, Presences) and None in m.people.values()]
            await ada.wait(Presences, lambda update: None in update.people.values())

    asyncio.run(story())


def test_a_lost_client_is_gone_after_the_deadline_and_delays_no_one(address: str, room: NewRoom) -> None:
    """The other end neither reads, nor answers pings, nor says goodbye; the server's deadline is 1 s here."""

    async def story() -> None:
        async with Client.join(address, room.id, room.secret, name="Ada") as ada:
            url = f"{address.replace('http', 'ws')}/ws/{room.id}"
            async with connect(url, compression=None, proxy=None, close_timeout=0.1) as stalled:
                await stalled.send(encode(Hello(version=VERSION, secret=room.secret, name="Mallory")))
                there = await ada.wait(People, lambda update: len(update.people) == 2)
                stalled.transport.pause_reading()
                cut = time.monotonic()
                while time.monotonic() - cut < 0.5:
                    began = time.monotonic()
                    await ada.edit(SetPrompt(prompt="x" * 1000))
                    assert time.monotonic() - began < 5
                await ada.wait(People, lambda update: len(update.people) == 1, since=ada.count)
                assert 0.5 < time.monotonic() - cut < 20
                assert "Mallory" in {person.name for person in there.people.values()}

    asyncio.run(story())


# Undo, coming back ---------------------------------------------------------------------------------------------------


def test_undo_reaches_everyone_and_each_sees_their_own_history(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret, name="Ada") as ada,
            Client.join(address, room.id, room.secret, name="Grace") as grace,
        ):
            assert await ada.wait(History) == History(undo=None, redo=None)
            await ada.edit(D1)
            await ada.wait(History, lambda update: update.undo == "add_drag")
            await grace.edit(SetPrompt(prompt="theirs"))
            await grace.wait(History, lambda update: update.undo == "set_prompt")
            undone = await ada.undo()
            assert (undone.by, undone.op) == (ada.welcome.person, Restore(drags={"d1": None}))
            await ada.wait(History, lambda update: update == History(undo=None, redo="add_drag"))
            await grace.wait(Edited, lambda edited: edited.undoes is not None)
            assert grace.document == ada.document
            assert (ada.document.drags, ada.document.prompt) == ({}, "theirs")
            with pytest.raises(OperationRejected, match="nothing to undo") as caught:
                await ada.undo()
            assert caught.value.reason == "nothing"
            assert (await ada.redo()).redoes == undone.undoes
            seen = ada.count
            await grace.edit(MoveDrag(id="d1", target=(40.0, 40.0)))
            await ada.wait(History, lambda update: update == History(undo=None, redo=None), since=seen)
        async with Client.join(address, room.id, room.secret, name="Grace") as grace:
            assert (await grace.wait(History)).undo == "move_drag"  # from the disk

    asyncio.run(story())


async def first_answers(address: str, room: NewRoom, count: int, **hello: object) -> list[ServerMessage]:
    """What a client receives that says hello by hand."""
    url = f"{address.replace('http', 'ws')}/ws/{room.id}"
    async with connect(url, compression=None, proxy=None) as socket:
        greeting = Hello(version=VERSION, secret=room.secret, name="Ada", **hello)  # type: ignore[arg-type]
        await socket.send(encode(greeting))
        return [decode_server(await socket.recv(decode=False)) for _ in range(count)]


def test_who_comes_back_gets_what_was_missed_or_a_snapshot(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret, name="Grace") as grace:
            life = grace.welcome.instance
            records = [await grace.edit(SetPrompt(prompt=str(number))) for number in range(3)]
            _, resumed, *missed = await first_answers(address, room, 4, since=1, of=life)
            assert (resumed, missed) == (Resumed(seq=1), records[1:])
            _, current, then = await first_answers(address, room, 3, since=3, of=life)
            assert current == Resumed(seq=3)
            assert not isinstance(then, Edited)
            for since, of in ((1, "another life"), (1, None), (99, life), (None, life)):
                _, snapshot = await first_answers(address, room, 2, since=since, of=of)
                assert isinstance(snapshot, Snapshot)
                assert (snapshot.seq, snapshot.document) == (3, grace.document)

    asyncio.run(story())


def test_what_was_made_offline_is_stale_where_others_were_faster(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret, name="Ada") as ada,
            Client.join(address, room.id, room.secret, name="Grace") as grace,
        ):
            await grace.edit(SetPrompt(prompt="theirs"))
            await ada.send(Edit(op_id="late", base=0, op=SetPrompt(prompt="mine"), offline=True))
            refused = await ada.wait(Rejected)
            assert (refused.op_id, refused.reason) == ("late", "stale")
            assert "the prompt was changed by others" in refused.message
            await ada.send(Edit(op_id="online", base=0, op=SetPrompt(prompt="mine")))
            await grace.wait(Edited, lambda edited: edited.op_id == "online")
            assert grace.document.prompt == "mine"

    asyncio.run(story())


# The engine ----------------------------------------------------------------------------------------------------------

MOMENTS = [MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0) for id in range(3)]


def test_anybody_may_go_back_to_a_moment_also_during_a_run(address: str, engine: QuietEngine, room: NewRoom) -> None:
    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret, name="Ada") as ada,
            Client.join(address, room.id, room.secret, name="Grace") as grace,
        ):
            with pytest.raises(OperationRejected, match=r"moment 1 is not on .* available are none") as caught:
                await ada.seek(1)
            assert caught.value.reason == "unknown"
            await ada.edit(D1)
            run = (await ada.run()).run.id
            engine.tell(TimelineChanged(room=room.id, moments=MOMENTS, current=2))
            assert (await grace.wait(Moments)).run == run
            seeking = asyncio.create_task(grace.seek(1))
            asked = await asyncio.to_thread(engine.expect, Seek, room.id)
            assert (asked.moment, asked.desired.drags["d1"].target) == (1, D1.target)
            engine.tell(EngineSought(room=room.id, moment=1, tracked={"d1": (15.0, 12.0)}))
            sought = await seeking
            assert (sought.by, sought.moment) == (grace.welcome.person, 1)
            await ada.wait(Seeked)
            assert ada.document == grace.document
            assert (ada.document.moment, ada.document.drags["d1"].tracked) == (1, (15.0, 12.0))
            assert ada.document.run is not None
            assert ada.document.run.outcome is None, "the run goes on"
            seeking = asyncio.create_task(ada.seek(2))
            await asyncio.to_thread(engine.expect, Seek, room.id)
            engine.tell(CommandFailed(room=room.id, message="moment 2 is not on the timeline", moment=2))
            with pytest.raises(OperationRejected, match="moment 2 is not on the timeline"):
                await seeking
            await ada.stop()
            await ada.wait(Ended)

    asyncio.run(story())


def test_everyone_sees_that_the_worker_restarts_and_the_run_continues(
    address: str, engine: QuietEngine, room: NewRoom
) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            assert await client.wait(EngineReport) == EngineReport(state="ready")
            await client.edit(D1)
            run = (await client.run()).run.id
            await asyncio.to_thread(engine.expect, Start, room.id)
            engine.tell(WorkerRestarting(message="the worker stopped (exit code -9)", rooms=(room.id,)))
            update = await client.wait(EngineReport, lambda update: update.state == "restarting")
            assert update.message == "the worker stopped (exit code -9)"
            async with Client.join(address, room.id, room.secret, name="Late") as late:
                assert (await late.wait(EngineReport)).state == "restarting"
                engine.tell(WorkerRestarted(rooms=(room.id,)))
                await late.wait(EngineReport, lambda update: update.state == "ready")
            engine.show(room.id, run, 9)
            await client.wait(Frame)
            await client.stop()
            await client.wait(Ended)
            assert sum(isinstance(message, Ended) for message in client.received) == 1

    asyncio.run(story())


def test_a_restart_of_another_device_is_not_this_rooms_business(
    address: str, engine: QuietEngine, room: NewRoom
) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            engine.tell(WorkerRestarting(message="away", device="cuda:1", rooms=("elsewhere",)))
            await client.edit(SetPrompt(prompt="x"))
            assert {m.state for m in client.received if isinstance(m, EngineReport)} == {"ready"}

    asyncio.run(story())


def test_the_picture_is_prepared_as_soon_as_someone_is_there(address: str, engine: QuietEngine, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            prepare = await asyncio.to_thread(engine.expect, Prepare, room.id)
            assert contents(prepare.picture) == await client.get("picture")
            assert prepare.picture.sha256 == client.document.picture.sha256
            assert prepare.desired.drags == {}
            engine.tell(PreparationProgress(room=room.id, stage="fitting", step=3, steps=80, seconds_left=5.0))
            update = Prepared(stage="fitting", step=3, steps=80, seconds_left=5.0)
            assert await client.wait(Prepared) == update
            async with Client.join(address, room.id, room.secret, name="Late") as late:
                assert await late.wait(Prepared) == update
            await client.edit(SetSettings(settings={"latent_lr": 0.5}))  # counts without preparing
            await client.edit(SetPrompt(prompt="a bear"))
            await client.edit(SetSettings(settings={"lora_steps": 7}))
            prepare = await asyncio.to_thread(engine.expect, Prepare, room.id)
            assert (prepare.desired.prompt, prepare.desired.settings["lora_steps"]) == ("a bear", 7), "both at once"

    asyncio.run(story())


# Too much, and the end -----------------------------------------------------------------------------------------------


def test_too_many_edits_are_refused_and_too_many_signals_end_the_connection(tmp_path: Path) -> None:
    limits = {"rate_edits": Rate(0.01, 2), "rate_presence": Rate(0.01, 1), "rate_signals": Rate(0.01, 5)}
    with quiet_server(tmp_path, **limits, rate_connections=Rate(0.01, 4)) as (address, _):
        room = create_room(address, png())

        async def story() -> None:
            async with (
                Client.join(address, room.id, room.secret, name="Ada", reconnect=False) as ada,
                Client.join(address, room.id, room.secret, name="Grace") as grace,
            ):
                for number in range(2):
                    await ada.edit(SetPrompt(prompt=str(number)))
                with pytest.raises(
                    OperationRejected, match=r"too many edits: 0\.01 per second and 2 at once"
                ) as caught:
                    await ada.edit(SetPrompt(prompt="x"))
                assert caught.value.reason == "slow_down"
                await grace.edit(SetPrompt(prompt="others may"))
                for x in range(3):
                    await ada.send(Presence(cursor=(float(x), 0.0)))
                await grace.edit(SetPrompt(prompt="and see the first alone"))
                assert (await grace.wait(Presences)).people[ada.welcome.person] == PersonPresence(cursor=(0.0, 0.0))
                for _ in range(6):
                    await ada.send(Ping(time=0.0))
                with pytest.raises(ConnectionClosed) as closed:
                    await ada.wait(Started)
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason[:16]) == (4409, "too many signals")

        asyncio.run(story())
        hello = encode(Hello(version=VERSION, secret=room.secret))
        codes = [asyncio.run(closed_with(address, f"/ws/{room.id}", hello, b"\xc1"))[1] for _ in range(2)]
        fault, code = asyncio.run(closed_with(address, f"/ws/{room.id}"))
        assert (codes, code, fault.reason) == ([4400, 4400], 4409, "too_many")
        assert "too many connections from one address: 0.01 per second and 4 at once" in fault.message


def test_who_does_not_take_what_is_reliable_is_let_go() -> None:
    async def story() -> None:
        outbox = Outbox()
        for number in range(2001):
            outbox.put(edited(number))
        with pytest.raises(Disconnect, match="has not read 2000 messages") as caught:
            await outbox.dismissed()
        assert caught.value.code == 4408

    asyncio.run(story())


def test_a_server_that_stops_says_that_one_may_come_back(tmp_path: Path) -> None:
    async def story(address: str, room: NewRoom, stopping: threading.Event) -> int:
        async with Client.join(address, room.id, room.secret, reconnect=False) as client:
            stopping.set()
            with pytest.raises(ConnectionClosed) as caught:
                await client.wait(Started)
            assert caught.value.rcvd is not None
            return caught.value.rcvd.code

    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as threads:
        address, _ = stack.enter_context(quiet_server(tmp_path))
        stopping = threading.Event()
        code = threads.submit(lambda: asyncio.run(story(address, create_room(address, png()), stopping)))
        assert stopping.wait(20)
        stack.close()
        assert code.result(20) == 4503
