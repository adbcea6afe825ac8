"""One example of every message, for the protocol's page and for the tests of both sides."""

from __future__ import annotations

from livedrag.server.document import protocol as p

STROKE = p.Stroke(id="s1", mode="paint", radius=12.5, points=[(10.0, 20.0), (11.5, 22.25)], softness=0.5)
RASTER = p.Raster(id="m1", sha256="ab" * 32)
INVERT = p.Invert(id="i1")
DRAG = p.Drag(handle=(62.0, 150.0), target=(40.0, 110.0), tracked=(60.5, 147.25))
RUN = p.Run(id="r1", by="p1", iterations=12, outcome="arrived")
RESULT = p.Result(sha256="cd" * 32, run="r1", moment=4)
CONTENT = p.Content(
    picture=p.Picture(sha256="ef" * 32, width=256, height=192),
    run=RUN,
    result=RESULT,
    moment=4,
    handles={"d1": (62.0, 150.0)},
    tracked={"d1": (60.5, 147.25)},
)
RESTORE = p.Restore(
    drags={
        "d1": None,
        "d2": p.RestoredDrag(target=(40.0, 110.0)),
        "d3": p.RestoredDrag(handle=(5.0, 6.0), target=(7.5, 8.0)),
    },
    settings={"max_iterations": None, "latent_lr": 0.01},
    prompt="a bear",
    mask=(STROKE, INVERT),
    branches={"4": p.BranchMark(name="chin up"), "9": None},
    pins={"n1": (30.0, 40.5), "n2": None},
    title="Bear",
    model=p.ModelChoice(vae="fixed.safetensors"),
)
OPERATIONS: list[p.Operation] = [
    p.AddDrag(id="d1", handle=(62.0, 150.0), target=(40.0, 110.0)),
    p.MoveDrag(id="d1", target=(45.0, 115.5)),
    p.RemoveDrag(id="d1"),
    p.AddStroke(stroke=STROKE),
    p.RemoveStroke(id="s1"),
    p.InvertMask(id="i1"),
    p.GrowMask(id="g1", pixels=-4.0),
    p.ClearMask(),
    p.SetPrompt(prompt="a teddy bear"),
    p.SetSettings(settings={"max_iterations": 40, "latent_lr": 0.02, "reference_control": True, "preset": None}),
    p.MarkBranch(moment=4, mark=p.BranchMark(name="chin up")),
    p.SetPin(id="n1", at=(30.0, 40.5)),
    p.SetTitle(title="Bear, waving"),
    p.SetModel(model=p.ModelChoice(name="dream.safetensors", loras=(p.LoraChoice(name="ink.safetensors"),))),
]
CLIENT: list[p.ClientMessage] = [
    p.Hello(version=p.VERSION, ticket="t1ck3t", name="Ada", since=7, of="life1"),
    *(p.Edit(op_id=f"o{index}", base=6, op=op) for index, op in enumerate(OPERATIONS)),
    p.StartRun(op_id="o20"),
    p.StopRun(op_id="o21"),
    p.Reset(op_id="o22"),
    p.Undo(op_id="o23"),
    p.Redo(op_id="o24"),
    p.SeekMoment(op_id="o25", moment=4),
    p.EditFurther(op_id="o26"),
    p.RestoreRun(op_id="o27", run="r1"),
    p.Presence(cursor=(12.5, 40.0), selected="d1", tool="points", busy=True, view=(128.0, 96.0, 64.0)),
    p.Rename(name="Ada L."),
    p.AckFrame(frame=3),
    p.Ping(time=1234.5),
]
SERVER: list[p.ServerMessage] = [
    p.Welcome(
        version=p.VERSION,
        room="room1",
        instance="life1",
        you="c1",
        person="p1",
        role="owner",
        model=p.ModelInfo(
            name="built-in",
            kind="builtin",
            settings={"lora_steps": 80, "lora_targets": "to_q to_v", "background": "loss", "preset": ""},
            presets=["paper"],
            live=("max_iterations",),
            ranges={"lora_steps": (0.0, 10_000.0)},
            words={"lora_targets": ("to_q", "to_k", "to_v", "to_out")},
            choices={"background": ("loss", "keep")},
        ),
        capabilities=("password",),
        limits=p.RoomLimits(upload_bytes=20 * 2**20, pixels=25_000_000),
        base="/drag",
        page="index-Bx1c9Qf2.js",
        heartbeat=3.0,
        deadline=10.0,
        frame_credits=p.FRAME_CREDITS,
    ),
    p.Snapshot(
        seq=7,
        document=p.Document(
            picture=p.Picture(
                sha256="ef" * 32,
                width=256,
                height=192,
                generation=p.Generation(prompt="a teddy bear", seed=7, guidance=5.0, ddim_steps=50, model="built-in"),
            ),
            drags={"d1": DRAG},
            mask=(RASTER, STROKE, INVERT),
            prompt="a teddy bear",
            settings={"max_iterations": 40},
            run=RUN,
            result=RESULT,
            moment=4,
            branches={"4": p.BranchMark(name="chin up"), "7": p.BranchMark(removed=True)},
        ),
    ),
    p.Resumed(seq=7),
    p.Log(
        entries=[
            p.LogEntry(seq=1, by="p1", type="move_drag", op_id="o1"),
            p.LogEntry(seq=2, by="p2", type="started", op_id="r1"),
            p.LogEntry(seq=3, by="", type="arrived"),
            p.LogEntry(seq=4, by="p2", type="restore", op_id="o9", undoes="r1"),
        ]
    ),
    *(p.Edited(seq=8 + index, op_id=f"o{index}", by="p1", op=op) for index, op in enumerate([*OPERATIONS, RASTER])),
    p.Edited(seq=19, op_id="o23", by="p1", op=RESTORE, undoes="o1"),
    p.Edited(seq=20, op_id="o24", by="p1", op=OPERATIONS[0], redoes="o1"),
    p.Edited(seq=20, op_id="o24", by="p1", op=p.Restore(content=CONTENT), undoes="r1"),
    p.Rejected(op_id="o1", reason="busy", message="a run is already under way: press Stop first"),
    p.Started(seq=21, op_id="o20", run=p.Run(id="r1", by="p1")),
    p.Stopping(seq=22, op_id="o21", by="p1"),
    p.Ended(seq=23, run=RUN, tracked={"d1": (41.0, 112.0)}, result=RESULT, moment=4),
    p.WasReset(seq=24, op_id="o22", by="p1"),
    p.Seeked(seq=25, op_id="o25", by="p1", moment=4, tracked={"d1": (50.0, 130.0)}),
    p.BaseReplaced(seq=26, op_id="o26", by="p1", picture=p.Picture(sha256="cd" * 32, width=256, height=192)),
    p.People(
        people={
            "p1": p.Person(name="Ada", colour="#2a6fdb", role="owner", here=True),
            "p2": p.Person(name="Grace", colour="#c2410c", role="viewer", here=False),
        }
    ),
    p.Presences(
        people={
            "p1": p.PersonPresence(cursor=(12.5, 40.0), selected="d1", busy=True, view=(128.0, 96.0, 64.0)),
            "p2": None,
        },
    ),
    p.History(undo="move_drag", redo=None),
    p.Moments(
        run="r1",
        moments=[
            p.Moment(id=0, parent=None, iteration=0, time=1700000000.0, thumbnail=True),
            p.Moment(id=4, parent=0, iteration=5, time=1700000001.5),
        ],
        current=4,
    ),
    p.EngineReport(state="restarting", message="the worker of this device stopped (exit code -9) and is restarting"),
    p.Prepared(stage="fitting", step=20, steps=80, seconds_left=12.0, ignored_prompt="on a green hill"),
    p.Prepared(stage="ready", step=1, steps=1, unknown=True),
    p.RoomModel(
        model=p.ModelInfo(name="dream", kind="stable-diffusion", settings={"lora_steps": 80}, presets=["paper"])
    ),
    p.Progress(run="r1", stage="fitting", step=20, steps=80, seconds=4.0, seconds_left=12.0, loss=0.125),
    p.Points(
        run="r1",
        iteration=5,
        handles={"d1": (60.5, 147.25)},
        distances={"d1": 42.5},
        loss=1.75,
        content={"d1": 44.0},
    ),
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
    p.ErrorMessage(reason="wrong_secret", message="this secret does not open the room"),
]
