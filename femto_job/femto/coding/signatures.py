"""What kernels take: the types of their annotations, and how arguments lie ready for compiled code.

See `kernels`, the door through which all this is used.
"""

import functools
import itertools
import struct
import types
from collections.abc import Callable

import numpy as np


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
        return value.view(Plain)


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
    """A function whose loops are compiled; called by position. `road` gives the road that it takes,
    at its first call. See `kernels.kernel`."""

    def __init__(self, function: Callable, road: Callable):
        functools.update_wrapper(self, function)
        self.function, self._road = function, road
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
            variant.run = self._road().runner(variant)
        return variant.run(packed_slots, arguments)


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


class Plain(np.ndarray):
    """An array whose integers are read as int64, as in compiled code: narrower ones would
    overflow."""

    def __getitem__(self, index):
        value = super().__getitem__(index)
        return np.int64(value) if isinstance(value, np.integer) else value
