"""Live rooms: who is in them, what is sent to whom, and the run under way.

From the outside in:

    registry      all rooms of a server, which share `services`; `operator` is for the person who runs it
    admission     who may enter which room
    room          one open room; `session` is a connection to it, with an `outbox`, and `greeting` its first messages
    requests      what clients ask for; each becomes a record of the `document_log`, or is rejected
    run_control   the room's run on the engine; `model_switch` waits for another model, `timeline` for a jump
    presence      cursors and selections
    generation    pictures from prompts, before they are in a room
"""
