"""Compile all kernels beforehand: python -m femto.build [--output FOLDER] [TARGET ...]

Makes one library for each target, by default those that run on this machine, in FOLDER, by default
beside the sources, where femto finds them whoever runs it. Needs numba, and to link the machine's
`cc` or, for other systems and processors, `ziglang` from PyPI; for wasm32 also binaryen's wasm-opt.
For x86-64 there are two, for processors of the levels v2 and v3: femto takes the better one that
runs.

numba's part is to make LLVM code of Python, in two processes; that is taken before anything is
optimised for the machine at hand, gets a C function around each kernel (see `coding.kernels`), and
is optimised for the target. Equal sources and versions of numba and LLVM give equal files.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm

from .coding import libraries, signatures
from .coding.libraries import cache_folder, fingerprint, library_name
from .coding.signatures import Variant
from .errors import LaffError
from .files.whole import write_whole


class Target(NamedTuple):
    """What a library is made for: LLVM's names of it, and zig's."""

    triple: str
    cpu: str
    features: str
    zig: str


_WASM = Target(
    "wasm64-unknown-unknown",
    "generic",
    "+bulk-memory,+mutable-globals,+nontrapping-fptoint,+sign-ext,+simd128",
    "",
)
TARGETS = {
    "linux-x86_64-v2": Target("x86_64-unknown-linux-gnu", "x86-64-v2", "", "x86_64-linux-gnu"),
    "linux-x86_64-v3": Target("x86_64-unknown-linux-gnu", "x86-64-v3", "", "x86_64-linux-gnu"),
    "linux-aarch64": Target("aarch64-unknown-linux-gnu", "generic", "", "aarch64-linux-gnu"),
    "windows-x86_64-v2": Target("x86_64-pc-windows-msvc", "x86-64-v2", "", "x86_64-windows-gnu"),
    "macos-arm64": Target("arm64-apple-macosx11.0.0", "apple-m1", "", "aarch64-macos.11.0"),
    "wasm64": _WASM,
    # numba lays memory out for addresses of 64 bits: these are shortened in what has been linked.
    "wasm32": _WASM,
}


# --- Python to LLVM --------------------------------------------------------------------------


@functools.cache
def _frontend():
    """numba, as far as it turns Python into LLVM code: `lowered(variant)`."""
    from llvmlite import ir
    from numba.core import codegen, cpu, registry, target_extension, types
    from numba.core.compiler_lock import global_compiler_lock
    from numba.np import arrayobj, numpy_support

    class Library(codegen.CPUCodeLibrary):
        """A module that is left as it was written."""

        def _optimize_functions(self, module):
            module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self):
            pass

        def _finalize_final_module(self):
            self._finalized = True

        def get_pointer_to_function(self, name):
            return 0

    class Codegen(codegen.AOTCPUCodegen):
        _library_class = Library

        def set_env(self, name, environment):
            pass

    class Context(cpu.CPUContext):
        def init(self):
            super().init()
            self._internal_codegen = Codegen("femto")

    class OwnTarget(registry.CPUTarget):
        @functools.cached_property
        def _toplevel_target_context(self):
            return Context(self.typing_context, self._target_name)

    class Femto(target_extension.CPU):
        """numba's name for where this code goes."""

    options = {
        "nopython": True,
        "_nrt": False,  # kernels make no arrays: what would need it is refused
        "error_model": "numpy",
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
    }

    def dispatcher(function, copy):
        inline = getattr(function, "inlined", False)
        return Dispatcher(copy, targetoptions=options | {"forceinline": inline})

    # What numba brings of its own, such as min, is to be compiled here, too.
    target_extension.target_registry["femto"] = Femto
    target_extension.jit_registry[Femto] = lambda **_: functools.partial(
        Dispatcher, targetoptions=options
    )

    class Dispatcher(registry.CPUDispatcher):
        targetdescr = OwnTarget("femto")

    target_extension.dispatcher_registry[Femto] = Dispatcher

    copies = signatures.Copies(dispatcher)
    scalars = {"i8": types.int64, "f4": types.float32, "f8": types.float64, "b1": types.boolean}

    def type_of(kind):
        if isinstance(kind, signatures.Nothing):
            return types.none
        if isinstance(kind, signatures.Struct):
            return types.NamedTuple([type_of(field) for field in kind.fields], kind.cls)
        if isinstance(kind, signatures.Array):
            return types.Array(numpy_support.from_dtype(kind.dtype), kind.ndim, "C")
        return scalars[kind.dtype.str[1:]]

    def argument(context, builder, kind, slot):
        """The value that numba's code gets, from the slots from `slot()` on."""
        ty = type_of(kind)
        if isinstance(kind, signatures.Nothing):
            return context.get_dummy_value()
        if isinstance(kind, signatures.Struct):
            parts = [argument(context, builder, field, slot) for field in kind.fields]
            return context.make_tuple(builder, ty, parts)
        if isinstance(kind, signatures.Array):
            array = context.make_array(ty)(context, builder)
            data = builder.inttoptr(slot(), array.data.type)
            shape = [slot() for _ in range(kind.ndim)]
            size = context.get_constant(types.intp, kind.dtype.itemsize)
            strides = [size]
            for length in shape[:0:-1]:
                strides.insert(0, builder.mul(strides[0], length))
            arrayobj.populate_array(array, data, shape, strides, size, meminfo=None)
            return array._getvalue()
        bits = slot()
        if ty == types.boolean:
            return builder.trunc(bits, context.get_value_type(ty))
        if ty == types.float32:
            bits = builder.trunc(bits, ir.IntType(32))
        return bits if ty == types.int64 else builder.bitcast(bits, context.get_value_type(ty))

    def lowered(variant: Variant) -> str:
        with global_compiler_lock:
            entry = copies(variant.kernel.function)
            signature = tuple(type_of(kind) for kind in variant.kinds)
            entry.compile(signature)
            compiled = entry.overloads[signature]
            description = compiled.fndesc
            if description.restype not in (types.none, types.int64):
                raise TypeError(f"{variant.name} returns {description.restype}, not int64")
            context = entry.targetdescr.target_context
            library = context.codegen().create_library(variant.name)
            module = library.create_ir_module(variant.name)
            slots = ir.IntType(64).as_pointer()
            function = ir.Function(
                module, ir.FunctionType(ir.IntType(32), [slots, slots]), variant.name
            )
            builder = ir.IRBuilder(function.append_basic_block())
            at = iter(range(1 << 20))

            def slot():
                address = builder.gep(function.args[0], [ir.Constant(ir.IntType(64), next(at))])
                return builder.load(address)

            values = [argument(context, builder, kind, slot) for kind in variant.kinds]
            callee = ir.Function(
                module,
                context.call_conv.get_function_type(description.restype, description.argtypes),
                description.llvm_func_name,
            )
            status, result = context.call_conv.call_function(
                builder, callee, description.restype, description.argtypes, values
            )
            if description.restype == types.int64:
                builder.store(result, function.args[1])
            # None as a result has a status of its own.
            ended = builder.select(status.is_error, status.code, ir.Constant(ir.IntType(32), 0))
            builder.ret(ended)
            library.add_ir_module(module)
            library.add_linking_library(compiled.library)
            library.finalize()
            return library.get_llvm_str()

    return lowered


# --- LLVM to machine code --------------------------------------------------------------------


@functools.cache
def _initialised() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _machine(target: Target):
    _initialised()
    reloc = "static" if target.triple.startswith("wasm") else "pic"
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc=reloc, codemodel="small"
    )


def _object(codes: list[str], exports: list[str], target: Target) -> bytes:
    """Optimised machine code, an object file, from LLVM code of several kernels."""
    machine = _machine(target)
    layout = str(machine.target_data)
    whole = None
    for code in codes:
        code = re.sub(r"target datalayout = .*", f'target datalayout = "{layout}"', code, count=1)
        code = re.sub(r"target triple = .*", f'target triple = "{target.triple}"', code, count=1)
        # Loops that fill memory stay loops: a call of memset would have to be found somewhere.
        code = re.sub(r"^(define .*)\{$", r'\1"no-builtins" {', code, flags=re.MULTILINE)
        module = llvm.parse_assembly(code)
        for variable in module.global_variables:
            if not variable.is_declaration:
                variable.linkage = "external" if variable.name in exports else "internal"
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    for function in whole.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in exports else "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(whole, passes)
    missing = sorted(
        f.name for f in whole.functions if f.is_declaration and not f.name.startswith("llvm.")
    )
    if missing:
        raise RuntimeError(f"kernels must not call {', '.join(missing)}")
    return machine.emit_object(whole)


# --- the compiler's road ---------------------------------------------------------------------


@functools.cache
def _host() -> tuple[Target, str]:
    """This machine, and a short name for what is compiled for it with these versions."""
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features().flatten()
    target = Target(triple, llvm.get_host_cpu_name(), features, "")
    what = (*target, llvmlite.__version__, importlib.metadata.version("numba"))
    return target, hashlib.sha256(repr(what).encode()).hexdigest()[:12]


_ENGINES: list = []
"""What keeps loaded code alive."""


def address(variant: Variant) -> int:
    """Where a kernel's code lies in memory; it is compiled if this account never did."""
    target, label = _host()
    folder = cache_folder()
    path = None if folder is None else folder / f"{variant.name}-{label}.o"
    if path is not None and path.is_file():
        data = path.read_bytes()
    else:
        for listener in signatures.LISTENERS:
            listener()
        data = _object([_frontend()(variant)], [variant.name], target)
        if path is not None:
            write_whole(path, data)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(target))
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _ENGINES.append(engine)
    return engine.get_function_address(variant.name)


# --- libraries -------------------------------------------------------------------------------


def all_variants() -> list[Variant]:
    """Everything that a library holds, in an order that is always the same."""
    for name in libraries.SOURCES:
        if name != "build.py":
            importlib.import_module(f".{name[:-3].replace('/', '.')}", __package__)
    found = [variant for kernel in signatures.KERNELS for variant in kernel.variants]
    return sorted(found, key=lambda variant: variant.name)


def build(names: list[str], folder: Path, say=lambda line: None) -> list[Path]:
    """Make the libraries of these targets in a folder; returns their paths. Raises LaffError.

    Those that this account has made of these sources before are copied from its cache, or else from
    where they lie, in this folder or in the package, if no other account could have written them.
    `say` gets a line if others are to be compiled, which takes time.
    """
    for name in names:
        if name not in TARGETS:
            raise LaffError(f"{name} is no target: choose of {', '.join(TARGETS)}")
    cache = cache_folder() or folder
    package = Path(__file__).resolve().parent / "_library"
    found = {name: _lying(library_name(name), folder, package) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        for name in missing:
            _linker(name)
        say(f"Compiling femto for {', '.join(missing)} (once: half a minute) ...")
        for name, made in zip(missing, _made(missing), strict=True):
            found[name] = cache / library_name(name)
            write_whole(found[name], made)
    for path in found.values():
        for place in {cache, folder} - {path.parent}:
            write_whole(place / path.name, path.read_bytes())
    return [folder / library_name(name) for name in names]


def _lying(name: str, *folders: Path) -> Path | None:
    """A library of this name that fits, of this account's cache or of one of these folders."""
    cache = cache_folder()
    if cache is not None and libraries.usable(cache / name):
        return cache / name
    lying = [folder / name for folder in folders]
    return next((p for p in lying if libraries.trusted(p) and libraries.usable(p)), None)


_MULTIPLY = """
define void @__multi3(ptr %out, i64 %a, i64 %a_high, i64 %b, i64 %b_high) {
  %a0 = and i64 %a, 4294967295
  %a1 = lshr i64 %a, 32
  %b0 = and i64 %b, 4294967295
  %b1 = lshr i64 %b, 32
  %p00 = mul i64 %a0, %b0
  %p01 = mul i64 %a0, %b1
  %p10 = mul i64 %a1, %b0
  %p11 = mul i64 %a1, %b1
  %carry = lshr i64 %p00, 32
  %middle = add i64 %p10, %carry
  %middle0 = and i64 %middle, 4294967295
  %middle1 = lshr i64 %middle, 32
  %other = add i64 %p01, %middle0
  %other1 = lshr i64 %other, 32
  %low = mul i64 %a, %b
  %high0 = add i64 %p11, %middle1
  %high1 = add i64 %high0, %other1
  %crossed0 = mul i64 %a, %b_high
  %crossed1 = mul i64 %a_high, %b
  %high2 = add i64 %high1, %crossed0
  %high = add i64 %high2, %crossed1
  store i64 %low, ptr %out
  %second = getelementptr i64, ptr %out, i64 1
  store i64 %high, ptr %second
  ret void
}
"""
"""Products of 128 bits for WebAssembly, which LLVM makes of loops that add up numbers, and leaves
to a library of C."""


_HALF = ".coding.kstrings"
"""The module whose kernels take numba as long as all others together."""


def _lowered(names: list[str]) -> list[str]:
    """LLVM code of these variants, for a process of its own."""
    variants = {variant.name: variant for variant in all_variants()}
    return [_frontend()(variants[name]) for name in names]


def _codes(variants: list[Variant]) -> list[str]:
    """LLVM code of these variants: half of it from a second process, on however many cores, for
    numba numbers what it compiles in a process and these numbers become part of the code."""
    first, second = [], []
    for variant in variants:
        half = variant.kernel.function.__module__.endswith(_HALF)
        (first if half else second).append(variant.name)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        others = pool.submit(_lowered, second)
        return _lowered(first) + others.result()


def _made(names: list[str]):
    """The libraries of these targets, one after the other."""
    variants = all_variants()
    exports = [variant.name for variant in variants] + ["femto_fingerprint"]
    mark = 'target datalayout = ""\ntarget triple = ""\n'
    mark += f'@femto_fingerprint = constant [65 x i8] c"{fingerprint()}\\00"\n'
    # On Windows, what computes with floats asks for this name.
    extra = {"windows": "@_fltused = constant i32 0\n", "wasm32": _MULTIPLY, "wasm64": _MULTIPLY}
    codes = _codes(variants)
    for name in names:
        own = [mark + extra.get(name.partition("-")[0], ""), *codes]
        with tempfile.TemporaryDirectory() as scratch:
            compiled, linked = Path(scratch, "kernels.o"), Path(scratch, library_name(name))
            compiled.write_bytes(_object(own, [*exports, "_fltused", "__multi3"], TARGETS[name]))
            _link(name, compiled, linked, exports)
            yield linked.read_bytes()


def _linker(name: str) -> list[str]:
    """The command that links for a target. Raises LaffError if there is none."""
    here = name.startswith("linux") and name.startswith(libraries.machine())
    if here and (compiler := shutil.which("cc")):
        return [compiler]
    if name == "wasm32" and shutil.which("wasm-opt") is None:
        raise LaffError("wasm32 takes wasm-opt: npm install binaryen, and have it in PATH")
    if importlib.util.find_spec("ziglang") is None:
        raise LaffError(
            f"there is no linker for {name}: install a C compiler if that is this machine, "
            "else run pip install ziglang"
        )
    zig = [sys.executable, "-m", "ziglang"]
    if name.startswith("wasm"):
        return [*zig, "wasm-ld"]
    if name.startswith("windows"):
        return [*zig, "lld-link"]
    return [*zig, "cc", "-target", TARGETS[name].zig]


def _link(name: str, compiled: Path, linked: Path, exports: list[str]) -> None:
    """Make a library of an object file. Raises LaffError if that is not possible."""
    # What it exports needs nothing, not even a C library.
    output = ["-o", linked]
    if name.startswith("wasm"):
        options = ["-mwasm64", "--no-entry", "--strip-all", "-z", "stack-size=1048576"]
        options += [f"--export={symbol}" for symbol in (*exports, "__heap_base")]
    elif name.startswith("windows"):
        options = ["/dll", "/noentry", "/nodefaultlib", "/brepro"]
        options += [f"/export:{symbol}" for symbol in exports[:-1]]
        options += [f"/export:{exports[-1]},DATA"]
        output = [f"/out:{linked}"]
    elif name.startswith("macos"):
        options = ["-shared", "-nostdlib", "-s", f"-Wl,-install_name,@rpath/{linked.name}"]
    else:
        options = ["-shared", "-nostdlib", "-s", "-Wl,--build-id=none", "-Wl,-z,defs"]
    _run(name, [*_linker(name), *options, *output, compiled])
    if name == "wasm32":
        _run(name, ["wasm-opt", "--all-features", "--memory64-lowering", *output, linked])


def _run(name: str, command: list) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LaffError(f"{name} could not be linked: {last}")


def _place() -> Path | None:
    """Where femto finds libraries: beside its sources, or if that is not possible in this account's
    cache; None if there is no place to write."""
    package = Path(__file__).resolve().parent
    return package / "_library" if os.access(package, os.W_OK) else cache_folder()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m femto.build",
        description="Compile femto's kernels beforehand.",
    )
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="what to compile for, by default what runs on this machine; native: what runs best "
        f"on it; {', '.join(TARGETS)}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where the libraries go, by default where femto looks for them",
    )
    options = parser.parse_args(arguments)
    folder = options.output or _place()
    try:
        if folder is None:
            raise LaffError("there is no folder to write to: name one with --output")
        folder.mkdir(parents=True, exist_ok=True)
        here = libraries.targets()
        if not here and not set(options.targets) - {"native"}:
            raise LaffError("nothing can be compiled for this machine: name a target")
        names = [here[0] if name == "native" else name for name in options.targets or here]
        for path in build(names, folder, functools.partial(print, file=sys.stderr, flush=True)):
            print(f"femto is compiled: {path}")
    except (LaffError, OSError) as error:
        print(f"femto.build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
