"""The files and pages of one run, on disk: there may be a million of them.

They are tables beside the records, in a file of their own that ends with the run:

    files   all picture files of the input folder
    new     those of them that are not done; `base` of their archives
    pages   the pictures in new files, and the names of their archives
    todo    the pictures that are to be compressed
"""

import json
import os
import threading
import uuid
from collections.abc import Iterator

from ..files.folder import Source, folded
from .plan import archive_name, without_extension
from .records import ROWS_AT_ONCE, Records

_TABLES = """
CREATE TABLE run.files
  (id INTEGER PRIMARY KEY, name BLOB, nbytes INTEGER, mtime_ns INTEGER, stem BLOB);
CREATE TABLE run.new (file INTEGER PRIMARY KEY, kept INTEGER, base BLOB, pages INTEGER);
CREATE TABLE run.pages
  (file INTEGER, page INTEGER, facts TEXT, archive BLOB, folded BLOB, PRIMARY KEY (file, page));
CREATE TABLE run.todo
  (number INTEGER PRIMARY KEY, file INTEGER, page INTEGER, pixels INTEGER, cut INTEGER,
   unclaimed INTEGER);
"""


class Catalog:
    """What a run knows of its files. Safe to use from several threads. A context manager.

    Parameters: the records of the output folder, which are open; the input folder, as records
    name it.
    """

    def __init__(self, records: Records, folder: str):
        self._input = folder
        self._db = records.db
        self._path = records.folder / f"run-files-{uuid.uuid4().hex}.sqlite"
        self._lock = threading.RLock()
        self._files = 0
        uri = f"{self._path.absolute().as_uri()}?nolock=1"
        self._db.execute("ATTACH ? AS run", (uri,))
        self._db.execute("PRAGMA run.journal_mode = OFF")
        self._db.execute("PRAGMA run.synchronous = OFF")
        self._db.executescript(_TABLES)
        self._db.create_function("archive_of", 4, _archive_of, deterministic=True)
        self._db.create_function("folded", 1, _folded, deterministic=True)

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *exception) -> None:
        self._path.unlink(missing_ok=True)

    # Files

    def append(self, source: Source) -> None:
        """Add a picture file."""
        with self._lock:
            self._files += 1
            self._db.execute(
                "INSERT INTO run.files (name, nbytes, mtime_ns, stem) VALUES (?, ?, ?, ?)",
                (
                    os.fsencode(source.name),
                    source.nbytes,
                    source.mtime_ns,
                    os.fsencode(folded(without_extension(source.name))),
                ),
            )

    def __len__(self) -> int:
        return self._files

    def sources(self) -> Iterator[tuple[int, Source]]:
        """All files with their numbers, in the order in which they were added."""
        for number, *facts in self._chunks("SELECT id, name, nbytes, mtime_ns FROM run.files", 1):
            yield number, _source(*facts)

    def add_new(self, number: int, base: str | None) -> None:
        """A file is not done; `base`, the one of its archives in earlier runs."""
        with self._lock:
            self._db.execute(
                "INSERT INTO run.new (file, kept, base) VALUES (?, ?, ?)",
                (number, base is not None, None if base is None else os.fsencode(base)),
            )

    def count_new(self) -> int:
        """How many files are not done."""
        return self._one("SELECT count(*) FROM run.new")

    def new_sources(self) -> Iterator[tuple[int, Source]]:
        """The files that are not done, with their numbers."""
        query = "SELECT id, name, nbytes, mtime_ns FROM run.new JOIN run.files ON id = file"
        for number, *facts in self._chunks(query, 1):
            yield number, _source(*facts)

    def some_new(self, count: int) -> list[Source]:
        """About so many of these, from all over the folder."""
        step = max(1, self.count_new() // count)
        query = (
            "SELECT name, nbytes, mtime_ns FROM run.files JOIN "
            "(SELECT file, row_number() OVER (ORDER BY file) AS place FROM run.new) ON id = file "
            "WHERE place % ? = 0 LIMIT ?"
        )
        with self._lock:
            return [_source(*facts) for facts in self._db.execute(query, (step, 2 * count))]

    # Pages and the names of archives

    def add_pages(self, number: int, pages: list[dict]) -> None:
        """What the header of a file says of its pages."""
        with self._lock:
            self._db.execute("UPDATE run.new SET pages = ? WHERE file = ?", (len(pages), number))
            self._db.executemany(
                "INSERT INTO run.pages (file, page, facts) VALUES (?, ?, ?)",
                ((number, page["page"], json.dumps(page)) for page in pages),
            )

    def name_archives(self) -> None:
        """Choose the base of every new file's archives, and name them.

        A file's base is its name without extension, unless another picture in the same folder
        would then have an archive of the same name: then each of them keeps its full name (a.png
        and a.tif become a.png.laff.gz and a.tif.laff.gz). A base once given is kept, whatever is
        added beside it later; and what has become of another picture of this folder is not taken.
        """
        with self._lock:
            execute = self._db.execute
            execute("CREATE INDEX IF NOT EXISTS run.by_stem ON files (stem)")
            execute("CREATE TABLE run.rivals (stem BLOB PRIMARY KEY)")
            execute(
                "INSERT INTO run.rivals "
                "SELECT stem FROM run.files GROUP BY stem HAVING count(*) > 1"
            )
            self._db.create_function("base_of", 1, _base_of, deterministic=True)
            execute(
                "UPDATE run.new SET base = (SELECT CASE WHEN stem IN (SELECT stem FROM run.rivals) "
                "THEN name ELSE base_of(name) END FROM run.files WHERE id = file) WHERE NOT kept"
            )
            self._name("true")
            execute("CREATE INDEX run.by_archive ON pages (folded)")
            while True:
                execute("DROP TABLE IF EXISTS run.moved")
                execute(
                    "CREATE TABLE run.moved AS SELECT DISTINCT pages.file FROM run.pages "
                    "JOIN run.new ON new.file = pages.file JOIN run.files ON files.id = pages.file "
                    "WHERE NOT kept AND base != name AND (pages.folded IN "
                    "(SELECT folded FROM run.pages GROUP BY folded HAVING count(*) > 1) OR EXISTS "
                    "(SELECT 1 FROM main.records AS held WHERE held.folded = pages.folded "
                    "AND held.input = ? AND held.source != name))",
                    (os.fsencode(self._input),),
                )
                if not self._one("SELECT count(*) FROM run.moved"):
                    return
                execute(
                    "UPDATE run.new SET base = (SELECT name FROM run.files WHERE id = file) "
                    "WHERE file IN (SELECT file FROM run.moved)"
                )
                self._name("file IN (SELECT file FROM run.moved)")

    def _name(self, which: str) -> None:
        self._db.execute(
            "UPDATE run.pages SET archive = (SELECT archive_of(base, page, new.pages, facts) "
            f"FROM run.new WHERE new.file = pages.file) WHERE {which}"
        )
        self._db.execute(f"UPDATE run.pages SET folded = folded(archive) WHERE {which}")

    def pages(self) -> Iterator[tuple[int, Source, dict, dict]]:
        """All pages of new files: the file's number, the file, what its header says of the page,
        and `pages`, `base` and `archive` of the picture."""
        query = f"SELECT {_PAGE} FROM {_JOINED} WHERE (pages.file, pages.page) > (?, ?) "
        query += "ORDER BY pages.file, pages.page LIMIT ?"
        last = (-1, -1)
        while True:
            with self._lock:
                found = self._db.execute(query, (*last, ROWS_AT_ONCE)).fetchall()
            if not found:
                return
            for row in found:
                yield row[0], *_page(*row[1:])
            last = (found[-1][0], json.loads(found[-1][4])["page"])

    # What is to be done

    def add_todo(self, number: int, page: int, pixels: int, *, cut: bool, unclaimed: bool) -> None:
        """A picture is to be compressed; `cut`: it has several tiles; `unclaimed`: a file has the
        name of its archive that no record tells of."""
        with self._lock:
            self._db.execute(
                "INSERT INTO run.todo (file, page, pixels, cut, unclaimed) VALUES (?, ?, ?, ?, ?)",
                (number, page, pixels, cut, unclaimed),
            )

    def sums(self, limit: float | None = None) -> tuple[int, int]:
        """How many pictures are to be compressed, and how many pixels they have: all of them, or
        those that are not above a limit of pixels with several tiles."""
        query = (
            "SELECT count(*), coalesce(sum(pixels), 0) FROM run.todo "
            "WHERE NOT (cut AND pixels > coalesce(?, 1e300))"
        )
        with self._lock:
            return self._db.execute(query, (limit,)).fetchone()

    def todo(self, limit: float, *, above: bool) -> Iterator[tuple[int, bool, Source, dict, dict]]:
        """The pictures above a limit of pixels (that have several tiles), or all others, the
        largest first: a running number from 1, `unclaimed`, and what `pages` gives of them."""
        chosen = "(cut AND todo.pixels > ?)"
        query = (
            f"SELECT number, unclaimed, {_PAGE} FROM {_JOINED} JOIN run.todo "
            "ON todo.file = pages.file AND todo.page = pages.page "
            f"WHERE {chosen if above else 'NOT ' + chosen} ORDER BY todo.pixels DESC, archive"
        )
        for number, unclaimed, _, *row in self._chunks(query, 0, limit):
            yield number, bool(unclaimed), *_page(*row)

    def _one(self, query: str):
        with self._lock:
            return self._db.execute(query).fetchone()[0]

    def _chunks(self, query: str, sort: int, *parameters) -> Iterator[tuple]:
        """The rows of a query, some at a time; `sort` by so many first columns."""
        with self._lock:
            order = f" ORDER BY {', '.join(map(str, range(1, sort + 1)))}" if sort else ""
            cursor = self._db.execute(query + order, parameters)
        while True:
            with self._lock:
                found = cursor.fetchmany(ROWS_AT_ONCE)
            if not found:
                return
            yield from found


_PAGE = "files.id, name, nbytes, mtime_ns, facts, new.pages, base, archive"
_JOINED = "run.pages JOIN run.new ON new.file = pages.file JOIN run.files ON files.id = pages.file"


def _source(name: bytes, nbytes: int, mtime_ns: int) -> Source:
    return Source(os.fsdecode(name), nbytes, mtime_ns)


def _page(name, nbytes, mtime_ns, facts, pages, base, archive) -> tuple[Source, dict, dict]:
    named = {"pages": pages, "base": os.fsdecode(base), "archive": os.fsdecode(archive)}
    return _source(name, nbytes, mtime_ns), json.loads(facts), named


def _base_of(name: bytes) -> bytes:
    return os.fsencode(without_extension(os.fsdecode(name)))


def _archive_of(base: bytes, page: int, pages: int, facts: str) -> bytes:
    label = json.loads(facts)["label"] if pages > 1 else None
    return os.fsencode(archive_name(os.fsdecode(base), page, pages, label))


def _folded(name: bytes) -> bytes:
    return os.fsencode(folded(os.fsdecode(name)))
