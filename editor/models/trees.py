"""Trees of tensors: dataclasses and sequences that contain tensors, and other values that do not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from torch import Tensor

T = TypeVar("T")


def mapped(tree: T, change: Callable[[Tensor], Tensor]) -> T:
    """A tree like this one with other tensors.

    Args:
        tree: a tensor; a dataclass, a list or a tuple of trees; or any other value that can be hashed, which stays.
        change: gives the tensor in the place of one.
    """
    result: Any = tree
    if isinstance(tree, Tensor):
        result = change(tree)
    elif isinstance(tree, list | tuple):
        result = type(tree)(mapped(part, change) for part in tree)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = {field.name: mapped(getattr(tree, field.name), change) for field in dataclasses.fields(tree)}
        result = dataclasses.replace(tree, **parts)
    return cast("T", result)


def leaves(tree: object) -> list[Tensor]:
    """Its tensors, in the order in which `mapped` gives them to ``change``."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for part in _parts(tree) or [] for leaf in leaves(part)]


def layout(tree: object) -> Hashable:
    """Equal for trees that differ in nothing but the contents of their tensors."""
    if isinstance(tree, Tensor):
        return tree.shape, tree.dtype, tree.requires_grad
    parts = _parts(tree)
    return (type(tree), tuple(map(layout, parts))) if parts is not None else tree


def _parts(tree: object) -> list[Any] | None:
    """What it consists of; None: it is no tree."""
    if isinstance(tree, list | tuple):
        return list(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    return None
