"""What runs in the process that owns a device. All other processes know it by its messages alone.

From the outside in:

    main            the process: reads commands from a pipe, and calls the worker
    device_worker   commands and turns
    residency       which rooms are on the device, and which wait; `scheduler` chooses whose step is next
    shared_step     takes a step of the rooms whose turn it is; `group_sizes` says how many rooms share one
    step_failures   what becomes of a room whose step has failed
    stages          the steps of a run, a preparation and a generation
    sessions        opens the editor's sessions and makes them follow the room; `session_files` keeps them on disk
    models          those on the device; `model_catalog` has what rooms may choose, `model_queue` what waits for one
"""
