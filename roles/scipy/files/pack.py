"""Build femto for the nodes, on the controller: its wheel, and the commands that lie beside it.

    python3 pack.py SOURCE
        Print as JSON femto's version, and a digest of what it is built of.
    python3 pack.py SOURCE DIGEST MACHINE ...
        Print as JSON MACHINE -> archive for nodes of this kind (x86_64, aarch64).

SOURCE is a checkout of femto. Archives are SOURCE/build/femto-DIGEST-MACHINE.tar; what is there is
not built again. Only pip, and what pyproject.toml names to build with, is needed: where this Python
has that, it is used, else pip fetches it for the time of the build.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

COMMANDS = ("compress.py", "decompressor.py", "restore.py", "train.py")
PACKAGES = ("femto", "femto_spark", "pyspark_laff")
# They go into the wheel, too, but no program reads them: another text is no other femto.
TEXTS = ("README.md", "LICENSE")


def contents(source: Path) -> dict[str, bytes]:
    """Name in the checkout -> content, of all that femto is built of; nothing that a run or a build
    leaves behind."""
    job = source / "femto_job"
    found = [source / "pyproject.toml", *source.glob("*.py"), *(job / name for name in COMMANDS)]
    for package in PACKAGES:
        found += (
            path
            for path in (job / package).rglob("*")
            if path.is_file()
            and not {"__pycache__", "_library"}.intersection(path.parts)
            and path.suffix != ".pyc"
        )
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in sorted(found)}


def digest_of(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0".encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def place(source: Path) -> Path:
    """Where archives are kept: in the checkout, or with this user's other caches."""
    build = source / "build"
    if not os.access(build if build.exists() else source, os.W_OK):
        build = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "femto")
    build.mkdir(parents=True, exist_ok=True)
    return build


def has_tools(project: str) -> bool:
    """Whether this Python has what pyproject.toml names to build with."""
    (wanted,) = re.findall(r"^requires = (\[.*?\])$", project, re.MULTILINE | re.DOTALL)
    for name, oldest in re.findall(r"([\w-]+)>=([\d.]+)", wanted):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if [int(n) for n in re.findall(r"\d+", version)] < [int(n) for n in oldest.split(".")]:
            return False
    return True


def wheel(source: Path, files: dict[str, bytes], machine: str, folder: Path) -> Path:
    """Build the wheel of these very files, in a folder of its own."""
    if importlib.util.find_spec("pip") is None:
        sys.exit(
            f"{sys.executable} has no pip, which builds femto's wheel: install it (python3-pip)"
        )
    texts = {name: (source / name).read_bytes() for name in TEXTS}
    for name, content in {**files, **texts}.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    if has_tools(files["pyproject.toml"].decode()):
        options.append("--no-build-isolation")
    if sysconfig.get_platform() != f"linux-{machine}":
        options.append(f"--config-settings=--build-option=--plat-name=linux-{machine}")
    pins = str(source / "requirements.txt")
    environment = {
        # /tmp may be small and in memory.
        "TMPDIR": str(folder),
        # The versions that femto is tested with; the second is what newer versions of pip read.
        "PIP_CONSTRAINT": pins,
        "PIP_BUILD_CONSTRAINT": pins,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", folder / "dist", folder / "source"],
        env=environment | dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        told = [line for line in said if line.startswith("ERROR: ")] or said or ["no message"]
        why = (
            f"{told[0]}: give it a package index, or install {source / 'requirements.txt'} where "
            "Ansible is, then run the same command again"
        )
        own = [line.partition("LaffError: ")[2] for line in said if "LaffError: " in line]
        sys.exit(f"femto's wheel for {machine} cannot be built on this machine: {[*own, why][0]}")
    (path,) = (folder / "dist").glob("femto-*.whl")
    return path


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def build(source: Path, files: dict[str, bytes], machine: str) -> Path:
    folder = place(source)
    archive = folder / f"femto-{digest_of(files)[:16]}-{machine}.tar"
    # Who runs at the same time, for another inventory, waits for what this one builds.
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.is_file():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = wheel(source, files, machine, Path(scratch))
                inside = {f"femto_job/{name}": files[f"femto_job/{name}"] for name in COMMANDS}
                part = Path(scratch, "part")
                part.write_bytes(packed({**inside, built.name: built.read_bytes()}))
                os.replace(part, archive)
    return archive


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    if not (source / "femto_job" / "femto").is_dir():
        sys.exit(f"{source}: femto is not there: name a checkout of femto in scipy_source")
    files = contents(source)
    if len(sys.argv) == 2:
        project = files["pyproject.toml"].decode()
        version = re.search(r'^version = "([^"]+)"', project, re.MULTILINE).group(1)
        print(json.dumps({"version": version, "digest": digest_of(files)}))
        return
    _, _, digest, *machines = sys.argv
    if digest_of(files) != digest:
        sys.exit(f"{source}: files were changed meanwhile: run the same command again")
    print(json.dumps({machine: str(build(source, files, machine)) for machine in machines}))


main()
