"""WorkerActor: a device worker on a machine of the cluster, as Ray runs it. Neither torch nor Ray is imported here.

The worker is a thread of the actor, and talks to the server over its own connection: Ray sees no command and no event.
"""

from __future__ import annotations

import logging
import os
import threading

from livedrag.server.device.ray.link import WorkerLink
from livedrag.server.device.ray.picture_cache import PictureCache
from livedrag.server.device.ray.wire import Endpoint
from livedrag.server.device.worker_process import WorkerOptions, run_worker

log = logging.getLogger(__name__)


class WorkerActor:
    """Connects to the server and starts its worker. The process ends with the worker.

    Args:
        worker: names a function ``module:name`` of (connection, options).

    Raises:
        ConnectionError: the server cannot be reached from this machine, or does not know this worker.
    """

    def __init__(self, worker: str, options: WorkerOptions, endpoint: Endpoint) -> None:
        # Ray sets it to the CPUs that it has reserved, which are none beside a GPU.
        os.environ.pop("OMP_NUM_THREADS", None)
        try:
            link = WorkerLink.connect(endpoint, PictureCache.of_this_machine())
        except OSError as error:
            text = (
                f"it cannot connect to the server at {endpoint.host}:{endpoint.port} (--ray-host, --ray-port): {error}"
            )
            raise ConnectionError(text) from None
        threading.Thread(target=_run, args=(worker, options, link), name="device-worker", daemon=True).start()


def _run(worker: str, options: WorkerOptions, link: WorkerLink) -> None:
    code = 1
    try:
        run_worker(worker, link, options)
        code = 0
    except BaseException:
        log.exception("the device worker failed")
    finally:
        link.close()
        os._exit(code)  # whatever the other threads are doing: its device has to be free
