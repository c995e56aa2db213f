"""The features of a folder of archives as one table in a Parquet file."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from ..container import BELIEVED_PIXELS
from ..errors import LaffError
from ..files.folder import ARCHIVES, find
from ..files.whole import whole_file
from .feature_map import features, vector_names

_ROWS = 512
"""Archives per row group: what is in memory."""


def write_features(
    folder: Path,
    output: Path,
    *,
    components: int,
    grid: int,
    colour: bool,
    failed: Callable[[LaffError], object],
    basis: str | os.PathLike[str] | None = None,
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
    try:
        found = find(folder, ARCHIVES, recursive=True)
    except OSError as error:
        why = "no such folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise LaffError(f"{folder}: {why}: give one with .laff.gz archives") from None
    for name, reason in found.failed:
        failed(LaffError(f"{folder / name}: {reason}"))
    if not found.sources and not found.failed:
        raise LaffError(f"{folder}: no archives in it: give a folder with .laff.gz files")
    names = vector_names(components, grid, colour=colour)
    told = {"components": components, "grid": grid, "colour": colour, "names": names}
    schema = pyarrow.schema(
        [
            ("path", pyarrow.string()),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("bits", pyarrow.int32()),
            ("bytes", pyarrow.int64()),
            ("features", pyarrow.list_(pyarrow.float32(), len(names))),
        ],
        metadata={"femto": json.dumps(told)},
    )
    written = 0
    try:
        with (
            whole_file(output, below=output.parent) as file,
            parquet.ParquetWriter(file, schema) as table,
        ):
            for first in range(0, len(found.sources), _ROWS):
                rows = []
                for source in found.sources[first : first + _ROWS]:
                    try:
                        about = features(
                            folder / source.name,
                            components=components,
                            basis=basis,
                            max_pixels=max_pixels,
                        )
                    except LaffError as error:
                        failed(error)
                        continue
                    name = os.fsencode(source.name).decode("utf-8", "backslashreplace")
                    rows.append(
                        {
                            "path": name,
                            "width": about.width,
                            "height": about.height,
                            "bits": about.bits,
                            "bytes": source.nbytes,
                            "features": about.vector(grid, colour=colour),
                        }
                    )
                if rows:
                    table.write_table(pyarrow.Table.from_pylist(rows, schema))
                written += len(rows)
    except OSError as error:
        raise LaffError(f"{output}: cannot be written ({error.strerror}): check it") from None
    return written
