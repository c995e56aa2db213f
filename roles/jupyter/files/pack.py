"""Pack femto's notebooks and sample pictures: the same files give the same archive anywhere.

    python3 pack.py SOURCE

SOURCE is a checkout of femto. Writes SOURCE/build/notebooks-DIGEST.tar and prints its path. Not
compressed, because zlib's versions would make different bytes of the same files.
"""

import hashlib
import io
import os
import sys
import tarfile
import tempfile
from pathlib import Path


def files_of(source: Path) -> dict[str, Path]:
    """Name in the archive -> file: notebooks, what they come with, and pictures to try them on."""
    found = {}
    for folder, name in (("notebooks", "notebooks"), ("samples", "notebooks/images")):
        for path in sorted((source / folder).rglob("*")):
            inside = path.relative_to(source / folder)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            # What notebooks have written stays where it was written.
            if path.is_file() and not hidden and inside.parts[0] != "images_out":
                found[f"{name}/{inside.as_posix()}"] = path
    found.pop("notebooks/images/README.md", None)
    return found


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files_of(source).items()):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    target = source / "build" / f"notebooks-{digest}.tar"
    if not target.is_file():
        target.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
            part.write(buffer.getvalue())
        os.chmod(part.name, 0o644)
        os.replace(part.name, target)
    print(target, end="")


main()
