"""The one door to compiled code, and the three roads behind it.

A *kernel* is a function that Python calls and that may be compiled; what kernels call is
*inlined*. Both are written in Python, and where they run is decided once, at the first call:

- *library*: all kernels as one file of machine code, made by `python -m femto.build` and shipped in
  the wheel. It is loaded with ctypes; neither numba nor LLVM is imported.
- *compiler*: numba and LLVM compile each kernel when it is first called, and what they make is kept
  on disk: for development, and for machines that no library fits.
- *plain*: Python on NumPy arrays. The reference, and slow.

All three compute the same numbers. The environment variable FEMTO_JIT chooses plain (0) or compiler
(1); without it the library is taken if there is one for this machine and these very sources, or the
one that FEMTO_LIBRARY names, else the compiler if numba is installed.

What a kernel takes is said by its annotations alone: `int`, `float` and `bool`, `f32`, arrays as
`u8[:, :]` (in C order, and native), NamedTuples of these, and alternatives, `u8[:] | u16[:]` or
`None | Equations`; every choice of alternatives is a *variant* of the kernel, compiled on its own.
Kernels make no arrays: their callers hand in the room that they need.

All compiled kernels have one signature, `int32 NAME(const int64_t *arguments, int64_t *result)`,
and lie ready in eight bytes each: numbers as they are, a float32 in the first four bytes; of an
array the address of its first element, then its shape; of a NamedTuple its fields; of None nothing.
"""

import contextlib
import ctypes
import functools
import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import LaffError
from .libraries import library_name, places, targets, usable
from .signatures import (
    Copies,
    Kernel,
    Plain,
    Variant,
    called,
    f32,
    f64,
    i32,
    i64,
    inlined,
    only,
    packed,
    u8,
    u16,
    u32,
)

__all__ = [
    "called",
    "f32",
    "f64",
    "i32",
    "i64",
    "inlined",
    "kernel",
    "library",
    "lifted",
    "only",
    "packed",
    "plain",
    "road",
    "u8",
    "u16",
    "u32",
]


def kernel(function: Callable) -> Kernel:
    """Make a function a kernel: Python calls it, and it may be compiled.

    It runs without the GIL. No fastmath: every operation is rounded as written, so that all
    machines compute the same coefficients, and archives are identical wherever they are made.
    """
    return Kernel(function, road)


# --- the plain road --------------------------------------------------------------------------


class _Interpreter:
    """Runs kernels as they are written."""

    name = "plain"

    def __init__(self):
        self.copies = Copies(lambda function, copy: copy, lifted)

    def runner(self, variant: Variant) -> Callable:
        function, kinds = self.copies(variant.kernel.function), variant.kinds

        def run(_, arguments):
            values = (kind.plain(x) for kind, x in zip(kinds, arguments, strict=True))
            found = function(*values)
            return None if found is None else int(found)

        return run


def plain(function: Callable) -> Callable:
    """What a kernel or an inlined function does, in plain Python. Arrays have to be `lifted`."""
    return _interpreter().copies(getattr(function, "function", function))


def lifted(array: np.ndarray) -> np.ndarray:
    """A view of an array as the plain road sees it."""
    return array.view(Plain)


@functools.cache
def _interpreter() -> _Interpreter:
    return _Interpreter()


# --- compiled roads --------------------------------------------------------------------------

_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)


def _calls(function: Callable, variant: Variant) -> Callable:
    """How compiled code is called, without the GIL."""
    name = variant.name

    def run(slots: bytes, _) -> None:
        if status := function(slots, None):
            raise RuntimeError(f"{name} ended with status {status}")

    def run_for_result(slots: bytes, _) -> int:
        result = ctypes.c_int64()
        if status := function(slots, ctypes.addressof(result)):
            raise RuntimeError(f"{name} ended with status {status}")
        return result.value

    return run if variant.kernel.returns is None else run_for_result


class _Library:
    """Kernels that were compiled beforehand."""

    name = "library"

    def __init__(self, path: Path):
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def runner(self, variant: Variant) -> Callable:
        address = ctypes.cast(getattr(self._library, variant.name), ctypes.c_void_p).value
        return _calls(_PROTOTYPE(address), variant)


class _Compiler:
    """Kernels that are compiled when they are first called."""

    name = "compiler"

    def __init__(self):
        self._lock = threading.Lock()

    def runner(self, variant: Variant) -> Callable:
        from .. import build

        with self._lock:
            return _calls(_PROTOTYPE(build.address(variant)), variant)


def library() -> Path | None:
    """The compiled library that kernels take on this machine; None if none fits.

    That is the one that FEMTO_LIBRARY names, or else the best for this machine that there is, in
    the first of the `places` that has it. Raises LaffError if one is named and cannot be taken.
    """
    found = _find_library()
    return None if found is None else found.path


def _find_library() -> _Library | None:
    if named := os.environ.get("FEMTO_LIBRARY"):
        try:
            if usable(Path(named)):
                return _Library(Path(named))
            reason = "it is not made of femto's sources as they are here"
        except OSError as error:
            reason = str(error)
        remedy = "make it with python -m femto.build, or leave FEMTO_LIBRARY out"
        raise LaffError(f"FEMTO_LIBRARY={named} cannot be used: {reason}: {remedy}")
    for target in targets():
        with contextlib.suppress(OSError):  # of another C library, where nothing is executed, …
            for folder in places():
                if usable(folder / library_name(target)):
                    return _Library(folder / library_name(target))
    return None


_CHOOSING = threading.Lock()
_ROADS: list = []


def road():
    """The road that kernels take in this process. Raises LaffError if there is none."""
    if not _ROADS:
        with _CHOOSING:
            if not _ROADS:
                _ROADS.append(_choose(os.environ.get("FEMTO_JIT", "")))
    return _ROADS[0]


def _choose(wanted: str):
    if wanted not in ("", "0", "1"):
        raise LaffError(f"FEMTO_JIT={wanted} is not possible: set it to 0 or 1, or leave it out")
    if wanted == "0":
        return _interpreter()
    library = None if wanted == "1" else _find_library()
    if library is not None:
        return library
    if importlib.util.find_spec("numba") is None:
        machine = " or ".join(targets()) or "this machine"
        raise LaffError(
            f"femto has no compiled library for {machine} that fits its sources, and numba, which "
            "would compile it, is not installed: install femto's wheel for this machine again, or "
            "run pip install numba, or set FEMTO_JIT=0 (very slow)"
        )
    return _Compiler()
