"""Rate limits: token buckets per person and per address. No I/O; the clock is a parameter.

A bucket holds as many tokens as may be spent at once, and refills at a steady rate: sending a queue of edits that were
made offline is fine, continuing at that speed is not.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from livedrag.server.errors import ServiceError
from livedrag.server.settings import Rate, Settings

MAX_BUCKETS = 10_000
"""Of one kind; beyond that, full ones are forgotten."""

AddressAction = Literal["connect", "enter", "create", "generate", "request", "message"]

PERSON_LIMITS: Mapping[str, str] = {
    "edit": "rate_edits",
    "undo": "rate_edits",
    "redo": "rate_edits",
    "run": "rate_runs",
    "stop": "rate_runs",
    "reset": "rate_runs",
    "seek": "rate_runs",
    "presence": "rate_presence",
    "name": "rate_presence",
}
"""The setting that limits each type of message; all others share ``rate_signals``."""
ADDRESS_LIMITS: Mapping[AddressAction, str] = {
    "connect": "rate_connections",
    "enter": "rate_entries",
    "create": "rate_rooms",
    "generate": "rate_generations",
    "request": "rate_requests",
    "message": "rate_messages",
}
WHAT: Mapping[str, str] = {
    "rate_edits": "edits",
    "rate_runs": "runs, stops and seeks",
    "rate_presence": "cursor messages",
    "rate_signals": "signals",
    "rate_connections": "connections from one address",
    "rate_entries": "attempts to enter from one address",
    "rate_rooms": "new rooms from one address",
    "rate_generations": "generated pictures from one address",
    "rate_requests": "requests from one address",
    "rate_messages": "messages from one address",
}
"""What each setting limits, in the words of error messages."""
DAY = 86_400.0


class RateLimited(ServiceError):
    """A rate limit was exceeded: ``setting`` names it, and after ``seconds`` it no longer is."""

    def __init__(self, setting: str, what: str, allowed: str, seconds: float) -> None:
        retry = max(0.1, math.ceil(seconds * 10) / 10)
        super().__init__(429, "slow_down", f"too many {what}: {allowed}; try again in {retry:g} s")
        self.setting = setting
        self.seconds = seconds

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": str(math.ceil(self.seconds))}


@dataclass(slots=True)
class Bucket:
    """It had ``tokens`` at the time ``at``, in seconds."""

    tokens: float
    at: float


class Buckets:
    """One bucket for each key, all with the same rate."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._buckets: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Spend one token. Returns 0.0 if there was one, else the seconds until there will be, and spends none."""
        if self.rate.unlimited:
            return 0.0
        seconds = self.wait(key, now)
        if not seconds:
            self.spend(key, 1, now)
        return seconds

    def wait(self, key: str, now: float) -> float:
        """Seconds until there is a token, 0.0 if there is one."""
        bucket = self._buckets.get(key)
        if self.rate.unlimited or bucket is None:
            return 0.0
        return max(0.0, 1.0 - self._tokens(bucket, now)) / self.rate.per_second

    def spend(self, key: str, tokens: float, now: float) -> None:
        """Spend tokens, even if there are fewer: it then takes longer until there is one."""
        bucket = self._buckets.get(key)
        if bucket is None:
            self._forget_full(now)
            bucket = self._buckets[key] = Bucket(self.rate.burst, now)
        bucket.tokens, bucket.at = self._tokens(bucket, now) - tokens, now

    def _tokens(self, bucket: Bucket, now: float) -> float:
        return min(self.rate.burst, bucket.tokens + max(0.0, now - bucket.at) * self.rate.per_second)

    def _forget_full(self, now: float) -> None:
        """Keys come from outside, so they must not pile up; a full bucket and none are the same."""
        if len(self._buckets) >= MAX_BUCKETS:
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if self._tokens(bucket, now) < self.rate.burst
            }


class RateLimits:
    """The rate limits of one server."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets = {name: Buckets(getattr(settings, name)) for name in WHAT}
        self._rooms_per_day = Buckets(Rate(settings.rooms_per_day / DAY, settings.rooms_per_day))

    def check_person(self, person: str, message: str) -> None:
        """Count a message of some type from a person. Raises `RateLimited`, without counting it."""
        self._check(PERSON_LIMITS.get(message, "rate_signals"), person)

    def check_address(self, address: str, action: AddressAction) -> None:
        """Count an action of an address. Raises `RateLimited`, without counting it."""
        network = network_of(address)
        self._check(ADDRESS_LIMITS[action], network)
        if action == "create":
            rooms = self._rooms_per_day
            if seconds := rooms.take(network, self._clock()):
                allowed = f"{rooms.rate.burst:g} a day are allowed"
                raise RateLimited("rooms_per_day", "new rooms from one address", allowed, seconds)

    def _check(self, setting: str, key: str) -> None:
        buckets = self._buckets[setting]
        seconds = buckets.take(key, self._clock())
        if seconds:
            allowed = f"{buckets.rate.per_second:g} per second and {buckets.rate.burst:g} at once are allowed"
            raise RateLimited(setting, WHAT[setting], allowed, seconds)


def network_of(address: str) -> str:
    """What counts as one address: for IPv6 the /64 network, within which anyone has as many addresses as they like."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
