"""The server's password: wrong ones are answered later and later, the right one is never refused."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from livedrag.server.access.rate_limits import network_of
from livedrag.server.errors import ServiceError

FIRST_DELAY = 0.1
MAX_KEYS = 10_000
"""Addresses with failures in memory."""


class PasswordRequired(ServiceError):
    """The server's password is missing or wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(401, "password", message)


@dataclass(frozen=True)
class Caller:
    """Who sends a request or a handshake, as far as it says. ``name`` distinguishes scripts that use the same link."""

    address: str = ""
    cookie: str = ""
    password: str = ""
    name: str = ""


class Backoff:
    """A delay that doubles with each failure of a key beyond ``free`` ones, and that time takes back.

    Args:
        max_seconds: the longest delay.
        forgive_seconds: after which one failure is forgotten.
    """

    def __init__(
        self, free: int, max_seconds: float, forgive_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free, self._max_seconds, self._forgive_seconds = free, max_seconds, forgive_seconds
        self._clock = clock
        self._failures: dict[str, tuple[float, float]] = {}

    def fail(self, key: str) -> float:
        """Count a failure; returns the delay in seconds that it deserves."""
        failures = self._count(key) + 1
        self._failures.pop(key, None)
        self._failures[key] = failures, self._clock()
        if len(self._failures) > MAX_KEYS:
            del self._failures[next(iter(self._failures))]
        doublings = failures - self._free - 1
        return min(self._max_seconds, FIRST_DELAY * 2 ** min(doublings, 30)) if doublings >= 0 else 0.0

    def take_back(self, key: str) -> None:
        """It was not a failure after all."""
        self._failures[key] = max(0.0, self._count(key) - 1), self._clock()

    def _count(self, key: str) -> float:
        failures, since = self._failures.get(key, (0.0, 0.0))
        return max(0.0, failures - (self._clock() - since) / self._forgive_seconds)


class ServerPassword:
    """Checks passwords. An empty password lets everyone pass.

    Every attempt is answered, only later where there were failures before: from its address, or in all. So guessing is
    slow, and people who share an address with a guesser still get in.
    """

    def __init__(
        self,
        password: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._password = password.encode()
        self._sleep = sleep
        self._by_address = Backoff(free=5, max_seconds=10.0, forgive_seconds=30.0, clock=clock)
        self._overall = Backoff(free=200, max_seconds=5.0, forgive_seconds=0.5, clock=clock)

    @property
    def required(self) -> bool:
        """Whether there is a password."""
        return bool(self._password)

    async def check(self, caller: Caller, device: str = "") -> None:
        """Raise `PasswordRequired` unless the caller gives the password, after a delay that grows with failures.

        Args:
            device: identifies a browser that has given a password before, whose attempts are counted by themselves.
        """
        if not self._password:
            return
        if not caller.password:
            raise PasswordRequired("this server has a password: enter it first, or send it as Livedrag-Password")
        # Counted beforehand, so that many attempts at once do not avoid the delay.
        key = device or network_of(caller.address)
        delay = self._by_address.fail(key)
        free = delay == 0 and not device  # in all, only those count that their address does not delay
        if free:
            delay = self._overall.fail("")
        await self._sleep(delay)
        if not hmac.compare_digest(caller.password.encode(), self._password):
            raise PasswordRequired("wrong password: ask the operator of this server")
        self._by_address.take_back(key)
        if free:
            self._overall.take_back("")
