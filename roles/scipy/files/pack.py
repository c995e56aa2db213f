"""Pack femto for the nodes: the same files give the same archive, on any controller, at any time.

    python3 pack.py SOURCE PACKAGE...

SOURCE is a checkout of femto. Writes SOURCE/build/femto-DIGEST.tar.gz, from which pip installs,
and prints JSON: the archive's path, femto's version, the lines of requirements.txt that pin the
packages, and a digest of all of it.
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


def files_of(source: Path) -> list[Path]:
    """What pip needs, and the commands; nothing that a run or an editor leaves behind."""
    job = source / "femto_job"
    found = [source / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    found += [job / name for name in ("compress.py", "decompressor.py", "train.py")]
    for package in ("femto", "femto_spark", "pyspark_laff"):
        found += [
            path
            for path in (job / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        ]
    return sorted(found)


def packed(source: Path) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in files_of(source):
            entry = tarfile.TarInfo(path.relative_to(source).as_posix())
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()


def digest_of(source: Path, requirements: list[str]) -> str:
    """Over names and contents: zlib's versions compress differently, which changes nothing."""
    digest = hashlib.sha256("\n".join(requirements).encode())
    for path in files_of(source):
        name = path.relative_to(source).as_posix()
        # The README goes with the package, but a new sentence in it is no new femto.
        if name != "README.md":
            digest.update(f"\0{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def pins(source: Path, packages: list[str]) -> list[str]:
    lines = (source / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.strip() for line in lines if "==" in line and not line.startswith("#")]
    found = []
    for package in packages:
        matching = [line for line in pinned if re.split(r"[=;\[ ]", line)[0] == package]
        if not matching:
            sys.exit(
                f"scipy_packages: {package} is not pinned in requirements.txt: "
                "name it with its version in scipy_extra_packages instead"
            )
        found += matching
    return found


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    if not (source / "femto_job" / "femto").is_dir():
        sys.exit(f"{source}: femto is not there: name a checkout of femto in scipy_source")
    requirements = pins(source, sys.argv[2:])
    project = (source / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([^"]+)"', project, re.MULTILINE).group(1)
    digest = digest_of(source, requirements)
    archive = source / "build" / f"femto-{digest[:16]}.tar.gz"
    if not archive.is_file():
        archive.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=archive.parent, delete=False) as part:
            part.write(packed(source))
        os.chmod(part.name, 0o644)
        os.replace(part.name, archive)
    print(
        json.dumps(
            {
                "archive": str(archive),
                "version": version,
                "digest": digest,
                "requirements": requirements,
            }
        )
    )


main()
