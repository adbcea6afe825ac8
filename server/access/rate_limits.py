"""Limits: how often somebody may do something. Token buckets per person and per address; no I/O, the clock is given.

A bucket holds as many tokens as may be spent at once and refills at a steady rate, so that coming back with a queue of
edits made offline is fine, and going on like that is not.
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

MOST_BUCKETS = 10_000
"""Of one kind, after which those that are full again are forgotten."""

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
"""The setting that limits a type of message; all others together share ``rate_signals``."""
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
    "rate_entries": "tries to enter from one address",
    "rate_rooms": "new rooms from one address",
    "rate_generations": "pictures from words from one address",
    "rate_requests": "requests from one address",
    "rate_messages": "messages from one address",
}
"""What people are told that there are too many of."""


class RateLimited(ServiceError):
    """Too much, too fast: ``setting`` names the limit, and after ``seconds`` it is no longer exceeded."""

    def __init__(self, setting: str, rate: Rate, seconds: float) -> None:
        least = max(0.1, math.ceil(seconds * 10) / 10)
        super().__init__(
            429,
            "slow_down",
            f"too many {WHAT[setting]}: {rate.per_second:g} a second work, {rate.burst:g} at once; "
            f"try again in {least:g} s",
        )
        self.setting = setting
        self.seconds = seconds

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": str(math.ceil(self.seconds))}


@dataclass(slots=True)
class Bucket:
    """``tokens`` there were at the time ``at``, in seconds."""

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
        bucket = self._buckets.get(key)
        if bucket is None:
            self._forget_full(now)
            bucket = self._buckets[key] = Bucket(self.rate.burst, now)
        bucket.tokens, bucket.at = self._tokens(bucket, now), now
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) / self.rate.per_second
        bucket.tokens -= 1.0
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """What `take` would return; spends nothing."""
        bucket = self._buckets.get(key)
        if self.rate.unlimited or bucket is None:
            return 0.0
        return max(0.0, 1.0 - self._tokens(bucket, now)) / self.rate.per_second

    def _tokens(self, bucket: Bucket, now: float) -> float:
        return min(self.rate.burst, bucket.tokens + max(0.0, now - bucket.at) * self.rate.per_second)

    def _forget_full(self, now: float) -> None:
        """A full bucket and none are the same; keys come from outside, so they must not pile up."""
        if len(self._buckets) >= MOST_BUCKETS:
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if self._tokens(bucket, now) < self.rate.burst
            }


class RateLimits:
    """All limits of one server."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets = {name: Buckets(getattr(settings, name)) for name in WHAT}

    def check_person(self, person: str, message: str) -> None:
        """Count a message of some type from a person. Raises `RateLimited`, and then does not count it."""
        self._check(PERSON_LIMITS.get(message, "rate_signals"), person)

    def check_address(self, address: str, action: AddressAction) -> None:
        """Count what comes from an address. Raises `RateLimited`, and then does not count it."""
        self._check(ADDRESS_LIMITS[action], network_of(address))

    def wait_address(self, address: str, action: AddressAction) -> None:
        """Raise `RateLimited` where `check_address` would; counts nothing."""
        buckets = self._buckets[ADDRESS_LIMITS[action]]
        _refuse(ADDRESS_LIMITS[action], buckets.rate, buckets.wait(network_of(address), self._clock()))

    def _check(self, setting: str, key: str) -> None:
        buckets = self._buckets[setting]
        _refuse(setting, buckets.rate, buckets.take(key, self._clock()))


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the /64 that one household is given, in which addresses cost nothing."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


def _refuse(setting: str, rate: Rate, seconds: float) -> None:
    if seconds:
        raise RateLimited(setting, rate, seconds)
