"""Arrays out of a pickle that is never run.

A pickle is a program for a small stack machine: two of its instructions call whatever it names.
Some published weights exist as pickles of numpy arrays alone. This reader goes through the
instructions itself and knows only those that such a file needs, Python's own machine has no part
in it. A name may be one of the three that stand for an array; any other is refused and named. No
object of the file is ever called: an array is made here from its bytes, once its shape and type
were checked.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ARRAY = ("ndarray of numpy", "_reconstruct of numpy", "dtype of numpy")
NAMES = {
    "numpy ndarray": ARRAY[0],
    "numpy.core.multiarray _reconstruct": ARRAY[1],
    "numpy._core.multiarray _reconstruct": ARRAY[1],
    "numpy dtype": ARRAY[2],
}
TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
VALUES = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotArrays(ValueError):
    """A pickle holds something other than dictionaries of arrays."""


@dataclass(eq=False)
class _Name:
    said: str


@dataclass(eq=False)
class _Type:
    code: str
    known: bool = False


@dataclass(eq=False)
class _Array:
    values: np.ndarray | None = None


class _Mark:
    pass


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled tree of dictionaries, by their path: ``Conv_0/kernel``.

    Protocols 3 and 4 (2 has no bytes, 5 keeps them elsewhere); little-endian numbers.

    Raises:
        NotArrays: the pickle names anything but numpy arrays, uses another instruction, or ends
            before its time; the message says what and where.
    """
    path = Path(path)
    try:
        return dict(_flat(_tree(path.read_bytes()), "", set()))
    except NotArrays as reason:
        raise NotArrays(f"{path} is not read: {reason}") from None
    except (IndexError, TypeError, ValueError, KeyError, RecursionError) as reason:
        raise NotArrays(f"{path} is not read: it is no whole pickle of arrays ({reason})") from None


def _tree(content: bytes) -> Any:
    """What the instructions leave on the stack."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    instructions: Iterator[tuple[Any, Any, Any]] = pickletools.genops(content)
    for op, argument, where in instructions:
        name = op.name
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            stack.append(_Mark())
        elif name in TUPLES:
            count = TUPLES[name]
            stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
        elif name == "TUPLE":
            stack.append(tuple(_from_mark(stack)))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _put(stack[-1], [key, value])
        elif name == "SETITEMS":
            items = _from_mark(stack)
            _put(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_named(f"{module} {attribute}"))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_made(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _fill(stack[-1], state)
        elif name == "STOP":
            (tree,) = stack
            return tree
        elif name not in ("PROTO", "FRAME"):
            raise NotArrays(f"the instruction {name} at byte {where} is not one of arrays")
    raise NotArrays("it has no end")


def _from_mark(stack: list[Any]) -> list[Any]:
    """Everything above the last mark, which goes too."""
    last = max(index for index, item in enumerate(stack) if isinstance(item, _Mark))
    items = stack[last + 1 :]
    del stack[last:]
    return items


def _put(target: Any, items: list[Any]) -> None:
    keys = items[::2]
    if type(target) is not dict or not all(type(key) is str for key in keys):
        raise NotArrays("expected dictionaries with words as keys")
    target.update(zip(keys, items[1::2], strict=True))


def _named(said: str) -> _Name:
    if said not in NAMES:
        raise NotArrays(f"it asks for {said.replace(' ', '.')}, and only numpy arrays are read")
    return _Name(NAMES[said])


def _made(called: Any, arguments: Any) -> _Array | _Type:
    """What a name with its arguments stands for: an array yet to be filled, or a type."""
    said = called.said if isinstance(called, _Name) else type(called).__name__
    if said == ARRAY[1] and isinstance(arguments[0], _Name) and arguments[0].said == ARRAY[0]:
        return _Array()
    if said == ARRAY[2] and arguments[0] in TYPES:
        return _Type(arguments[0])
    raise NotArrays(f"it calls {said} with {arguments!r:.80}")


def _fill(target: Any, state: Any) -> None:
    if isinstance(target, _Type):
        if state[1] not in ("<", "|"):
            raise NotArrays(f"numbers in the byte order {state[1]!r}, expected '<'")
        target.known = True
    elif isinstance(target, _Array) and target.values is None:
        target.values = _array(*state)
    else:
        raise NotArrays(f"it changes a {type(target).__name__.strip('_').lower()} that it made")


def _array(version: int, shape: Any, kind: Any, by_column: Any, content: Any) -> np.ndarray:
    if not isinstance(kind, _Type) or not kind.known or type(content) is not bytes:
        raise NotArrays("an array without a type, or of objects")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise NotArrays(f"an array of shape {shape!r:.80}")
    dtype = np.dtype(kind.code).newbyteorder("<")
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise NotArrays(f"an array of shape {shape} of {dtype} in {len(content)} bytes")
    flat = np.frombuffer(content, dtype)
    turned = flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)
    return turned.copy(order="C")


def _flat(tree: Any, prefix: str, seen: set[int]) -> list[tuple[str, np.ndarray]]:
    """Every array with its path; a dictionary that lies in two places would have no end of them."""
    if isinstance(tree, _Array) and tree.values is not None and prefix:
        return [(prefix, tree.values)]
    if type(tree) is not dict or id(tree) in seen:
        raise NotArrays(f"expected a tree of arrays, found {type(tree).__name__} at {prefix!r}")
    seen.add(id(tree))
    inner = [_flat(value, f"{prefix}/{key}".strip("/"), seen) for key, value in tree.items()]
    return [pair for pairs in inner for pair in pairs]
