"""The Spark context: quiet, with femto on every node, on one machine or on a cluster."""

import atexit
import contextlib
import functools
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import threading
import warnings
import zipfile
from pathlib import Path

from femto.errors import JobError, LaffError

PACKAGES = Path(__file__).resolve().parent.parent
"""The folder that holds the packages femto and femto_spark."""

_LOG4J = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.follow = true
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = spark: %p %c{1}: %m{nolookups}%n%ex{0}
# Named here so that PySpark does not announce a level of its own.
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
# What these say, the driver says in one line of its own.
logger.context.name = org.apache.spark.SparkContext
logger.context.level = off
logger.backend.name = org.apache.spark.scheduler.cluster
logger.backend.level = off
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = off
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = off
"""
GONE = (
    "Spark has stopped, or its master does not answer: check --master and the cluster, "
    "then run the same command again, it goes on where it was"
)
_STARTUP_NOISE = (b"WARNING: Using incubator modules", b"Using Spark's default log4j profile")


@contextlib.contextmanager
def made(kind, name: str, master: str = ""):
    """Gives a function that makes objects of a `kind`, whose first parameter is the SparkContext,
    which is started with the first of them. The end of the with statement stops it; an interrupt
    does not, for Spark may be ending too."""
    started = []

    def make(*arguments, **options):
        if not started:
            started.append(start(name, overwrite_conf={"spark.master": master} if master else {}))
        return kind(started[0], *arguments, **options)

    try:
        yield make
    except KeyboardInterrupt:
        started.clear()
        raise
    finally:
        for one in started:
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a Spark that is gone already is no news
                one.stop()


def start(name: str, *, overwrite_conf: dict[str, str] | None = None):
    """Start Spark and return its SparkContext.

    The master is what spark-submit or spark-defaults.conf say, else all cores of this machine.
    `overwrite_conf` are Spark settings that go before everything else. Raises JobError.
    """
    try:
        from pyspark import SparkConf, SparkContext
    except ImportError:
        raise JobError("pyspark is not installed here: pip install pyspark") from None
    folder = Path(tempfile.mkdtemp(prefix="femto-job-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # workers fetch the zip until then
    try:
        log4j = folder / "log4j2.properties"
        log4j.write_text(_LOG4J)
        submitted = "PYSPARK_GATEWAY_PORT" in os.environ
        if submitted:
            SparkContext._ensure_initialized()
        else:
            options = os.environ.get("SPARK_SUBMIT_OPTS", "")
            os.environ["SPARK_SUBMIT_OPTS"] = (
                f"{options} -Dlog4j2.configurationFile={log4j.as_uri()}".strip()
            )
            try:
                with _filtered_stderr():
                    SparkContext._ensure_initialized()
            finally:
                os.environ["SPARK_SUBMIT_OPTS"] = options
        conf = SparkConf()
        for key, value in (overwrite_conf or {}).items():
            conf.set(key, value)
        conf.setIfMissing("spark.master", "local[*]").setAppName(name)
        local = conf.get("spark.master").split("[")[0] == "local"
        conf.set("spark.ui.showConsoleProgress", "false")
        # The results of a batch are bounded by the driver itself.
        conf.setIfMissing("spark.driver.maxResultSize", "0")
        # A file that the driver feeds is part of a task's message.
        conf.setIfMissing("spark.rpc.message.maxSize", "2047")
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            conf.set(f"spark.executorEnv.{variable}", "1")
        if local:
            conf.setIfMissing("spark.ui.enabled", "false")
            conf.setIfMissing("spark.driver.host", "127.0.0.1")
            conf.setIfMissing("spark.driver.bindAddress", "127.0.0.1")
            paths = [str(PACKAGES), os.environ.get("PYTHONPATH")]
            conf.set("spark.executorEnv.PYTHONPATH", os.pathsep.join(filter(None, paths)))
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        with _quiet_jvm(SparkContext._jvm, log4j):
            context = SparkContext(conf=conf)
        if not local:
            context.addPyFile(str(_zip_packages(folder / "femto_packages.zip")))
        return context
    except JobError:
        raise
    except Exception as error:
        raise JobError(_why_no_spark(error)) from None


def is_local(context) -> bool:
    """Whether the executors are this machine's own processes."""
    return context.master.split("[")[0] == "local"


def executors(context) -> int:
    """How many executors a cluster has given so far."""
    return context._jsc.sc().getExecutorMemoryStatus().size() - 1


def is_stopped(context) -> bool:
    """Whether Spark is gone for good."""
    try:
        return bool(context._jsc.sc().isStopped())
    except Exception:
        return True


def _zip_packages(path: Path) -> Path:
    """Pack femto and femto_spark, compiled, so that all nodes run the driver's version.

    Equal files give an equal zip: nodes keep what they unpacked.
    """
    files = {f"femto/_library/{file.name}": file for file in _libraries()}
    for package in ("femto", "femto_spark"):
        for file in (PACKAGES / package).rglob("*"):
            if file.is_file() and not {"__pycache__", "_library"}.intersection(file.parts):
                files[file.relative_to(PACKAGES).as_posix()] = file
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    return path


def _libraries() -> list[Path]:
    """femto's compiled code: workers are not to compile. It came with the package, or this account
    has made it of these sources, or does so now. Raises JobError."""
    from femto.coding import libraries

    for folder in libraries.places():
        if found := [file for file in sorted(folder.glob("*.so")) if libraries.usable(file)]:
            return found
    folder = libraries.cache_folder()
    if folder is None or importlib.util.find_spec("numba") is None:
        return []  # workers that have an equal femto of their own need none
    from femto import build

    names = [name for name in libraries.targets() if name in build.TARGETS]
    try:
        return build.build(names, folder, functools.partial(print, file=sys.stderr, flush=True))
    except (LaffError, OSError) as error:
        raise JobError(f"femto cannot be compiled for the workers: {error}") from None


@contextlib.contextmanager
def _filtered_stderr():
    """Give processes started meanwhile a stderr without Java's start-up lines."""
    reader, writer = os.pipe()
    original = os.dup(2)

    def pass_on() -> None:
        with os.fdopen(reader, "rb") as lines, os.fdopen(original, "wb", buffering=0) as out:
            for line in lines:
                if not line.startswith(_STARTUP_NOISE):
                    out.write(line)

    threading.Thread(target=pass_on, daemon=True).start()
    keep = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(keep, 2)
        os.close(keep)


@contextlib.contextmanager
def _quiet_jvm(jvm, log4j: Path):
    """Mute the JVM's stderr while a context starts, and log by our own rules from then on.

    spark-submit has set up logging before this program started, and a starting context sets it up
    again, so that its first lines cannot be had quiet in another way. log4j shares one open
    stream between all configurations that name it alike: ours says `follow`, so the context's
    gets a new stream, the muted one.
    """
    configurator = jvm.org.apache.logging.log4j.core.config.Configurator
    rules = jvm.java.net.URI(log4j.as_uri())
    system, stream = jvm.java.lang.System, jvm.java.lang.System.err
    configurator.reconfigure(rules)
    system.setErr(jvm.java.io.PrintStream(jvm.java.io.OutputStream.nullOutputStream()))
    try:
        yield
    finally:
        system.setErr(stream)
        configurator.reconfigure(rules)


def _why_no_spark(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "JAVA_GATEWAY_EXITED" in text:
        return "Spark does not start: install Java 17 or later, or set JAVA_HOME"
    if "stopped SparkContext" in text:
        return (
            "Spark does not start: no master answers, or it does not let this job in: "
            "check --master, and that both sides have the same spark.authenticate.secret"
        )
    cause = getattr(error, "java_exception", None)
    if cause is not None:
        text = " ".join(f"{cause.getClass().getSimpleName()}: {cause.getMessage()}".split())
    return (
        f"Spark does not start ({text[:200]}): check --master, the cluster's address and its secret"
    )


def why_lost(error: Exception) -> str:
    """Why a task failed as a whole; JobError if no picture is to blame for it."""
    text = str(error)
    if "PYTHON_VERSION_MISMATCH" in text:
        raise JobError(
            "the workers run another minor version of Python than the driver: "
            "set PYSPARK_PYTHON to the same version everywhere"
        )
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text)
    if missing:
        raise JobError(
            f"the workers lack the Python package {missing[1]}: "
            "install requirements.txt on every node"
        )
    raised = re.search(r"^(\w*(?:Error|Exception)\b.*)\n SQLSTATE", text, re.MULTILINE)
    if "PYTHON_EXCEPTION" in text and raised:
        return f"its task failed ({raised[1][:200]}): report this as a fault of femto"
    return (
        "the process that worked on it died each time, most likely for lack of memory: "
        "give the executors more memory, or fewer cores each"
    )
