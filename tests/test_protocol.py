"""The messages: they round-trip, what is malformed is refused with its value, and the recorded ones have not drifted.

``python -m tests.test_protocol`` records ``tests/messages.json`` anew: one message of every record, for the front end's
tests too.
"""

from __future__ import annotations

import base64
import json
import math
import typing
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import protocol as p

RECORDED = Path(__file__).parent / "messages.json"

STROKE = p.Stroke(id="s1", mode="paint", radius=12.5, points=[(10.0, 20.0), (11.5, 22.25)])
RASTER = p.Raster(id="m1", sha256="ab" * 32)
DRAG = p.Drag(handle=(62.0, 150.0), target=(40.0, 110.0), tracked=(60.5, 147.25))
RUN = p.Run(id="r1", by="p1", iterations=12, outcome="arrived")
RESULT = p.Result(sha256="cd" * 32, run="r1")
OPERATIONS: list[p.Operation] = [
    p.AddDrag(id="d1", handle=(62.0, 150.0), target=(40.0, 110.0)),
    p.MoveDrag(id="d1", target=(45.0, 115.5)),
    p.RemoveDrag(id="d1"),
    p.AddStroke(stroke=STROKE),
    p.ClearMask(),
    p.SetPrompt(prompt="a teddy bear"),
    p.SetSettings(settings={"max_iterations": 40, "latent_lr": 0.02, "reference_control": True, "preset": None}),
]
CLIENT: list[p.ClientMessage] = [
    p.Hello(version=p.VERSION, secret="s3cret", name="Ada", since=7),
    *(p.Edit(op_id=f"o{index}", base=6, op=op) for index, op in enumerate(OPERATIONS)),
    p.StartRun(op_id="o8"),
    p.StopRun(op_id="o9"),
    p.Reset(op_id="o10"),
    p.AckFrame(frame=3),
    p.Ping(time=1234.5),
]
SERVER: list[p.ServerMessage] = [
    p.Welcome(
        version=p.VERSION,
        room="room1",
        you="p1",
        role="owner",
        model=p.ModelInfo(
            name="built-in",
            kind="builtin",
            settings={"lora_steps": 80, "preset": ""},
            presets=["paper"],
            ranges={"lora_steps": (0.0, 10_000.0)},
        ),
        heartbeat=3.0,
        deadline=10.0,
        frame_credits=p.FRAME_CREDITS,
    ),
    p.Snapshot(
        seq=7,
        document=p.Document(
            picture=p.Picture(sha256="ef" * 32, width=256, height=192),
            drags={"d1": DRAG},
            mask=(RASTER, STROKE),
            prompt="a teddy bear",
            settings={"max_iterations": 40},
            run=RUN,
            result=RESULT,
        ),
    ),
    *(p.Edited(seq=8 + index, op_id=f"o{index}", by="p1", op=op) for index, op in enumerate([*OPERATIONS, RASTER])),
    p.Rejected(op_id="o1", reason="busy", message="a run is under way already: press Stop first"),
    p.Started(seq=16, op_id="o8", run=p.Run(id="r1", by="p1")),
    p.Stopping(seq=17, op_id="o9", by="p1"),
    p.Ended(seq=18, run=RUN, tracked={"d1": (41.0, 112.0)}, result=RESULT),
    p.WasReset(seq=19, op_id="o10", by="p1"),
    p.People(people={"p1": "Ada", "p2": "Grace"}),
    p.Progress(run="r1", stage="fitting", step=20, steps=80, seconds=4.0, seconds_left=12.0, loss=0.125),
    p.Points(run="r1", iteration=5, handles={"d1": (60.5, 147.25)}, distances={"d1": 42.5}, loss=1.75),
    p.Frame(
        frame=3,
        run="r1",
        stage="dragging",
        iteration=4,
        format="webp",
        width=256,
        height=192,
        time=1700000000.5,
        data=b"\x00\x01webp\xff",
    ),
    p.Pong(time=1234.5),
    p.Fault(reason="wrong_secret", message="this secret does not open the room"),
]


def recorded(message: p.ClientMessage | p.ServerMessage) -> dict[str, Any]:
    """One message as the file has it; bytes in the JSON are base64."""
    return {
        "from": "client" if message in CLIENT else "server",
        "json": json.loads(msgspec.json.encode(message)),
        "msgpack": base64.b64encode(p.encode(message)).decode(),
    }


def kinds(union: Any) -> set[type]:
    return set(typing.get_args(union))


def test_recorded_messages_have_not_drifted() -> None:
    expected = json.loads(RECORDED.read_text())
    assert expected == [recorded(message) for message in [*CLIENT, *SERVER]], "run `python -m tests.test_protocol`"


def test_every_record_is_recorded() -> None:
    assert {type(message) for message in CLIENT} == kinds(p.ClientMessage)
    assert {type(message) for message in SERVER} == kinds(p.ServerMessage)
    assert {type(op) for op in OPERATIONS} == kinds(p.Operation)


@pytest.mark.parametrize("message", CLIENT, ids=lambda message: type(message).__name__)
def test_client_messages_round_trip(message: p.ClientMessage) -> None:
    assert p.decode_client(p.encode(message)) == message


@pytest.mark.parametrize("message", SERVER, ids=lambda message: type(message).__name__)
def test_server_messages_round_trip(message: p.ServerMessage) -> None:
    assert p.decode_server(p.encode(message)) == message


ids = st.text("abcXYZ019_.:-", min_size=1, max_size=64)
places = st.tuples(*[st.floats(-1e5, 1e5)] * 2)
settings = st.dictionaries(
    ids, st.none() | st.booleans() | st.integers(0, 2**31) | st.floats(allow_nan=False) | st.text()
)
operations = st.one_of(
    st.builds(p.AddDrag, id=ids, handle=places, target=places),
    st.builds(p.MoveDrag, id=ids, handle=st.none() | places, target=st.none() | places),
    st.builds(
        p.AddStroke,
        stroke=st.builds(
            p.Stroke,
            id=ids,
            mode=st.sampled_from(["paint", "erase"]),
            radius=st.floats(0, 10_000, exclude_min=True),
            points=st.lists(places, min_size=1, max_size=20),
        ),
    ),
    st.builds(p.SetPrompt, prompt=st.text(max_size=1000)),
    st.builds(p.SetSettings, settings=settings),
)


@given(st.builds(p.Edit, op_id=ids, base=st.integers(0, 2**53), op=operations))
def test_any_edit_round_trips(edit: p.Edit) -> None:
    assert p.decode_client(p.encode(edit)) == edit


@given(st.binary(max_size=200))
def test_any_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(p.ProtocolError):
        p.decode_client(data)


@given(
    st.recursive(st.none() | st.integers(-(2**60), 2**60) | st.text(), lambda more: st.dictionaries(st.text(), more))
)
def test_any_other_value_is_a_protocol_error(value: object) -> None:
    with pytest.raises(p.ProtocolError):
        p.decode_client(msgpack.packb(value))


def edit(**op: object) -> bytes:
    packed: bytes = msgpack.packb({"type": "edit", "op_id": "o1", "base": 0, "op": op})
    return packed


@pytest.mark.parametrize(
    ("op", "quoted"),
    [
        ({"type": "add_drag", "id": "d", "handle": [math.nan, 1], "target": [2, 3]}, "nan"),
        ({"type": "add_drag", "id": "d", "handle": [1, 2, 3], "target": [2, 3]}, "[1, 2, 3]"),
        ({"type": "add_drag", "id": "", "handle": [1, 2], "target": [2, 3]}, "length >= 1"),
        ({"type": "add_drag", "id": "d", "handle": [1, 2], "target": [2, 3], "colour": "red"}, "colour"),
        ({"type": "set_prompt", "prompt": "x" * 1001}, "1000"),
        ({"type": "explode"}, "explode"),
    ],
)
def test_a_malformed_edit_quotes_its_value_and_can_be_rejected(op: dict[str, object], quoted: str) -> None:
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_client(edit(**op))
    assert quoted in str(caught.value)
    assert caught.value.op_id == "o1"


def test_what_is_no_operation_has_no_op_id() -> None:
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_client(msgpack.packb({"type": "hello", "op_id": "o1"}))
    assert caught.value.op_id is None


def test_text_and_oversized_messages_are_refused_with_their_size() -> None:
    with pytest.raises(p.ProtocolError, match="hi there"):
        p.decode_client("hi there")
    with pytest.raises(p.ProtocolError, match=r"message of 65537 bytes: at most 65536"):
        p.decode_client(bytes(65537))


if __name__ == "__main__":
    RECORDED.write_text(json.dumps([recorded(message) for message in [*CLIENT, *SERVER]], indent=1) + "\n")
