# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
openpi's messages: msgpack, with arrays of numbers as maps of their bytes.

Nothing but plain values and arrays of numbers, booleans and text is packed or unpacked: no pickle,
no extension type, no object. openpi's ``msgpack_numpy.py`` is what the bytes are equal to.
"""

from collections.abc import Mapping
import math
from typing import Any

import msgpack
import numpy as np

ARRAY, SCALAR = b'__ndarray__', b'__npgeneric__'
KINDS = 'biufSU'   # of arrays; openpi's packer refuses V, O and c
MOST = 2**25       # bytes of a message: twelve cameras of 640 x 480, raw
LONGEST = 1024     # lists and maps
DEEPEST = 16       # maps and lists inside each other


class WireError(ValueError):
    """A message is none of the protocol's."""


def pack(tree: Any) -> bytes:
    """
    Return a message.

    :param tree: maps, lists, text, bytes, numbers, booleans, None, and arrays.
    :raises WireError: something else is in it.
    """
    try:
        return msgpack.packb(tree, default=_packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f'this cannot be sent: {error}') from error


def _packed(value: object) -> dict[bytes, object]:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f'{type(value).__name__} is none of the types of the protocol')
    if value.dtype.kind not in KINDS:
        raise ValueError(f'an array of {value.dtype} is none of the types of the protocol')
    if isinstance(value, np.ndarray):
        return {ARRAY: True, b'data': value.tobytes(), b'dtype': value.dtype.str,
                b'shape': value.shape}
    return {SCALAR: True, b'data': value.item(), b'dtype': value.dtype.str}


def unpack(message: bytes | str) -> dict[Any, Any]:
    """
    Return the map in a message; its arrays are read-only.

    :raises WireError: it is none, too long, too deep, or has something that is refused.
    """
    if isinstance(message, str):
        raise WireError(f'text {message[:80]!r}, expected a map')
    if len(message) > MOST:
        raise WireError(f'{len(message)} bytes, allowed are {MOST}')
    try:
        tree = msgpack.unpackb(message, object_hook=_unpacked, ext_hook=_refuse, raw=False,
                               strict_map_key=False, max_ext_len=0, max_array_len=LONGEST,
                               max_map_len=LONGEST)
    except WireError:
        raise
    except Exception as error:  # msgpack raises its own, and those of Python, RecursionError too
        raise WireError(f'it cannot be read ({type(error).__name__}: {error})') from error
    if not isinstance(tree, dict):
        raise WireError(f'it is a {type(tree).__name__}, expected a map')
    _require_shallow(tree, DEEPEST)
    return tree


def _refuse(code: int, data: bytes) -> object:
    raise WireError(f'extension type {code} is refused')


def _unpacked(value: Mapping) -> object:
    if ARRAY in value:
        return _array(value)
    if SCALAR in value:
        kind = _kind(value.get(b'dtype'))
        try:
            return kind.type(value.get(b'data'))
        except (TypeError, ValueError, OverflowError) as error:
            raise WireError(f'a number is damaged: {error}') from error
    return value


def _array(value: Mapping) -> np.ndarray:
    kind, data, shape = _kind(value.get(b'dtype')), value.get(b'data'), value.get(b'shape')
    if not isinstance(data, bytes) or not isinstance(shape, list) or not all(
            isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in shape):
        raise WireError(f'an array is damaged: its shape is {shape!r}')
    if len(data) != math.prod(shape) * kind.itemsize or len(shape) > DEEPEST:
        raise WireError(f'an array of shape {shape} and type {kind.str} has {len(data)} bytes')
    return np.ndarray(tuple(shape), kind, data)


def _kind(text: object) -> np.dtype:
    """Return the type of an array, one of numbers, booleans and text."""
    try:
        out = np.dtype(text if isinstance(text, str) else str(text, 'ascii'))
    except (TypeError, ValueError, SyntaxError) as error:
        raise WireError(f'an array has type {text!r}, which is none') from error
    if out.kind not in KINDS or out.names:
        raise WireError(f'an array has type {out}, which is refused')
    return out


def _require_shallow(tree: object, left: int) -> None:
    if not left:
        raise WireError(f'it is more than {DEEPEST} deep')
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for value in inner:
        _require_shallow(value, left - 1)
