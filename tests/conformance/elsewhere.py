"""Roads for tests: kernels that run in another memory than Python, under an emulator or in a
WebAssembly runtime. What they take is copied there before each call, and back after it. Besides, a
reader of libraries that cannot run here."""

import ctypes
import struct
import subprocess
from pathlib import Path

import numpy as np

from femto.coding import signatures

HOST = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <malloc.h>
#include <windows.h>
#define dlopen(name, how) ((void *)LoadLibraryA(name))
#define dlsym(library, name) ((void *)GetProcAddress((HMODULE)(library), name))
#define dlerror() "it cannot be loaded"
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define aligned_free _aligned_free
#else
#include <dlfcn.h>
#define aligned_free free
#endif
static void take(void *to, size_t n) { if (n && fread(to, 1, n, stdin) != n) exit(0); }
static void give(void *from, size_t n) { fwrite(from, 1, n, stdout); }
int main(int count, char **names) {
#ifdef _WIN32
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
#endif
    void *library = dlopen(names[1], RTLD_NOW);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    for (;;) {
        int64_t head[3], answer[2] = {0, 0};
        char name[256] = "";
        take(head, sizeof head); /* lengths of: name, slots, arrays */
        take(name, head[0]);
        int64_t *slots = calloc(head[1] + 1, 8), *arrays = calloc(2 * head[2] + 1, 8);
        take(slots, 8 * head[1]);
        take(arrays, 16 * head[2]); /* of each: its slot, its bytes */
        for (int64_t i = 0; i < head[2]; i++) {
            void *data = aligned_alloc(64, (arrays[2 * i + 1] + 64) / 64 * 64);
            take(data, arrays[2 * i + 1]);
            slots[arrays[2 * i]] = (int64_t)data;
        }
        int32_t (*kernel)(int64_t *, int64_t *);
        *(void **)&kernel = dlsym(library, name);
        if (!kernel) { fprintf(stderr, "no %s\n", name); return 1; }
        answer[0] = kernel(slots, answer + 1);
        give(answer, sizeof answer);
        for (int64_t i = 0; i < head[2]; i++) {
            void *data = (void *)slots[arrays[2 * i]];
            give(data, arrays[2 * i + 1]);
            aligned_free(data);
        }
        fflush(stdout);
        free(slots);
        free(arrays);
    }
}
"""
"""Runs kernels of a library for whoever writes to its standard input."""


def _arrays(kind, value, at: int):
    """The arrays among a kernel's arguments, each with its slot."""
    if isinstance(value, signatures.packed):
        value = value.value
    if isinstance(kind, signatures.Array):
        yield at, value
    elif isinstance(kind, signatures.Struct):
        for field, part in zip(kind.fields, value, strict=True):
            yield from _arrays(field, part, at)
            at += struct.calcsize("<" + field.code) // 8


class Elsewhere:
    """A road through another memory."""

    name = "elsewhere"

    def runner(self, variant):
        def run(slots: bytes, arguments):
            found, at = [], 0
            for kind, value in zip(variant.kinds, arguments, strict=True):
                found += _arrays(kind, value, at)
                at += struct.calcsize("<" + kind.code) // 8
            status, result = self.call(variant.name, slots, found)
            assert status == 0, f"{variant.name} ended with status {status}"
            return None if variant.kernel.returns is None else result

        return run


def _put_back(array: np.ndarray, data: bytes) -> None:
    after = np.frombuffer(data, array.dtype).reshape(array.shape)
    if array.flags.writeable:
        array[...] = after
    else:
        assert (after == array).all(), "a kernel wrote into what cannot be written"


class Emulated(Elsewhere):
    """A library for another processor, under an emulator."""

    def __init__(self, command: list):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, name: str, slots: bytes, arrays: list) -> tuple[int, int]:
        to, back = self._process.stdin, self._process.stdout
        to.write(struct.pack("<3q", len(name), len(slots) // 8, len(arrays)))
        to.write(name.encode() + slots)
        for slot, array in arrays:
            to.write(struct.pack("<2q", slot, array.nbytes))
        for _, array in arrays:
            to.write(array.tobytes())
        to.flush()
        answer = struct.unpack("<2q", back.read(16))
        for _, array in arrays:
            _put_back(array, back.read(array.nbytes))
        return answer


class WebAssembly(Elsewhere):
    """A library for WebAssembly, with addresses of 32 or 64 bits."""

    def __init__(self, path: Path):
        import wasmtime

        config = wasmtime.Config()
        config.wasm_memory64 = True
        engine = wasmtime.Engine(config)
        self._store = wasmtime.Store(engine)
        module = wasmtime.Module.from_file(engine, str(path))
        assert not module.imports, "it needs nothing"
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory = self._exports["memory"]
        self._free = self._exports["__heap_base"].value(self._store)

    def call(self, name: str, slots: bytes, arrays: list) -> tuple[int, int]:
        ready = bytearray(slots)
        first = (self._free + 63) // 64 * 64  # the arguments, and before them the result
        top = first + 64 + (len(slots) + 63) // 64 * 64
        places = []
        for slot, array in arrays:
            struct.pack_into("<q", ready, 8 * slot, top)
            places.append(top)
            top += (array.nbytes + 63) // 64 * 64
        missing = top - self._memory.data_len(self._store)
        if missing > 0:
            self._memory.grow(self._store, missing // 65536 + 1)
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        ctypes.memmove(base + first + 64, bytes(ready), len(ready))
        for place, (_, array) in zip(places, arrays, strict=True):
            ctypes.memmove(base + place, array.ctypes.data, array.nbytes)
        status = self._exports[name](self._store, first + 64, first)
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        for place, (_, array) in zip(places, arrays, strict=True):
            _put_back(array, ctypes.string_at(base + place, array.nbytes))
        return status, ctypes.c_int64.from_address(base + first).value


class MachO:
    """What a library for macOS and ARM says of itself: its `name`, the `oldest` system it runs on,
    the `libraries` that it takes, `exported` and `undefined` symbols, whether it is `signed`."""

    def __init__(self, data: bytes):
        magic, processor, _, kind, commands = struct.unpack_from("<5I", data)
        assert (magic, processor, kind) == (0xFEEDFACF, 0x0100000C, 6), "no library of this kind"
        self.libraries, self.signed = set(), False
        at = 32
        for _ in range(commands):
            command, size = struct.unpack_from("<2I", data, at)
            if command in (0xC, 0xD):
                start = at + struct.unpack_from("<I", data, at + 8)[0]
                text = data[start : at + size].rstrip(b"\0").decode()
                if command == 0xD:
                    self.name = text
                else:
                    self.libraries.add(text)
            elif command == 0x32:
                platform, oldest = struct.unpack_from("<2I", data, at + 8)
                assert platform == 1, "not for macOS"
                self.oldest = f"{oldest >> 16}.{oldest >> 8 & 255}"
            elif command == 0x1D:
                self.signed = (
                    data[struct.unpack_from("<I", data, at + 8)[0] :][:4].hex() == "fade0cc0"
                )
            elif command == 0x2:
                table = struct.unpack_from("<4I", data, at + 8)
            at += size
        first, count, names, _ = table
        self.exported, self.undefined = set(), set()
        for n in range(count):
            name, kind = struct.unpack_from("<IB", data, first + 16 * n)
            if kind & 1:  # else it is the library's own
                name = data[names + name : data.index(b"\0", names + name)].decode()
                (self.exported if kind & 0xE else self.undefined).add(name)
