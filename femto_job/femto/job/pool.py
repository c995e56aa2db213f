"""Processes of this machine that share work. One that dies costs only what it was working on."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

PATIENCE_SECONDS = 5
"""How long a process may take to end when it is asked to."""


class Died(Exception):
    """The process that worked on it has ended."""


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pool:
    """So many processes, started when they are needed, and anew when they have died.

    Functions and what they take and return are pickled. Used in a with statement, whose end ends
    the processes; what they are writing is not left behind.
    """

    def __init__(self, size: int):
        self._size = size
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="pool")
        self._own = threading.local()
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        self._gate, self._places = threading.Lock(), threading.Semaphore(size)
        self._closed = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def submit(self, function: Callable, *arguments) -> Future:
        """Call a function in one of the processes. The future has what it returns or raises, or
        Died."""
        return self._threads.submit(self._call, function, arguments)

    def alone(self, function: Callable, *arguments):
        """The same in a process of its own, while no other one works: if that dies too, nothing
        else is to blame for it."""
        with self._gate:
            for _ in range(self._size):
                self._places.acquire()
            try:
                process = self._new()
                try:
                    return process.call(function, arguments)
                finally:
                    self._end(process)
            finally:
                self._places.release(self._size)

    def close(self) -> None:
        """End all processes, whatever they do, and give up what was submitted."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, set()
        for process in processes:
            process.stop()
        for process in processes:
            process.end()

    def _call(self, function: Callable, arguments: tuple):
        with self._gate:
            self._places.acquire()
        try:
            process = getattr(self._own, "process", None)
            if process is None or not process.is_alive():
                if process is not None:
                    self._end(process)
                process = self._own.process = self._new()
            return process.call(function, arguments)
        finally:
            self._places.release()

    def _new(self) -> "_Process":
        with self._lock:
            if self._closed:
                raise Died
            process = _Process()
            self._processes.add(process)
        return process

    def _end(self, process: "_Process") -> None:
        with self._lock:
            self._processes.discard(process)
        process.end()


class _Process:
    """One process, and a pipe to it."""

    def __init__(self):
        # Not a copy of this process, which has threads.
        context = multiprocessing.get_context("spawn")
        self._ending = threading.Lock()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _without_interrupts():
            self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def call(self, function: Callable, arguments: tuple):
        request = pickle.dumps((function, arguments))
        try:
            self._pipe.send_bytes(request)
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError):
            self.end()
            raise Died from None
        well, value = pickle.loads(answer)
        if not well:
            raise value
        return value

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def end(self) -> None:
        """See to it that it has ended. The thread that called it and the one that closes the pool
        may both do so: the pipe is closed with the last that knows of it."""
        self.stop()
        with self._ending:
            self._process.join(PATIENCE_SECONDS)
            self._process.kill()
            self._process.join()


@contextlib.contextmanager
def _without_interrupts():
    """Processes that are started inside hear nothing of Ctrl-C, which is the first one's
    business."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe) -> None:
    """The process's side: answer requests until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        try:
            function, arguments = pickle.loads(request)
            answer = pickle.dumps((True, function(*arguments)))
        except Exception as error:
            try:
                answer = pickle.dumps((False, error))
                pickle.loads(answer)
            except Exception:  # one that is not pickled
                answer = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        pipe.send_bytes(answer)


def _stop(*_) -> None:
    raise SystemExit(1)  # files that are being written are removed on the way


def _end_with(process: int) -> None:
    """End this process when that of the sentinel has ended, which may have been killed."""
    multiprocessing.connection.wait([process])
    os._exit(1)
