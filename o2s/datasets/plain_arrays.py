"""Pickles and .npy files of other people's making, read without running what stands in them.

A pickle is a little program: it may name any function of any installed package and call it. Here
it can call nothing but the stand-ins below, which make arrays, numbers and texts and check what
they are given. Anything else in it is an InputError. numpy's own functions are not called either:
they trust the state that a pickle hands them.

    .npy of numbers          an array
    .npy of Python objects   what the array holds: a mapping (0 dimensions) or a list (1 dimension)
    .pkl, .dat               lists, mappings, texts, numbers and arrays
"""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from o2s.errors import InputError
from o2s.io.cloud import quote, require_file


def read_pickle(path: Path, expected: str, instead: str = "") -> Any:
    """What a pickle of lists, mappings, texts, numbers and numpy arrays holds.

    Args:
        path: the file.
        expected: what it should be, for messages.
        instead: what a user can do if the file asks for code, for the message.

    Raises:
        InputError: the file is missing or damaged, or asks for anything else than plain data.
    """
    require_file(path, expected)
    try:
        with path.open("rb") as file:
            return _load(file, path, expected, instead)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_npy(path: Path, expected: str, instead: str = "") -> Any:
    """The array of a .npy file, or the objects that it holds; see the top of this file.

    Raises:
        InputError: as `read_pickle`.
    """
    require_file(path, expected)
    try:
        with path.open("rb") as file:
            if _holds_objects(file):
                return _load(file, path, expected, instead)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # a damaged header: numpy parses it as Python and passes any error on
        raise InputError(
            f"{path}: not a .npy file, or a damaged one; expected {expected}"
        ) from None


def read_npz(path: Path, key: str, expected: str) -> np.ndarray:
    """One array of numbers out of a .npz file.

    Raises:
        InputError: the file is missing or damaged, or has no such array of numbers.
    """
    require_file(path, expected)
    try:
        with np.load(path, allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            if key not in held:
                there = ", ".join(map(quote, held)) or "none"
                raise InputError(f"{path}: no array {quote(key)}, there are {there}")
            return held[key]
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # of zipfile, zlib, or of the header
        raise InputError(
            f"{path}: not a .npz file, or a damaged one; expected {expected}"
        ) from None


def _holds_objects(file: BinaryIO) -> bool:
    """Whether an array of Python objects follows; the file then stands at their pickle."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        _, _, dtype = np.lib.format.read_array_header_2_0(file)
    return dtype.hasobject


class _CodeError(Exception):
    """A pickle asks for something that is no plain data."""


def _load(file: BinaryIO, path: Path, expected: str, instead: str) -> Any:
    try:
        # Pickles that Python 2 wrote hold bytes as texts, which latin1 leaves as they are.
        return _values(_PlainUnpickler(file, encoding="latin1").load())
    except _CodeError as error:
        advice = f"; {instead}" if instead else ""
        raise InputError(
            f"{path}: a pickle that asks for {quote(error)}, which may run code, and there is no "
            f"--trust-pickle here; expected arrays, numbers and texts{advice}"
        ) from None
    except OSError:
        raise
    except Exception:  # a damaged stream may raise anything: pickle promises nothing
        raise InputError(f"{path}: not a pickle of plain data; expected {expected}") from None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        module_name = module_name.replace("numpy._core.", "numpy.core.")
        made = _STAND_INS.get((module_name, global_name))
        if made is None:
            raise _CodeError(f"{module_name}.{global_name}")
        return _Function(made)


class _Function:
    """What stands for a function that a pickle names. Its state cannot be set."""

    __slots__ = ("_made",)

    def __init__(self, made: Callable[..., Any]) -> None:
        self._made = made

    def __call__(self, *arguments: Any) -> Any:
        return self._made(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


class _Dtype:
    """A dtype of numbers, texts or objects, until its byte order is known."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufc][1248]|c16|[SUO]\d{1,9}", code):
            raise pickle.UnpicklingError("a dtype that is none of numbers, texts and objects")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype of several parts")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.code[0] == "O"

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)  # pyright: ignore[reportArgumentType]


class _Array:
    """An array, until its content is known."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: Any = None

    def __setstate__(self, state: Any) -> None:
        *_, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array without dtype and shape")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise pickle.UnpicklingError("an array without a shape")
        if dtype.is_object:
            if not isinstance(content, list) or len(content) != math.prod(shape) or len(shape) > 1:
                raise pickle.UnpicklingError("an array of objects of another shape")
            self.held = content if shape else content[0]
            return
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("an array without bytes")
        if len(content) != math.prod(shape) * dtype.dtype().itemsize:
            raise pickle.UnpicklingError("an array of another size")
        flat = np.frombuffer(content, dtype.dtype()) if content else np.zeros(0, dtype.dtype())
        self.held = flat.reshape(shape, order="F" if order == "F" else "C")


def _values(held: Any) -> Any:
    """The same with arrays in the place of what stands for them."""
    if isinstance(held, _Array):
        return held.held if isinstance(held.held, np.ndarray) else _values(held.held)
    if isinstance(held, list):
        return [_values(value) for value in held]
    if isinstance(held, tuple):
        return tuple(_values(value) for value in held)
    if isinstance(held, dict):
        return {key: _values(value) for key, value in held.items()}
    if isinstance(held, _Function | _Dtype):
        raise pickle.UnpicklingError("a function or a dtype in the place of data")
    return held


def _empty_array(*arguments: Any) -> _Array:
    return _Array()


def _array_of_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    if axes is not None:
        raise pickle.UnpicklingError("an array with its axes in another order")
    array = _Array()
    array.fill(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    array = _Array()
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        raise pickle.UnpicklingError("a number that is none")
    array.fill(content, dtype, (), "C")
    return array.held[()]


def _bytes_of_text(text: Any = "", encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes of another encoding")
    return text.encode("latin1")


def _dtype(code: Any, *flags: Any) -> _Dtype:
    return _Dtype(code)


def _never(*arguments: Any) -> Any:
    raise pickle.UnpicklingError("an array made in another way")


# What numpy's arrays and numbers name when they are pickled, in the protocols 0 to 5.
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("numpy", "ndarray"): _never,  # an argument of _reconstruct alone
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _bytes_of_text,
    ("__builtin__", "bytes"): _bytes_of_text,
    ("builtins", "bytes"): _bytes_of_text,
}
