"""Picture files are decoded in a process of their own.

Decoders are large C libraries that meet hostile files: they crash, hang, ask for all the memory
there is, and print warnings. Here they do so in a child process with a limit of processor time and
memory and no terminal; the caller gets pixels, or one line that says why not.

The child answers requests on its standard input: a line of JSON, followed by as many raw bytes as
the line says; the answer is a byte as soon as the request is there, and then of the same form. A
child that ends before that byte, or by a signal that no decoder raises, is no fault of the file.
"""

import base64
import contextlib
import ctypes
import json
import os
import resource
import select
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


TRIES = 3
"""How many processes a picture gets if they end, or are stopped, through no fault of its own."""
LOOK_SECONDS = 1
"""How often a silent child is looked at."""
LOOKS_STOPPED = 10
"""So many looks without any progress tell that a stopped child is not going to go on."""
RECEIVED = b"."
ASLEEP = {"S", "I"}
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}
"""Signals that people, init systems and kernels short of memory send."""
PR_SET_PDEATHSIG = 1


class UnreadablePicture(Exception):
    """A picture cannot be read. The message is one line without the file's name."""


class Sandbox:
    """A child process that reads pictures, started when first needed and again when it has ended.

    Parameters: `base_seconds`, of processor time, or of sleep, that a request may take (5 s per
    megapixel are added);
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
            request = {
                "do": "open",
                "path": path,
                "name": name,
                "page": page,
                "gray": gray,
                "reading": reading | ({} if place is None else {"place": place}),
            }
            self._opened = None
            self._opened = Page(self, key, request, data, pixels)
        return self._opened

    def close(self) -> None:
        """End the child process."""
        self._opened = None
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def _running(self) -> subprocess.Popen:
        """The child, a new one if it has ended since its last answer."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            path = sys.path if self._search_path is None else self._search_path
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from femto.job.sandbox import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in path if p)),
                bufsize=0,
            )
            os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def _call(
        self,
        request: dict,
        data: bytes | None = None,
        pixels: int = 0,
        page: "Page | None" = None,
    ):
        """The answer to a request, and the bytes that come with it; `page`: what must be open.

        A child that ends, or is stopped, through no fault of the file is replaced, and what was
        open is opened again.
        """
        gone = None
        for _ in range(TRIES):
            try:
                process = self._running()
                if page is not None and page.process is not process:
                    reply, _ = self._ask(process, page.request, page.data, pixels)
                    if tuple(reply["shape"]) != page.shape:
                        raise UnreadablePicture("it became another picture while it was read")
                    page.process = process
                return self._ask(process, request, data, pixels)
            except _Gone as error:
                gone = error
                self._end()
                if gone.by_file:
                    break
        raise UnreadablePicture(gone.reason)

    def _ask(self, process: subprocess.Popen, request: dict, data: bytes | None, pixels: int):
        """The same of this child, once. Raises _Gone, UnreadablePicture."""
        pixels = min(pixels, MOST_PIXELS)
        seconds = self._seconds + int(SECONDS_PER_MEGAPIXEL * pixels / 1e6)
        request = request | {
            "nbytes": None if data is None else len(data),
            "seconds": seconds,
            "memory": self._memory + MEMORY_PER_PIXEL * pixels,
        }
        talk = _Talk(process, [json.dumps(request).encode() + b"\n", data or b""], seconds)
        reply = json.loads(talk.line())
        raw = talk.read(reply["nbytes"])
        if "error" in reply:
            raise UnreadablePicture(reply["error"])
        return reply, raw


class _Gone(Exception):
    """The child is gone, or no use: why, and whether the file is to blame."""

    def __init__(self, reason: str, by_file: bool):
        super().__init__(reason)
        self.reason, self.by_file = reason, by_file


class _Talk:
    """One request to a child and its answer, with an eye on the child. Raises _Gone.

    How long it may take does not depend on how busy the machine is: the kernel ends a child that
    has used up its seconds of processor time, and a child that is silent is given up when it was
    found asleep, with no processor time used, as often as its seconds tell, or stopped by a signal.
    One that waits for a processor, or for a disk, is waited for.
    """

    def __init__(self, process: subprocess.Popen, message: list[bytes], seconds: int):
        self._process, self._seconds = process, seconds
        self._left = [memoryview(part) for part in message if part]
        self._got = bytearray()
        self._began = False
        self._asleep = self._stopped = self._used = 0
        self._poll = select.poll()
        self._poll.register(process.stdout, select.POLLIN)
        self._poll.register(process.stdin, select.POLLOUT)

    def line(self) -> bytes:
        """The answer's first line; the byte in front of it says that the request has arrived."""
        searched = 0
        while (end := self._got.find(b"\n", searched)) < 0:
            searched = len(self._got)
            self._more(1 << 16)
        line = bytes(self._got[:end])
        del self._got[: end + 1]
        return line.removeprefix(RECEIVED)

    def read(self, nbytes: int) -> bytearray:
        """What follows."""
        while len(self._got) < nbytes:
            self._more(nbytes - len(self._got))
        return self._got

    def _more(self, nbytes: int) -> None:
        """Get some bytes, at most so many; meanwhile the request is sent."""
        while True:
            events = dict(self._poll.poll(1000 * LOOK_SECONDS))
            if not events:
                self._look()
                continue
            self._asleep = self._stopped = 0
            if self._process.stdout.fileno() in events:
                got = os.read(self._process.stdout.fileno(), min(nbytes, 1 << 16))
                if not got:
                    raise self._epitaph()
                self._began = True
                self._got += got
                return
            try:
                count = os.write(self._process.stdin.fileno(), self._left[0][: 1 << 16])
            except BrokenPipeError:
                raise self._epitaph() from None
            self._left[0] = self._left[0][count:]
            if not self._left[0]:
                del self._left[0]
            if not self._left:
                self._poll.unregister(self._process.stdin)

    def _look(self) -> None:
        """See what the silent child does."""
        states, used = _threads(self._process.pid)
        if used != self._used:
            self._asleep = self._stopped = 0
        elif "T" in states:
            self._stopped += 1
        elif states <= ASLEEP:
            self._asleep += 1
        self._used = used
        if self._stopped >= LOOKS_STOPPED:
            raise _Gone("its reading process was stopped by a signal again and again", False)
        if self._asleep * LOOK_SECONDS >= self._seconds:
            raise self._too_long()

    def _too_long(self) -> _Gone:
        return _Gone(
            f"its decoder took more than {self._seconds} s and was stopped: the file is damaged",
            True,
        )

    def _epitaph(self) -> _Gone:
        """Why the child is gone."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        if code == -signal.SIGPROF:
            return self._too_long()
        ended = "ended" if code is None or code >= 0 else signal.Signals(-code).name
        if not self._began:
            return _Gone(f"its reading process did not start to read it ({ended})", False)
        if code is not None and code < 0:
            if -code in FROM_OUTSIDE:
                return _Gone(
                    f"its reading process was ended again and again ({ended}): "
                    "memory ran out, or somebody ends it",
                    False,
                )
            return _Gone(
                f"its decoder crashed ({ended}): the file is damaged, or memory ran out", True
            )
        return _Gone("its decoder ended without an answer: the file is damaged", True)


def _threads(pid: int) -> tuple[set[str], int]:
    """The states of a process's threads, as the kernel's letters, and the processor time that they
    have used, in ticks. Where the system does not tell, it looks asleep."""
    states, used = set(), 0
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            with open(f"{task.path}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            states.add(fields[0].decode())
            used += int(fields[11]) + int(fields[12])
    except OSError:
        pass
    return states or {"S"}, used


class Page:
    """An open page: `shape`, `dtype`, `icc`, `info` (the fields of femto.pictures.PageInfo, and
    `metadata`, packed as archives keep them, or None), and windows of pixels by slicing."""

    def __init__(self, sandbox: Sandbox, key, request: dict, data: bytes | None, pixels: int):
        self._sandbox, self.key, self._pixels = sandbox, key, pixels
        # What opens it again in another process.
        self.request, self.data = request, data
        reply, _ = sandbox._call(request, data, pixels)
        self.process = sandbox._process
        self.shape, self.dtype = tuple(reply["shape"]), np.dtype(reply["dtype"])
        self.icc = None if reply["icc"] is None else base64.b64decode(reply["icc"])
        self.info = reply["info"]

    def __getitem__(self, window) -> np.ndarray:
        rows, columns = window
        y0, y1, _ = rows.indices(self.shape[0])
        x0, x1, _ = columns.indices(self.shape[1])
        if self._sandbox._opened is not self:
            raise UnreadablePicture("another page was opened meanwhile")
        request = {"do": "read", "window": [y0, y1, x0, x1]}
        reply, raw = self._sandbox._call(request, None, self._pixels, self)
        return np.frombuffer(raw, self.dtype).reshape(reply["shape"])

    def read(self) -> np.ndarray:
        """All pixels."""
        return self[:, :]


def serve() -> None:
    """The child's side: answer requests until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decoders that print must not garble answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        # If the parent is gone, so is the child, whatever it does; only Linux can.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    state: dict = {}
    while line := requests.readline():
        request = json.loads(line)
        data = None if request["nbytes"] is None else requests.read(request["nbytes"])
        replies.write(RECEIVED)
        replies.flush()
        # The kernel ends the child when it has used so much processor time, even inside C code.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        _limit_memory(request["memory"])
        reply, pixels = _answer(request, data, state)
        raw = b"" if pixels is None else memoryview(pixels).cast("B")
        replies.write(json.dumps(reply | {"nbytes": len(raw)}).encode() + b"\n")
        replies.write(raw)
        replies.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)


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
        from .. import LaffError, pictures
        from ..container import pack_metadata

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
