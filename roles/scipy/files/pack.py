"""Pack femto for the nodes: the same files give the same archive, on any controller, at any time.

    python3 pack.py SOURCE

SOURCE is a checkout of femto. Writes SOURCE/build/femto-DIGEST.tar.gz and prints JSON: the
archive's path, femto's version, and a digest of all of it.
"""

import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import tempfile
from pathlib import Path

COMMANDS = ("compress.py", "decompressor.py", "restore.py", "train.py")
PACKAGES = ("femto", "femto_spark", "pyspark_laff")


def files_of(source: Path) -> dict[str, Path]:
    """Name in the archive -> file: packages in code/, commands in femto_job/; nothing that a run or
    an editor leaves behind."""
    job = source / "femto_job"
    found = {f"femto_job/{name}": job / name for name in COMMANDS}
    for package in PACKAGES:
        for path in (job / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                found[f"code/{path.relative_to(job).as_posix()}"] = path
    return found


def metadata(source: Path) -> dict[str, str]:
    """What pip writes of a package that it installs, so that pip knows this one."""
    project = (source / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([^"]+)"', project, re.MULTILINE).group(1)
    needed = json.loads(re.search(r"^dependencies = (\[.*?\])$", project, re.M | re.S).group(1))
    lines = ["Metadata-Version: 2.1", "Name: femto", f"Version: {version}"]
    return {"version": version, "text": "\n".join(lines + [f"Requires-Dist: {n}" for n in needed])}


def contents(source: Path) -> dict[str, bytes]:
    found = {name: path.read_bytes() for name, path in files_of(source).items()}
    told = metadata(source)
    found[f"code/femto-{told['version']}.dist-info/METADATA"] = f"{told['text']}\n".encode()
    return dict(sorted(found.items()))


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def digest_of(files: dict[str, bytes]) -> str:
    """Over names and contents: zlib's versions compress differently, which changes nothing."""
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


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    if not (source / "femto_job" / "femto").is_dir():
        sys.exit(f"{source}: femto is not there: name a checkout of femto in scipy_source")
    files = contents(source)
    digest = digest_of(files)
    archive = place(source) / f"femto-{digest[:16]}.tar.gz"
    if not archive.is_file():
        with tempfile.NamedTemporaryFile(dir=archive.parent, delete=False) as part:
            part.write(packed(files))
        os.chmod(part.name, 0o644)
        os.replace(part.name, archive)
    version = metadata(source)["version"]
    print(json.dumps({"archive": str(archive), "version": version, "digest": digest}))


main()
