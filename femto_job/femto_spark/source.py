"""The Spark data source `laff`: archives as rows, their features as vectors for pyspark.ml."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyspark.ml.linalg import DenseVector, VectorUDT
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from femto.container import BELIEVED_PIXELS
from femto.errors import LaffError, printable
from femto.files.folder import ARCHIVES, find

IMAGE = StructType(
    [
        StructField("origin", StringType()),
        StructField("height", IntegerType(), False),
        StructField("width", IntegerType(), False),
        StructField("nChannels", IntegerType(), False),
        StructField("mode", IntegerType(), False),
        StructField("data", BinaryType(), False),
    ]
)
"""The schema of pyspark.ml.image, whose own definition needs a running JVM."""
_GREY, _COLOUR = 0, 16  # CV_8UC1, CV_8UC3
_PLAIN = {
    "path": StringType(),
    "width": IntegerType(),
    "height": IntegerType(),
    "bits": IntegerType(),
    "bytes": LongType(),
    "error": StringType(),
}
_TYPES = {name: (kind,) for name, kind in _PLAIN.items()} | {
    "features": (VectorUDT(), ArrayType(FloatType()), ArrayType(DoubleType())),
    "image": (IMAGE,),
}
_MODES = ("PERMISSIVE", "DROPMALFORMED", "FAILFAST")
_OPTIONS = {"path", "paths", "features", "image", "components", "grid", "colour", "basis", "mode",
            "recursivefilelookup", "filesperpartition", "maxpixels"}  # fmt: skip


class LaffDataSource(DataSource):
    """`spark.read.format("laff")`: one row per archive.

    Columns: path (as given), width, height (pixels), bits (per sample), bytes (of the archive),
    error (why the archive could not be read, else null); with the option `features` also features
    (a vector for pyspark.ml, see `femto.Features.vector`), with `image` also image
    (pyspark's image schema: 8 bits, blue first; of deeper pictures the levels that they use).

    Spark's interface for sources in Python does not tell them which columns a query uses. So
    what costs time is only there if asked for: by these options, or by a schema of one's own,
    `.schema("path string, features array<float>")`, which may name any of the columns, features
    as `array<float>` or `array<double>` too. With no more than path and bytes, no file is opened.

    Options: features, image, colour (false); components (1), grid (4), as for femto.features;
    basis: path of the file of the archives' basis, if femto neither ships it nor finds it beside
    them; mode: what becomes of archives that cannot be read, as in Spark's own sources: PERMISSIVE
    (default; a row with path, bytes and error, the rest null), DROPMALFORMED (left out), FAILFAST
    (the query fails); recursiveFileLookup (false); filesPerPartition (64); maxPixels (178956970; 0:
    any number), as max_pixels of femto.features and, for image, of femto.decode. Whatever is wrong
    with an archive is such a fault, also that it vanishes, or needs more memory than there is.
    Files whose names do not end in .laff.gz or .laff, or begin with a dot or underscore, are passed
    over. Only what is read of an archive is checked.

    The folder must be one that the driver and all workers see under the same path, a basis too.
    """

    @classmethod
    def name(cls) -> str:
        return "laff"

    def schema(self) -> StructType:
        settings = _Settings(self.options)
        fields = [StructField(name, kind) for name, kind in _PLAIN.items()]
        if settings.features:
            fields.append(StructField("features", VectorUDT()))
        if settings.image:
            fields.append(StructField("image", IMAGE))
        return StructType(fields)

    def reader(self, schema: StructType) -> "LaffReader":
        return LaffReader(_Settings(self.options), schema)


class _Settings:
    """The options of a read, checked. Raises LaffError for one that is wrong."""

    def __init__(self, options):
        from femto.basis import bases
        from femto.learning import feature_map

        options = {key.lower(): value for key, value in options.items()}
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise LaffError(f"the source laff has no option {unknown[0]!r}: see its documentation")
        self.features = _flag(options, "features")
        self.image = _flag(options, "image")
        self.colour = _flag(options, "colour")
        self.recursive = _flag(options, "recursivefilelookup")
        self.components = _number(options, "components", feature_map.COMPONENTS)
        self.grid = _number(options, "grid", 4)
        self.per_partition = _number(options, "filesperpartition", 64)
        self.max_pixels = _number(options, "maxpixels", BELIEVED_PIXELS) or None
        feature_map.check_components(self.components)
        feature_map.check_grid(self.grid)
        if self.per_partition < 1:
            raise LaffError("filesPerPartition must be at least 1")
        self.basis = str(_local(options["basis"]).absolute()) if "basis" in options else None
        bases.check_basis(self.basis)
        self.mode = options.get("mode", _MODES[0]).upper()
        if self.mode not in _MODES:
            raise LaffError(f"mode {options['mode']!r} is unknown: choose one of {_MODES}")
        self.paths = json.loads(options["paths"]) if "paths" in options else []
        self.paths += [options["path"]] if "path" in options else []


def _flag(options, name: str) -> bool:
    value = options.get(name, "false").lower()
    if value not in ("true", "false"):
        raise LaffError(f"{name} is {value!r}: give true or false")
    return value == "true"


def _number(options, name: str, default: int) -> int:
    value = options.get(name, str(default))
    if not value.isdecimal():
        raise LaffError(f"{name} is {value!r}: give a whole number")
    return int(value)


def _local(path: str) -> Path:
    """A path or file: URI as a path; LaffError for storage that femto does not read."""
    parts = urlsplit(path)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in path:
        raise LaffError(f"{path}: only files can be read: give a folder that all workers see")
    return Path(path)


class _Files(InputPartition):
    """Paths of archives that one task reads."""


class LaffReader(DataSourceReader):
    """Reads archives on the workers, and of each only what the schema's columns need."""

    def __init__(self, settings: _Settings, schema: StructType):
        for field in schema.fields:
            if field.dataType not in _TYPES.get(field.name, ()):
                raise LaffError(
                    f"the source laff has no column {field.name!r} of type "
                    f"{field.dataType.simpleString()}: it has {', '.join(_TYPES)}"
                )
        self.settings = settings
        self.columns = [field.name for field in schema.fields]
        self.as_vector = any(isinstance(field.dataType, VectorUDT) for field in schema.fields)

    def partitions(self) -> list[_Files]:
        """The archives, `filesPerPartition` to a task. Raises LaffError if a path is missing."""
        if not self.settings.paths:
            raise LaffError("no folder was given: load('FOLDER')")
        found = [p for path in self.settings.paths for p in self._listed(path)]
        size = self.settings.per_partition
        # At least one: Spark would else call read without files.
        return [_Files(found[i : i + size]) for i in range(0, len(found), size)] or [_Files([])]

    def _listed(self, path: str) -> list[str]:
        given = _local(path).absolute()
        if given.is_file():
            return [str(given)]
        if not given.is_dir():
            raise LaffError(f"{given}: no such file or folder: check the name")
        # An underscore hides too, as in Spark's own sources.
        found = find(given, ARCHIVES, recursive=self.settings.recursive, hidden=(".", "_"))
        # Those that cannot be used are rows with an error.
        names = [source.name for source in found.sources] + [name for name, _ in found.failed]
        return [str(given / name) for name in sorted(names)]

    def read(self, partition: _Files) -> Iterator[tuple]:
        """Rows of the partition's archives; those that fail as the option `mode` says."""
        for path in partition.value:
            try:
                values = self._values(path)
            except Exception as error:  # one archive must not end the query, whatever it holds
                reason = _reason(path, error)
                if self.settings.mode == "FAILFAST":
                    raise LaffError(f"{reason} (mode FAILFAST)") from None
                if self.settings.mode == "DROPMALFORMED":
                    continue
                values = {"path": path, "error": reason}
                with contextlib.suppress(OSError):
                    values["bytes"] = os.path.getsize(path)
            yield tuple(values.get(name) for name in self.columns)

    def _values(self, path: str) -> dict:
        values = {"path": path, "bytes": os.path.getsize(path)}
        wanted = set(self.columns) - values.keys()
        if not wanted:
            return values
        import femto
        from femto import codec
        from femto.samples import to_bytes

        settings = self.settings
        # Whatever else is wanted, the header and the first layer are looked at.
        if "features" in wanted:
            about = femto.features(
                path,
                components=settings.components,
                basis=settings.basis,
                max_pixels=settings.max_pixels,
            )
            vector = about.vector(settings.grid, colour=settings.colour)
            values["features"] = DenseVector(vector) if self.as_vector else vector.tolist()
        else:
            about = codec.parse(path, layers=1).header
        values |= {"width": about.width, "height": about.height, "bits": about.bits}
        if "image" in wanted:
            parsed = codec.parse(path, basis=settings.basis)
            pixels = femto.decode(parsed, samples=True, max_pixels=settings.max_pixels)
            values["image"] = _image(path, to_bytes(pixels, parsed.header.levels))
        return values


def _reason(path: str, error: Exception) -> str:
    """One printable line that names the archive."""
    if isinstance(error, LaffError):
        return str(error)
    if isinstance(error, MemoryError):
        what = "needs more memory than there is: give executors more, or a smaller maxPixels"
    elif isinstance(error, OSError) and error.strerror:
        what = f"cannot be read ({error.strerror}): check it"
    else:
        what = f"cannot be read ({type(error).__name__}: {error})"
    return printable(f"{path}: {what}")


def _image(path: str, pixels) -> tuple:
    """A picture in pyspark's image schema."""
    height, width = pixels.shape[:2]
    if pixels.ndim == 2:
        return (path, height, width, 1, _GREY, pixels.tobytes())
    return (path, height, width, 3, _COLOUR, pixels[:, :, ::-1].tobytes())
