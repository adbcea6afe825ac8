"""Names of nodes."""

from __future__ import annotations

from livedrag.server.device.ray.cluster import names_of


def test_names_are_unique_and_stay() -> None:
    names = names_of({"a" * 20: "one", "b" * 20: "two"}, {})
    assert names == {"a" * 20: "one", "b" * 20: "two"}
    more = names_of({"c" * 20: "one", "a" * 20: "one"}, names)
    assert more == {"a" * 20: "one", "c" * 20: "one-cccccccc"}
    assert names_of({"c" * 20: "one"}, more) == {"c" * 20: "one-cccccccc"}
