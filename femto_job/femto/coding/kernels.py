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
import hashlib
import importlib.resources
import importlib.util
import itertools
import os
import stat
import struct
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import LaffError
from ..files.whole import write_whole

SOURCES = (
    "build.py", "coding/blocks.py", "coding/cells.py", "coding/classes.py", "coding/contexts.py",
    "coding/entropy.py", "coding/equations.py", "coding/first_layer.py", "coding/kernels.py",
    "coding/kstrings.py", "coding/model.py", "coding/partition.py", "coding/restore.py",
    "learning/feature_map.py",
)  # fmt: skip
"""The modules that hold kernels, or constants that are compiled into them."""
_FEMTO = __package__.partition(".")[0]
"""The package that they are in."""


# --- what kernels take -----------------------------------------------------------------------


class Scalar:
    """The type of a number, or with dimensions, `i32[:, :]`, that of an array of them."""

    def __init__(self, dtype, code: str = ""):
        self.dtype, self.code = np.dtype(dtype), code
        self.name = f"{self.dtype.kind}{8 * self.dtype.itemsize}"

    def __repr__(self) -> str:
        return self.name

    def __getitem__(self, dimensions) -> "Array":
        return Array(self.dtype, len(dimensions) if isinstance(dimensions, tuple) else 1)

    def put(self, value, slots: list) -> None:
        """Add what compiled code gets of a value."""
        slots.append(value)

    def fits(self, value) -> bool:
        """Whether a value is of this alternative."""
        return isinstance(value, (bool, int, float, np.number))

    def plain(self, value):
        """The value for the plain road: numbers that compute as compiled ones do."""
        return self.dtype.type(value)


class _Bool(Scalar):
    def put(self, value, slots: list) -> None:
        slots.append(bool(value))

    def plain(self, value):
        return bool(value)


class Array:
    """The type of an array."""

    def __init__(self, dtype: np.dtype, ndim: int):
        self.dtype, self.ndim = dtype, ndim
        self.code = "q" * (1 + ndim)
        self.name = f"{dtype.kind}{8 * dtype.itemsize}"

    def __repr__(self) -> str:
        return f"{self.name}[{', '.join(':' * self.ndim)}]"

    def __or__(self, other) -> "Alternatives":
        return Alternatives((self, other))

    def fits(self, value) -> bool:
        return (
            isinstance(value, np.ndarray)
            and value.dtype == self.dtype
            and value.ndim == self.ndim
            and value.flags.c_contiguous
        )

    def put(self, value, slots: list) -> None:
        if not self.fits(value):
            raise TypeError(f"{_described(value)} where an array {self} in C order is wanted")
        slots.append(value.ctypes.data)
        slots.extend(value.shape)

    def plain(self, value):
        return value.view(_Plain)


class Alternatives(tuple):
    """Types of which a parameter has one."""

    def __or__(self, other) -> "Alternatives":
        return Alternatives((*self, other))


class Nothing:
    """The type of None."""

    code = ""

    def __repr__(self) -> str:
        return "None"

    def fits(self, value) -> bool:
        return value is None

    def put(self, value, slots: list) -> None:
        if value is not None:
            raise TypeError(f"{_described(value)} where None is wanted")

    def plain(self, value) -> None:
        return None


class Struct:
    """The type of a NamedTuple, by the types of its fields."""

    def __init__(self, cls: type, fields: tuple):
        self.cls, self.fields = cls, fields
        self.code = "".join(field.code for field in fields)

    def __repr__(self) -> str:
        return self.cls.__name__

    def fits(self, value) -> bool:
        if isinstance(value, packed):
            value = value.value
        return isinstance(value, self.cls) and all(
            field.fits(part)
            for field, part in zip(self.fields, value, strict=True)
            if isinstance(field, (Nothing, Scalar))
        )

    def put(self, value, slots: list) -> None:
        if isinstance(value, packed):
            slots += value.slots(self)
            return
        if not isinstance(value, self.cls):
            raise TypeError(f"{_described(value)} where {self} is wanted")
        for name, field, part in zip(self.cls._fields, self.fields, value, strict=True):
            try:
                field.put(part, slots)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None

    def plain(self, value):
        if isinstance(value, packed):
            value = value.value
        return self.cls(*(f.plain(part) for f, part in zip(self.fields, value, strict=True)))


class packed:
    """A NamedTuple, to be given to many calls of kernels: what they get of it is worked out once.

    Its arrays must stay what they are; what they hold may change.
    """

    def __init__(self, value):
        self.value = value
        self._slots: list | None = None

    def slots(self, kind: Struct) -> list:
        if self._slots is None:
            slots: list = []
            kind.put(self.value, slots)
            self._slots = slots
        return self._slots

    def __reduce__(self):
        return packed, (self.value,)  # addresses are of one process


def _described(value) -> str:
    if isinstance(value, np.ndarray):
        order = "" if value.flags.c_contiguous else ", not in C order"
        return f"an array {value.dtype} {value.shape}{order}"
    return f"{type(value).__name__}"


u8, u16, u32 = (Scalar(t) for t in ("u1", "u2", "u4"))
i32, i64 = Scalar("i4"), Scalar("i8")
f32, f64 = Scalar("f4", "f4x"), Scalar("f8", "d")
_INT, _BOOL, _NONE = Scalar("i8", "q"), _Bool("?", "q"), Nothing()
_BUILTIN = {int: _INT, float: f64, bool: _BOOL, None: _NONE, type(None): _NONE}


class only:
    """A NamedTuple with one of the alternatives that a field has: `only(Coder, encoding=bool)`."""

    def __init__(self, cls: type, **fields):
        self.cls, self.fields = cls, fields


def _kinds(annotation, name: str) -> list[tuple[str, object]]:
    """The alternatives that an annotation stands for, and what each adds to a variant's name."""
    if annotation in _BUILTIN:
        return [("", _BUILTIN[annotation])]
    if isinstance(annotation, types.UnionType):
        annotation = Alternatives(annotation.__args__)
    if isinstance(annotation, Alternatives):
        found = []
        for member in annotation:
            (_, kind), *more = _kinds(member, name)
            assert not more, f"{name}: alternatives within alternatives"
            label = f"no_{name}" if kind is _NONE else name
            found.append((f"_{kind.name if isinstance(kind, Array) else label}", kind))
        return found
    if isinstance(annotation, (Scalar, Array)):
        return [("", annotation)]
    given = {}
    if isinstance(annotation, only):
        annotation, given = annotation.cls, annotation.fields
    fields = [
        _kinds(given.get(field, annotation.__annotations__[field]), field)
        for field in annotation._fields
    ]
    return [
        ("".join(label for label, _ in choice), Struct(annotation, tuple(k for _, k in choice)))
        for choice in itertools.product(*fields)
    ]


# --- kernels ---------------------------------------------------------------------------------

KERNELS: list["Kernel"] = []
"""All kernels of the modules that are imported."""
LISTENERS: list[Callable[[], None]] = []
"""Called whenever a kernel is about to be compiled in this process, which takes seconds."""


class Variant:
    """A kernel for one choice of alternatives: what is compiled under one name."""

    def __init__(self, kernel: "Kernel", name: str, kinds: tuple):
        self.kernel, self.name, self.kinds = kernel, name, kinds
        self.pack = struct.Struct("<" + "".join(kind.code for kind in kinds)).pack
        self.run: Callable | None = None


class Kernel:
    """A function whose loops are compiled; called by position. See `kernel`."""

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self.function = function
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.returns = function.__annotations__.get("return")
        assert self.returns in (None, int), f"{function.__name__}: returns int or nothing"
        module = function.__module__.rpartition(".")[2]
        self.name = f"{module}_{function.__name__.strip('_')}"
        self._parameters = names
        KERNELS.append(self)

    @functools.cached_property
    def _kinds(self) -> list[list]:
        # Later than the decorator: NamedTuples may be defined below.
        return [_kinds(self.function.__annotations__[name], name) for name in self._parameters]

    @functools.cached_property
    def variants(self) -> list[Variant]:
        found = []
        for choice in itertools.product(*self._kinds):
            name = self.name + "".join(label for label, _ in choice)
            found.append(Variant(self, name, tuple(kind for _, kind in choice)))
        return found

    def bind(self, arguments: tuple) -> tuple[Variant, list]:
        """The variant for these arguments, and its slots. Raises TypeError."""
        if len(arguments) != len(self._parameters):
            raise TypeError(
                f"{self.name} takes {len(self._parameters)} arguments, not {len(arguments)}"
            )
        index, slots = 0, []
        for name, kinds, value in zip(self._parameters, self._kinds, arguments, strict=True):
            at = 0
            if len(kinds) > 1:
                fitting = (n for n, (_, kind) in enumerate(kinds) if kind.fits(value))
                index, at = index * len(kinds), next(fitting, 0)
                index += at
            try:
                kinds[at][1].put(value, slots)
            except TypeError as error:
                raise TypeError(f"{self.name}: {name}: {error}") from None
        return self.variants[index], slots

    def __call__(self, *arguments):
        variant, slots = self.bind(arguments)
        try:
            packed_slots = variant.pack(*slots)
        except struct.error as error:
            raise TypeError(f"{variant.name}: {error}") from None
        if variant.run is None:
            variant.run = road().runner(variant)
        return variant.run(packed_slots, arguments)


def kernel(function: Callable) -> Kernel:
    """Make a function a kernel: Python calls it, and it may be compiled.

    It runs without the GIL. No fastmath: every operation is rounded as written, so that all
    machines compute the same coefficients, and archives are identical wherever they are made.
    """
    return Kernel(function)


def inlined(function: Callable) -> Callable:
    """Mark a function that kernels call: it is always merged into its callers."""
    function.inlined = True
    return function


def called(function: Callable) -> Callable:
    """Mark a larger function that kernels call: the compiler judges whether to merge it."""
    function.inlined = False
    return function


class Copies:
    """Copies of kernels and of what they call, which call each other.

    `wrap(function, copy)` makes what stands for a function in the others; `constant(array)` what
    stands for an array of their modules.
    """

    def __init__(self, wrap: Callable, constant: Callable = lambda array: array):
        self._wrap, self._constant = wrap, constant
        self.made: dict[Callable, object] = {}

    def __call__(self, function: Callable):
        """The copy of a function."""
        if function in self.made:
            return self.made[function]
        own = {"__builtins__": __builtins__, "__name__": function.__module__}
        copy = types.FunctionType(function.__code__, own, function.__name__)
        copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
        self.made[function] = self._wrap(function, copy)
        for name in function.__code__.co_names:
            if name in function.__globals__:  # else an attribute, or a builtin
                value = function.__globals__[name]
                if isinstance(value, np.ndarray):
                    value = self._constant(value)
                elif hasattr(value, "inlined"):
                    value = self(value)
                own[name] = value
        return self.made[function]


# --- the plain road --------------------------------------------------------------------------


class _Plain(np.ndarray):
    """An array whose integers are read as int64, as in compiled code: narrower ones would
    overflow."""

    def __getitem__(self, index):
        value = super().__getitem__(index)
        return np.int64(value) if isinstance(value, np.integer) else value


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
    return array.view(_Plain)


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


@functools.cache
def fingerprint() -> str:
    """SHA-256 of the sources that compiled code is made from; "" if they are not there."""
    digest = hashlib.sha256()
    package = importlib.resources.files(_FEMTO)
    try:
        for name in SOURCES:
            digest.update(name.encode() + b"\0" + (package / name).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def _private_folder(path: Path) -> bool:
    """Make `path` a folder that only this user can write, and say whether that succeeded.

    What lies there is executed, so a folder that another account could have filled (below /tmp,
    say) must not be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return False
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            return False
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


@functools.cache
def cache_folder() -> Path | None:
    """This account's folder for code compiled from these sources; None if there is no place to
    write.

    It is named after the sources' content, so that an update in place can never run stale code, and
    equal copies (an installation, the link to it, the zip that Spark brings) compile once for an
    account.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = []
    if os.environ.get("FEMTO_CACHE"):
        candidates.append(Path(os.environ["FEMTO_CACHE"]))
    if os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(os.environ["XDG_CACHE_HOME"]) / "femto")
    if os.environ.get("HOME") and Path(os.environ["HOME"]).is_dir():
        candidates.append(Path(os.environ["HOME"]) / ".cache" / "femto")
    candidates.append(Path(tempfile.gettempdir()) / f"femto-{user}")
    for folder in candidates:
        # Both levels: whoever could rename the inner folder could replace it.
        inner = folder / fingerprint()[:16]
        if _private_folder(folder) and _private_folder(inner):
            return inner
    return None


_V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}


def _cpu_flags() -> set[str] | None:
    """What Linux says the processor can; None where that cannot be told."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("flags"):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return None


def machine() -> str:
    """This machine's system and processor, as the names of targets begin."""
    name = os.uname().machine if hasattr(os, "uname") else os.environ["PROCESSOR_ARCHITECTURE"]
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name.lower())
    return f"{'windows' if sys.platform == 'win32' else sys.platform}-{name}"


def targets() -> list[str]:
    """Names of the targets of `build` whose libraries run on this machine, best first.

    Only such as all golden archives were coded with: none on macOS.
    """
    if sys.maxsize < 1 << 32 or sys.byteorder != "little":
        return []
    here = machine()
    if here == "linux-aarch64":
        return [here]
    flags = _cpu_flags()
    levels = [("v3", flags is not None and flags >= _V3), ("v2", flags is None or flags >= _V2)]
    names = {"linux-x86_64": ("v3", "v2"), "windows-x86_64": ("v2",)}.get(here, ())
    return [f"{here}-{level}" for level, fits in levels if fits and level in names]


def library_name(target: str) -> str:
    """The file name of a target's library."""
    suffix = {"macos": "dylib", "windows": "dll", "wasm32": "wasm", "wasm64": "wasm"}
    return f"{target}.{suffix.get(target.partition('-')[0], 'so')}"


def usable(path) -> bool:
    """Whether a file is a library made from these sources: it says so itself."""
    return path.is_file() and bool(fingerprint()) and fingerprint().encode() in path.read_bytes()


def library() -> Path | None:
    """The compiled library that kernels take on this machine; None if none fits.

    That is the one that FEMTO_LIBRARY names; else one that came with the package, or with another
    of these very sources in `sys.path`, where this one is a zip from another kind of machine; else
    one that this account made. Raises LaffError if the one that is named cannot be taken.
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
    package = importlib.resources.files(_FEMTO)
    packages = [package, *(Path(entry, _FEMTO) for entry in sys.path if entry)]
    for target in targets():
        name = library_name(target)
        shipped = [folder / "_library" / name for folder in packages]
        with contextlib.suppress(OSError):  # of another C library, where nothing is executed, …
            for path in shipped:
                if isinstance(path, Path) and usable(path):
                    return _Library(path)
            folder = cache_folder()
            if folder is None:
                continue
            kept = folder / name
            if not isinstance(package, Path) and usable(shipped[0]):  # in a zip
                data = shipped[0].read_bytes()
                if not kept.is_file() or kept.read_bytes() != data:
                    write_whole(kept, data)
            if usable(kept):
                return _Library(kept)
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
