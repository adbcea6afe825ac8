"""The protocol, the document of a room, undo history and members. Pure: no I/O.

From the outside in:

    protocol     every message
    document     orders the edits of a room: `checks` decides what it accepts, `fold` has the document after each
    history      undo and redo; `memory` says how much of the past is stored
    members      who may do what
    log_entries  the log as people see it; `past_runs` what the latest runs came to
    restored     a document that continues the edit that a result says it was made by
"""
