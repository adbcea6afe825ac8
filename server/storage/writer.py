"""The thread that owns the database. All jobs that wait for it are committed together, one fsync serves many."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from livedrag.server.storage.errors import DiskFull, StoreError, is_corrupt, is_full

log = logging.getLogger(__name__)

MAX_GROUP = 256
"""Jobs in one transaction."""

T = TypeVar("T")
_Job = tuple[Callable[[sqlite3.Connection], object], Callable[[Any], None] | None, "Future[object]"]


class Writer:
    """Runs jobs on the database, in their order. A job's future is done once its transaction is on disk."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None) -> Future[T]:
        """Run a job in the next transaction, even if its future is cancelled: later jobs build on it.

        Args:
            after: takes the result in the writer's thread once it is on disk; it must be quick, because the next
                transaction waits for it.
        """
        future: Future[T] = Future()
        self._jobs.put((job, after, future))  # type: ignore[arg-type]
        return future

    def close(self) -> None:
        """Finish the jobs submitted so far, then close the database."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            group = [self._jobs.get()]
            while group[-1] is not None and len(group) < MAX_GROUP and not self._jobs.empty():
                group.append(self._jobs.get())
            open_for_more = group[-1] is not None
            try:
                commit(self._database, [job for job in group if job is not None])
            except Exception:
                log.exception("the store's writer continues after an unexpected error")
        self._database.close()


def commit(database: sqlite3.Connection, jobs: Iterable[_Job]) -> None:
    """Run a group of jobs in one transaction; a job that fails does not affect the others."""
    _commit(database, [(job, after, _running(future)) for job, after, future in jobs])


def _commit(database: sqlite3.Connection, group: list[_Job]) -> None:
    done: list[tuple[Future[object], Callable[[Any], None] | None, object]] = []
    failed: list[tuple[Future[object], Exception]] = []
    changes = database.total_changes
    try:
        database.execute("BEGIN IMMEDIATE")
        for job, after, future in group:
            database.execute("SAVEPOINT job")
            try:
                done.append((future, after, job(database)))
            except Exception as error:
                if _concerns_all(error):
                    raise
                database.execute("ROLLBACK TO job")
                failed.append((future, error))
            database.execute("RELEASE job")
        database.execute("COMMIT")
    except Exception as error:
        with contextlib.suppress(sqlite3.Error):  # it may have been rolled back already
            database.execute("ROLLBACK")
        if is_corrupt(error) and len(group) > 1:
            for one in group:  # the damage may concern only one of them
                _commit(database, [one])
            return
        if not (is_corrupt(error) and done and database.total_changes == changes):  # it only read, and succeeded
            for _, _, future in group:
                future.set_exception(_not_saved(error))
            return
    for future, failure in failed:
        future.set_exception(failure)
    for future, _, result in done:
        future.set_result(result)
    for _, after, result in done:
        if after is not None:
            logged(functools.partial(after, result))


def logged(clean_up: Callable[[], None]) -> None:
    """Run a clean-up whose failure concerns no caller."""
    try:
        clean_up()
    except Exception:
        log.exception("cleaning up after a saved change failed")


def then(future: Future[T], change: Callable[[T], Any]) -> Future[Any]:
    """A future of something computed from another one's result."""
    changed: Future[Any] = Future()

    def done(future: Future[T]) -> None:
        if not changed.set_running_or_notify_cancel():
            return
        error = future.exception()
        if error is not None:
            changed.set_exception(error)
        else:
            changed.set_result(change(future.result()))

    future.add_done_callback(done)
    return changed


def _running(future: Future[object]) -> Future[object]:
    """The future, no longer cancellable; in place of a cancelled one, a new one."""
    return future if future.set_running_or_notify_cancel() else Future()


def _not_saved(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    if is_full(error):
        return DiskFull(f"nothing could be saved: {error}. Is the disk full?")
    return StoreError(f"nothing could be saved: {error}.")


def _concerns_all(error: Exception) -> bool:
    """Whether a job's error fails its whole group: a full disk, no access, a damaged database."""
    own = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError)
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, own)
