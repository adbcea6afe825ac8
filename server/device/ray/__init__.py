"""Device workers on the machines of a Ray cluster.

Ray places and starts the workers, and knows the machines. Commands and events do not pass through it: each worker opens
a TCP connection to the server. `docs/running.md` has the measurements behind that.

    engine      `RayEngine`: which workers there are, and which of them has which room
    cluster     what is asked of Ray; nothing else in the server's process imports it
    slot        one place for a worker: starts its actor, makes sure that a dead one's process is gone
    actor       what runs on the other machine: a thread with the device worker
    link        the worker's end of its connection; `hub` the server's; `wire` what both agree on
"""
