"""How devices work on rooms: the engine that the service talks to, and in `worker` what runs in a device's own process.

From the outside in:

    engine          the interface; `messages` has its commands and events
    local, ray      engines: processes of this machine, or of a Ray cluster
    pool            what both share: rooms are placed on workers (`placement`), and move between them
    supervisor      keeps a worker alive (`worker_process`), and sends a new one what has no answer yet (`pending`)
    checkpoints     the sessions of rooms on disk
"""
