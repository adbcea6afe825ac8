"""The protocol, the document of a room, undo history and members. Pure: no I/O."""
