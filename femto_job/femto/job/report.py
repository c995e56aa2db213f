"""What became of every picture: report.parquet and report.csv, to compute with, report.html, to
look at, and failures.csv, if something failed.

Rows are read once and written as they come: there may be a million of them, and the report takes
no more memory for it. The tables have a row for each; the page (page.py) stays small.
"""

import contextlib
import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ..files.whole import whole_file, write_whole
from .page import Page
from .plan import which

PAGE, CSV, PARQUET, FAILURES = "report.html", "report.csv", "report.parquet", "failures.csv"
COLUMNS = {
    "picture": "string",
    "page": "int32",
    "status": "string",
    "archive": "string",
    "width": "int32",
    "height": "int32",
    "mode": "string",
    "bits": "int8",
    "source_bytes": "int64",
    "raw_bytes": "int64",
    "archive_bytes": "int64",
    "ratio": "float64",
    "bits_per_pixel": "float64",
    "psnr_db": "float64",
    "ssim": "float64",
    "target_met": "bool",
    "seconds": "float64",
    "verify_seconds": "float64",
    "source_sha256": "string",
    "archive_sha256": "string",
    "pixels_sha256": "string",
    "warnings": "string",
    "notes": "string",
    "error": "string",
}
"""The columns of both tables, and Arrow's types of them."""
FAILED_COLUMNS = ("picture", "page", "which", "source_bytes", "error")
BATCH = 10_000
"""Rows that report.parquet gets at a time."""
_DIGITS = {"ratio": 3, "bits_per_pixel": 4, "psnr_db": 2, "ssim": 5, "seconds": 2,
           "verify_seconds": 2}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write(options, outcome) -> list[Path]:
    """Write the report into the output folder, and failures.csv in any case. Returns the paths of
    the files that were written, the page first. Raises OSError."""
    output = options.output
    tables, page = [], None
    with contextlib.ExitStack() as stack:
        failures = _Failures(output / FAILURES, stack)
        if options.report:
            tables = [Csv(output / CSV, stack, COLUMNS), _Parquet(output / PARQUET, stack)]
            page = Page(options, outcome)
        for row in outcome.rows:
            if row["status"] == "failed":
                failures.add(row)
            if page is not None:
                page.add(row)
                values = facts(row)
                for table in tables:
                    table.add(values)
    written = [table.path for table in tables]
    if page is not None:
        write_whole(output / PAGE, page.render().encode("utf-8", "replace"))
        written.insert(0, output / PAGE)
    if failures.count:
        written.append(failures.path)
    else:
        failures.path.unlink(missing_ok=True)
    return written


def facts(row: dict) -> dict:
    """One row of the tables: bytes, pixels, dB, seconds; None where nothing is known. A picture
    without any error has an infinite PSNR."""
    values = {name: row.get(name) for name in COLUMNS}
    values |= {
        "page": row["page"] + 1,
        "psnr_db": row.get("psnr"),
        "warnings": "; ".join(row.get("warnings", ())),
        "notes": "; ".join(row.get("notes", ())),
    }
    if row["status"] != "failed":
        values |= {
            "ratio": row["raw_bytes"] / row["archive_bytes"],
            "bits_per_pixel": 8 * row["archive_bytes"] / (row["width"] * row["height"]),
        }
    return values


def cell(value) -> str:
    """The text of a value in a table of text. One that a spreadsheet would take for a formula (file
    names are chosen by strangers) begins with an apostrophe, as OWASP advises."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return "'" + text if isinstance(value, str) and text.startswith(_FORMULA) else text


class Csv:
    """A table of text: a line for each row that is added, whole when the `stack` ends.

    `columns` are their names; a row is a dict that has all of them.
    """

    def __init__(self, path: Path, stack: contextlib.ExitStack, columns: Iterable[str]):
        self.path = path
        file = stack.enter_context(whole_file(path))
        self._text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        # The file is left to whom it belongs, with what is buffered.
        stack.callback(self._text.detach)
        self._columns = tuple(columns)
        self._writer = csv.writer(self._text)
        self._writer.writerow(self._columns)

    def add(self, values: dict) -> None:
        self._writer.writerow(
            f"{value:.{_DIGITS[name]}f}"
            if isinstance(value := values[name], float) and name in _DIGITS
            else cell(value)
            for name in self._columns
        )


class _Failures:
    """failures.csv, which is made with its first row."""

    def __init__(self, path: Path, stack: contextlib.ExitStack):
        self.path, self.count = path, 0
        self._stack = stack
        self._table = None

    def add(self, row: dict) -> None:
        if self._table is None:
            self._table = Csv(self.path, self._stack, FAILED_COLUMNS)
        self.count += 1
        name = which(row["page"], row["pages"], row["label"]).strip(" ()")
        size = row.get("source_bytes")
        self._table.add(row | {"page": row["page"] + 1, "which": name, "source_bytes": size})


class _Parquet:
    """report.parquet: names and reasons as they are, only what is no Unicode escaped."""

    def __init__(self, path: Path, stack: contextlib.ExitStack):
        import pyarrow
        from pyarrow import parquet

        self.path = path
        self._schema = pyarrow.schema(
            [(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()]
        )
        file = stack.enter_context(whole_file(path))
        self._writer = stack.enter_context(
            parquet.ParquetWriter(file, self._schema, compression="zstd")
        )
        self._rows: list[dict] = []
        stack.callback(self._flush)

    def add(self, values: dict) -> None:
        self._rows.append({k: _unicode(v) for k, v in values.items()})
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_batch(pyarrow.RecordBatch.from_pylist(self._rows, self._schema))
        self._rows = []


def _unicode(value):
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value
