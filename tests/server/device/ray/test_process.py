"""Processes by pid and start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from livedrag.server.device.ray.process import end_process, start_of


def test_a_process_is_killed_even_if_it_is_stopped_and_no_other_by_its_pid() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = start_of(child.pid)
        assert started is not None
        os.kill(child.pid, signal.SIGSTOP)
        assert end_process(child.pid, started + 1), "the process that it was has gone"
        assert child.poll() is None
        assert end_process(child.pid, started)
        assert child.wait(10) == -signal.SIGKILL
        assert start_of(child.pid) is None
        assert end_process(child.pid, started)
