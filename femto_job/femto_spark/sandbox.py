"""Picture files are decoded in a process of their own.

Decoders are large C libraries that meet hostile files: they crash, hang, ask for all the memory
there is, and print warnings. Here they do so in a child process with a limit of time and memory
and no terminal; the caller gets pixels, or one line that says why not.

The child answers requests on its standard input: a line of JSON, followed by as many raw bytes as
the line says; the answer has the same form.
"""

import base64
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np

BASE_SECONDS = 60
SECONDS_PER_MEGAPIXEL = 5
BASE_MEMORY = 1 << 30
MEMORY_PER_PIXEL = 64
MOST_PIXELS = 1 << 28
"""As many as femto.pictures decodes at once; of larger pictures windows are read."""


class UnreadablePicture(Exception):
    """A picture cannot be read. The message is one line without the file's name."""


class Sandbox:
    """A child process that reads pictures, started when first needed and again after a crash.

    Parameters: `base_seconds`, how long a request may take (5 s per megapixel are added);
    `base_memory`, bytes that a request may use (64 per pixel are added); `search_path`, where
    the child finds Python packages, `sys.path` by default.
    """

    def __init__(
        self,
        *,
        base_seconds: int = BASE_SECONDS,
        base_memory: int = BASE_MEMORY,
        search_path: list[str] | None = None,
    ):
        self._seconds, self._memory = base_seconds, base_memory
        self._search_path = search_path
        self._process: subprocess.Popen | None = None
        self._opened = None

    def probe(
        self,
        path: str | None,
        data: bytes | None = None,
        *,
        name: str,
        reading: dict | None = None,
    ) -> list[dict]:
        """The pages of a picture file: dicts with the fields of femto.pictures.PageInfo.

        Give the file's path, or its bytes as `data`; `reading`: the options of
        femto.pictures.probe that choose what is read. Raises UnreadablePicture.
        """
        request = {"do": "probe", "path": path, "name": name, "reading": reading or {}}
        reply, _ = self._call(request, data)
        return reply["pages"]

    def open(
        self,
        path: str | None,
        data: bytes | None = None,
        *,
        name: str,
        page: int,
        gray: bool,
        pixels: int,
        reading: dict | None = None,
        place: dict | None = None,
    ) -> "Page":
        """Open one page; the last one opened stays open. Raises UnreadablePicture.

        `reading`: the options of femto.pictures.open_page that choose what is read; `place`: where
        the page lies, as probe() told it.
        """
        status = None
        if path is not None:
            try:
                status = os.stat(path)
            except OSError as error:
                raise UnreadablePicture(f"{error.strerror}: restore it") from None
            status = (status.st_size, status.st_mtime_ns)
        reading = reading or {}
        key = (path, status, name, page, gray, reading)
        if path is None or self._opened is None or self._opened.key != key:
            reply, _ = self._call(
                {
                    "do": "open",
                    "path": path,
                    "name": name,
                    "page": page,
                    "gray": gray,
                    "reading": reading | ({} if place is None else {"place": place}),
                },
                data,
                pixels,
            )
            icc = reply["icc"]
            self._opened = Page(
                self,
                key,
                tuple(reply["shape"]),
                np.dtype(reply["dtype"]),
                None if icc is None else base64.b64decode(icc),
                reply["info"],
                pixels,
            )
        return self._opened

    def close(self) -> None:
        """End the child process."""
        process, self._process, self._opened = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def _start(self) -> subprocess.Popen:
        path = sys.path if self._search_path is None else self._search_path
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in path if p))
        return subprocess.Popen(
            [sys.executable, "-c", "from femto_spark.sandbox import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def _call(self, request: dict, data: bytes | None = None, pixels: int = 0):
        pixels = min(pixels, MOST_PIXELS)
        seconds = self._seconds + int(SECONDS_PER_MEGAPIXEL * pixels / 1e6)
        request |= {
            "nbytes": None if data is None else len(data),
            "seconds": seconds,
            "memory": self._memory + MEMORY_PER_PIXEL * pixels,
        }
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = self._start()
        pipe = self._process
        line = b""
        try:
            pipe.stdin.write(json.dumps(request).encode() + b"\n")
            if data is not None:
                pipe.stdin.write(data)
            pipe.stdin.flush()
            line = pipe.stdout.readline()
            reply = json.loads(line)
            raw = bytearray(reply["nbytes"])
            if reply["nbytes"] and pipe.stdout.readinto(raw) != len(raw):
                line = b""
        except (BrokenPipeError, ValueError):
            line = b""
        if not line.endswith(b"\n"):
            raise UnreadablePicture(self._epitaph(seconds))
        if "error" in reply:
            raise UnreadablePicture(reply["error"])
        return reply, raw

    def _epitaph(self, seconds: int) -> str:
        """Why the child is gone."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if code == -signal.SIGALRM:
            return f"its decoder took more than {seconds} s and was stopped: the file is damaged"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"its decoder crashed ({name}): the file is damaged, or memory ran out"
        return "its decoder ended without an answer: the file is damaged"


class Page:
    """An open page: `shape`, `dtype`, `icc`, `info` (the fields of femto.pictures.PageInfo, and
    `metadata`, packed as archives keep them, or None), and windows of pixels by slicing."""

    def __init__(self, sandbox: Sandbox, key, shape, dtype, icc, info: dict, pixels: int):
        self._sandbox, self.key, self._pixels = sandbox, key, pixels
        self.shape, self.dtype, self.icc, self.info = shape, dtype, icc, info

    def __getitem__(self, window) -> np.ndarray:
        rows, columns = window
        y0, y1, _ = rows.indices(self.shape[0])
        x0, x1, _ = columns.indices(self.shape[1])
        if self._sandbox._opened is not self:
            raise UnreadablePicture("another page was opened meanwhile")
        reply, raw = self._sandbox._call(
            {"do": "read", "window": [y0, y1, x0, x1]}, None, self._pixels
        )
        return np.frombuffer(raw, self.dtype).reshape(reply["shape"])

    def read(self) -> np.ndarray:
        """All pixels."""
        return self[:, :]


def serve() -> None:
    """The child's side: answer requests until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decoders that print must not garble answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    state: dict = {}
    while line := requests.readline():
        request = json.loads(line)
        data = None if request["nbytes"] is None else requests.read(request["nbytes"])
        # The kernel ends the child at the alarm even inside C code, and if the parent is gone.
        signal.alarm(request["seconds"])
        _limit_memory(request["memory"])
        reply, pixels = _answer(request, data, state)
        raw = b"" if pixels is None else memoryview(pixels).cast("B")
        replies.write(json.dumps(reply | {"nbytes": len(raw)}).encode() + b"\n")
        replies.write(raw)
        replies.flush()
        signal.alarm(0)


def _limit_memory(nbytes: int) -> None:
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = now + nbytes if hard == resource.RLIM_INFINITY else min(now + nbytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (OSError, ValueError):
        pass  # no such limit on this system


def _answer(request: dict, data: bytes | None, state: dict):
    try:
        from femto import LaffError, pictures
        from femto.container import pack_metadata

        source = request.get("path") if data is None else data
        if request["do"] == "probe":
            pages = pictures.probe(source, name=request["name"], **request["reading"])
            return {"pages": [asdict(page) for page in pages]}, None
        if request["do"] == "open":
            if "page" in state:
                state.pop("page").__exit__(None, None, None)
            page = pictures.open_page(
                source,
                request["page"],
                name=request["name"],
                gray=request["gray"],
                **request["reading"],
            ).__enter__()
            state["page"], state["name"] = page, request["name"]
            icc, metadata = page.icc, page.metadata
            metadata = None if metadata is None else pack_metadata(metadata)
            return {
                "shape": list(map(int, page.shape)),
                "dtype": np.dtype(page.dtype).str,
                "icc": None if icc is None else base64.b64encode(icc).decode(),
                "info": asdict(page.info) | {"metadata": metadata},
            }, None
        y0, y1, x0, x1 = request["window"]
        pixels = np.ascontiguousarray(state["page"][y0:y1, x0:x1])
        return {"shape": list(pixels.shape)}, pixels
    except LaffError as error:
        return {"error": _without_name(str(error), request.get("name") or state.get("name"))}, None
    except MemoryError:
        return {"error": "reading it needs more memory than a picture of its size should"}, None
    except OSError as error:
        return {"error": f"{error.strerror or error}: allow this user to read it"}, None
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"error": f"cannot be read ({text}): the file is damaged"}, None


def _without_name(message: str, name: str | None) -> str:
    """Reports have a column for the name; the reason need not repeat it."""
    message = " ".join(message.split())
    return message.removeprefix(f"{name}: ") if name else message
