"""The features of a folder of archives as one table in a Parquet file."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from .container import BELIEVED_PIXELS
from .errors import LaffError
from .feature_map import features, vector_names

SUFFIXES = (".laff.gz", ".laff")
_ROWS = 512
"""Archives per row group: what is in memory."""


def find_archives(folder: Path, *, recursive: bool = True, hidden=(".",)) -> list[Path]:
    """All archives in a folder, and in its sub-folders if `recursive`, in order of path; folders
    and files whose names begin as `hidden` says are left out, as a job keeps its records there.
    Raises LaffError if there is no such folder."""
    if not folder.is_dir():
        raise LaffError(f"{folder}: no such folder: give one with .laff.gz archives")
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(hidden)]
        found += [
            Path(here, name)
            for name in names
            if name.endswith(SUFFIXES) and not name.startswith(hidden)
        ]
    return sorted(found)


def write_features(
    folder: Path,
    output: Path,
    *,
    components: int,
    grid: int,
    colour: bool,
    failed,
    basis=None,
    max_pixels: int | None = BELIEVED_PIXELS,
) -> int:
    """Write the features of every archive below `folder` to the Parquet file `output`.

    Columns: path (in the folder, with slashes), width, height (pixels), bits, bytes (of the
    archive) and features (`Features.vector`, a list of float32 of fixed length). The file's
    metadata "femto" is JSON: components, grid, colour, and the names of the features.
    `basis` and `max_pixels` are as for `features`.

    `failed(error)` is told of every archive that cannot be read; the rest is written. The file
    appears when it is whole. Returns the number of rows. Raises LaffError if there is no folder,
    no archive in it, no place to write, or no pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise LaffError("pyarrow is not installed here: pip install pyarrow") from None
    paths = find_archives(folder)
    if not paths:
        raise LaffError(f"{folder}: no archives in it: give a folder with .laff.gz files")
    names = vector_names(components, grid, colour=colour)
    about = {"components": components, "grid": grid, "colour": colour, "names": names}
    schema = pyarrow.schema(
        [
            ("path", pyarrow.string()),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("bits", pyarrow.int32()),
            ("bytes", pyarrow.int64()),
            ("features", pyarrow.list_(pyarrow.float32(), len(names))),
        ],
        metadata={"femto": json.dumps(about)},
    )
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
        os.close(handle)
    except OSError as error:
        raise LaffError(f"{output}: cannot be written ({error.strerror}): check it") from None
    written = 0
    try:
        with parquet.ParquetWriter(temporary, schema) as table:
            for first in range(0, len(paths), _ROWS):
                rows = []
                for path in paths[first : first + _ROWS]:
                    try:
                        found = features(
                            path, components=components, basis=basis, max_pixels=max_pixels
                        )
                        size = path.stat().st_size
                    except LaffError as error:
                        failed(error)
                        continue
                    rows.append(
                        {
                            "path": os.fsencode(path.relative_to(folder).as_posix()).decode(
                                "utf-8", "backslashreplace"
                            ),
                            "width": found.width,
                            "height": found.height,
                            "bits": found.bits,
                            "bytes": size,
                            "features": found.vector(grid, colour=colour),
                        }
                    )
                if rows:
                    table.write_table(pyarrow.Table.from_pylist(rows, schema))
                written += len(rows)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, output)
    except OSError as error:
        raise LaffError(f"{output}: cannot be written ({error.strerror}): check it") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return written
