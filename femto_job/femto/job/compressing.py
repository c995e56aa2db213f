"""Compressing a folder: find out what there is to do, do it by the runner, report."""

import io
import itertools
import os
import sqlite3
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .. import LaffError, codec
from ..basis.bases import load_basis
from ..errors import JobError, printable
from ..files.folder import Found, LeftOut, Source
from ..samples import Counts, Levels, Span
from . import measure, originals, plan, proof, pulse, report, tasks
from .catalog import Catalog
from .plan import Picture
from .records import STATE_FOLDER, Records, Rows
from .runner import Folders, Runner, Work, gone, reason_of, why_unread
from .sandbox import UnreadablePicture
from .settings import Options, Settings

PROBED_TOGETHER = 100
"""Most files whose headers one task reads."""
PORTION_NBYTES = 512 << 20
"""Pixels of one large picture that are under way at a time, at least; the driver holds what becomes
of them."""
PORTION_NBYTES_PER_CORE = 64 << 20
"""And for every core: some ten tasks, so that few wait for the last one."""


@dataclass
class Outcome:
    """What came of a job: rows of the report, counts, and how long it took.

    `rows` are read one after the other, as often as one likes, by picture and page; there may be a
    million of them, on disk.
    """

    rows: Iterable[dict]
    left_out: LeftOut = field(default_factory=LeftOut)
    seconds: float = 0.0
    coded_pixels: int = 0
    cores: int = 0
    reports: list[Path] = field(default_factory=list)
    gone: originals.Gone | None = None

    def count(self, status: str) -> int:
        """How many pictures ended as "done", "skipped" or "failed"."""
        if isinstance(self.rows, Rows):
            return self.rows.counts[status]
        return sum(row["status"] == status for row in self.rows)


class Job(Work):
    """One run over one folder. Errors of the whole job are raised as JobError."""

    def __init__(self, options: Options, start: Callable[..., Runner]):
        super().__init__(options, start)
        self._shown = 0
        self.outcome = Outcome([])

    def run(self) -> Outcome:
        """Compress everything that is not done. Raises JobError, KeyboardInterrupt."""
        began = time.monotonic()
        options = self.options
        try:
            options.output.mkdir(parents=True, exist_ok=True)
            with self._progress:
                with Records(options.output) as records:
                    self.outcome.rows = Rows(records.folder)
                    with Catalog(records, str(options.input.resolve())) as catalog:
                        self._run(records, catalog)
                self._require_output()
                self.outcome.seconds = time.monotonic() - began
                self._progress.phase("writing the report")
                self.outcome.reports = report.write(options, self.outcome)
        except OSError as error:
            raise self.unwritable(error) from None
        except sqlite3.Error as error:
            self._require_output()
            raise JobError(
                f"{printable(str(options.output))}: what is done cannot be written down ({error}): "
                "make room, then run the same command again"
            ) from None
        return self.outcome

    # Finding out what there is to do

    def _run(self, records: Records, catalog: Catalog) -> None:
        options = self.options
        self._set_up(records)
        self._progress.phase("looking for pictures")
        with records.transaction():
            found = Found(sources=catalog)
            plan.require_pictures(
                options.input,
                recursive=options.recursive,
                skip=options.output,
                into=found,
                # All of them may have been deleted.
                may_be_empty=options.delete_originals
                and self.settings.folders.input in records.inputs(),
            )
        self.outcome.left_out = found.left_out
        for name, reason in found.failed:
            self._fail_file(name, reason)
        self._progress.phase("looking what is done")
        self._set_apart(records, catalog)
        if catalog.count_new():
            folders = self.settings.folders
            pulse.clear(folders.token.parent)
            try:
                self._work(records, catalog)
            finally:
                pulse.clear(folders.token.parent)
        records.note("overwriting")
        if options.delete_originals:
            self._progress.phase("deleting originals")
            records.merge()
            self.outcome.gone = originals.delete(self.settings, records, self.outcome.rows)

    def _set_up(self, records: Records) -> None:
        """Settle what all tasks have to know."""
        options = self.options
        try:
            basis_sha256 = load_basis(options.basis).sha256
        except LaffError as error:
            raise JobError(str(error)) from None
        fingerprint = options.fingerprint(basis_sha256)
        folder = str(options.input.resolve())
        if options.moved_from is not None:
            self._move(records, folder)
        run = uuid.uuid4().hex[:12]
        if options.overwrite:
            # A run that overwrites, and was interrupted, goes on under its own name.
            begun = records.noted("overwriting") or {}
            if (begun.get("input"), begun.get("settings")) == (folder, fingerprint):
                run = begun["run"]
            else:
                begun = {"input": folder, "settings": fingerprint, "run": run}
                records.note("overwriting", begun)
        folders = Folders(input=folder, output=str(options.output.resolve()), run=run)
        self.settings = Settings(folders, options, fingerprint)

    def _move(self, records: Records, folder: str) -> None:
        old = str(self.options.moved_from.resolve())
        if old != folder and not records.move(old, folder):
            known = [printable(name) for name in records.inputs() if name != folder]
            raise JobError(
                f"{printable(old)}: no archive in {printable(str(self.options.output))} was made "
                f"from this folder: --moved-from takes {' or '.join(known[:5]) or 'none'}"
            )

    def _set_apart(self, records: Records, catalog: Catalog) -> None:
        """Rows for the files that are done; the catalog learns which are new."""
        with records.transaction():
            for number, source in catalog.sources():
                history = records.of(self.settings.folders.input, source.name)
                current = [r for r in history if self._is_current(r, source)]
                if current and len(current) == current[0]["pages"]:
                    for record in current:
                        self._add_row("skipped", record)
                else:
                    catalog.add_new(number, history[0]["base"] if history else None)

    def _is_current(self, record: dict, source: Source) -> bool:
        """Whether an archive is there, whole, and what this job would make of its picture."""
        if self.options.overwrite and record["run"] != self.settings.folders.run:
            return False
        made_of = (record["source_bytes"], record["source_mtime_ns"], record["settings"])
        if made_of != (source.nbytes, source.mtime_ns, self.settings.fingerprint):
            return False
        try:
            status = os.stat(self.options.output / record["archive"])
        except OSError:
            return False
        return status.st_size == record["archive_bytes"]

    def _work(self, records: Records, catalog: Catalog) -> None:
        self.task = partial(tasks.compress_pictures, self.settings)
        settings = self.settings
        with self.started(settings.folders, catalog.some_new):
            self._probe(catalog)
            self._progress.phase("naming archives")
            catalog.name_archives()
            self._choose(records, catalog)
            self._execute(catalog)

    def _probe(self, catalog: Catalog) -> None:
        """Read the headers of new files: the catalog learns their pages, and those without a page
        that can be read get their row in the report."""
        count, cores = catalog.count_new(), self._runner.cores
        size = min(PROBED_TOGETHER, max(1, count // (4 * cores)))
        sources = catalog.new_sources()

        def jobs() -> Iterator[Callable[[], None]]:
            while batch := list(itertools.islice(sources, 4 * cores * size)):
                yield partial(self._probe_batch, batch, size, catalog)

        self._progress.phase("reading headers", total=count, unit="files")
        self._runner.run(jobs())

    def _probe_batch(self, batch: list[tuple[int, Source]], size: int, catalog: Catalog) -> None:
        answers = []
        left = [source for _, source in batch]
        if not self._runner.all_fed:
            answers = self._runner.spread_safely(
                partial(tasks.probe_files, self.settings),
                [left[i : i + size] for i in range(0, len(left), size)],
                "reading headers",
                lambda source, reason: (source.name, None, reason),
            )
            unseen = {name for name, _, reason in answers if reason == "unseen"}
            answers = [a for a in answers if a[0] not in unseen]
            left = [source for source in left if source.name in unseen]
            if left:
                self._runner.feed(left)
        for source in left:
            self._runner.check()
            try:
                pages = self._runner.sandbox().probe(
                    self.settings.folders.path(source),
                    name=source.name,
                    reading=self.options.reading,
                )
                answers.append((source.name, pages, None))
            except UnreadablePicture as error:
                answers.append((source.name, None, str(error)))
        numbers = {source.name: number for number, source in batch}
        for name, pages, reason in answers:
            if reason is not None:
                self._fail_file(name, reason)
            else:
                catalog.add_pages(numbers[name], pages)
        self._progress.step(len(batch))

    def _choose(self, records: Records, catalog: Catalog) -> None:
        """The catalog learns which pages are to be compressed; the others get their rows."""
        with records.transaction():
            for number, source, page, named in catalog.pages():
                picture = self._picture(source, page, named)
                record = self._holder(records, picture.archive)
                made_from = record and (record["input"], record["picture"])
                own = made_from == (self.settings.folders.input, source.name)
                if own and self._is_current(record, source):
                    self._add_row("skipped", record)
                    continue
                reason = page["error"] and reason_of(UnreadablePicture(page["error"]))
                if originals.is_only_copy(record, source.nbytes, source.mtime_ns, own=own):
                    reason = reason or (
                        f"{record['archive']} is the only copy of another picture of this name, "
                        "whose original was deleted: rename this one"
                    )
                unclaimed = False
                if not reason and not own and not self.options.overwrite:
                    unclaimed = os.path.lexists(self.options.output / picture.archive)
                    if record is not None:
                        reason = self._foreign(record)
                    elif unclaimed and not self._may_be_own(picture):
                        reason = tasks.foreign(picture)
                if reason:
                    self.fail(picture, reason)
                else:
                    cut = len(_grid(picture)) > 1
                    catalog.add_todo(
                        number, picture.page, picture.pixels, cut=cut, unclaimed=unclaimed
                    )

    def _picture(self, source: Source, page: dict, named: dict, **more) -> Picture:
        """What the catalog knows as a picture."""
        return Picture(
            source=source,
            page=page["page"],
            width=page["width"],
            height=page["height"],
            channels=1 if self.options.gray else page["channels"],
            bits=page["bits"],
            label=page["label"],
            levels=page["levels"] and tuple(page["levels"]),
            segment=page["segment"] and tuple(page["segment"]),
            place=page["place"],
            **named,
            **more,
        )

    def _holder(self, records: Records, archive: str) -> dict | None:
        """The record of the file that has an archive's name, in this output folder."""
        record = records.get(archive)
        if record is None or record["archive"] == archive:
            return record
        try:
            same = os.path.samefile(
                self.options.output / record["archive"], self.options.output / archive
            )
        except OSError:
            same = False
        return record if same else None

    def _foreign(self, record: dict) -> str:
        """Why an archive must not be replaced that was made of another picture."""
        folder, here = record["input"], self.settings.folders.input
        reason = f"{record['archive']} is the archive of {record['picture']} in {folder}: "
        if folder == here:
            return reason + "rename this picture, or replace that archive with --overwrite"
        return reason + (
            "choose another --output, or replace that archive with --overwrite; "
            f"if that folder is now {here}, use --moved-from {folder}"
        )

    def _may_be_own(self, picture: Picture) -> bool:
        """Whether an archive that no record tells of looks as if it were made of this picture."""
        try:
            about = codec.info(self.options.output / picture.archive)
            source = tasks.embedded(self.settings, picture, {})["source"]
            size = (about["width"], about["height"])
            return about["source"] == source and size == (picture.width, picture.height)
        except (LaffError, OSError):
            return False

    # Doing it

    def _execute(self, catalog: Catalog) -> None:
        cores = self._runner.cores
        count, pixels = catalog.sums()
        limit = plan.cut_limit(pixels, cores, self.options.cut_above)
        whole, whole_pixels = catalog.sums(limit)
        cost = whole_pixels + whole * plan.FIXED_COST
        room = plan.SHOWN - self._shown
        every = max(1, -(-count // room)) if room > 0 else 0

        def pictures(*, above: bool) -> Iterator[Picture]:
            for number, unclaimed, source, page, named in catalog.todo(limit, above=above):
                shown = every > 0 and (number - 1) % every == 0
                yield self._picture(source, page, named, shown=shown, unclaimed=unclaimed)

        self.outcome.coded_pixels = pixels
        self.outcome.cores = cores
        folders = self.settings.folders
        self._progress.begin(
            count, pixels, look=partial(pulse.look, folders.token.parent, folders.run)
        )
        groups = plan.group(pictures(above=False), cost, cores)
        jobs = itertools.chain(
            (partial(self._compress_cut, p) for p in pictures(above=True)),
            self._runner.batches(groups, self),
        )
        self._runner.run(jobs)

    # Ordinary pictures, for the runner

    def describe(self, count: int) -> str:
        return f"compressing {count} pictures"

    def key(self, picture: Picture) -> str:
        return picture.archive

    def source(self, picture: Picture) -> Source:
        return picture.source

    def nbytes(self, picture: Picture) -> int:
        return min(picture.source.nbytes, picture.raw_nbytes)

    def load(self, picture: Picture) -> bytes | tasks.Pixels:
        """The file, or the pixels if they are less (a page of a file of many pages)."""
        if picture.source.nbytes <= picture.raw_nbytes + (1 << 20):
            return Path(self.settings.folders.path(picture.source)).read_bytes()
        page = tasks.read_page(self.settings, picture, sandbox=self._runner.sandbox())
        return tasks.Pixels.of(page.read(), page.icc, page.info)

    def take(self, picture: Picture, result: dict) -> None:
        if "data" in result:
            try:
                data, record = result["data"], result["record"]
                data = io.BytesIO(data) if isinstance(data, bytes) else data
                prove = result.get("prove") or partial(self._read_back, picture, record)
                if not self.options.verify:
                    prove = None
                tasks.save(self.settings, picture, record, data, prove)
            except (OSError, LaffError, UnreadablePicture) as error:
                failed = tasks.failure(picture, error)
                self.fail(picture, failed["error"], fatal=failed["fatal"])
                return
        self._add_row("done", result["record"])
        self._progress.add(pixels=picture.pixels, key=picture.archive)

    def _read_back(self, picture: Picture, record: dict, part: Path) -> None:
        """Prove that a file is the archive that a worker has decoded. Raises LaffError,
        UnreadablePicture, OSError."""
        with proof.Watch() as taken:
            path = self.settings.folders.path(picture.source)
            if record["source_sha256"] is None:
                record["source_sha256"] = proof.source_digest(path, picture.source)
            proof.require_unchanged(path, picture.source)
            if proof.file_digest(part, from_disk=True) != record["archive_sha256"]:
                raise LaffError(proof.NOT_AS_WRITTEN)
        record["verify_seconds"] += taken.seconds

    def fail(self, picture: Picture, reason: str, *, fatal: bool = False) -> None:
        row = {
            "picture": picture.source.name,
            "page": picture.page,
            "pages": picture.pages,
            "label": picture.label,
            "width": picture.width,
            "height": picture.height,
            "bits": picture.bits,
            "source_bytes": picture.source.nbytes,
        }
        self._add_row("failed", row, reason)
        self._progress.add(pixels=picture.pixels, failed=True, key=picture.archive)
        if fatal:
            count = self.outcome.count("done") + self.outcome.count("skipped")
            self.end_early(reason, f"{count} archives")

    # Large pictures

    def _compress_cut(self, picture: Picture) -> None:
        """Compress one large picture by many tasks, in the same rounds as femto.encode."""
        began = time.monotonic()
        try:
            facts, archive, made = self._rounds(picture)
        except _Failed as failed:
            self.fail(picture, failed.reason, fatal=failed.fatal)
            return
        except LaffError as error:  # such as a full disk for what is put aside
            self.fail(picture, reason_of(error))
            return
        shape = (picture.height, picture.width) + ((3,) if picture.channels == 3 else ())
        facts |= {"seconds": time.monotonic() - began}
        with archive:
            record = tasks.make_record(self.settings, picture, shape, facts)
            prove = partial(self._prove_cut, picture, record, *made)
            try:
                self.take(picture, {"record": record, "data": archive, "prove": prove})
            except _Failed as failed:
                self.fail(picture, failed.reason, fatal=failed.fatal)

    def _prove_cut(
        self, picture: Picture, record: dict, header: codec.ImageHeader, words: list, part: Path
    ) -> None:
        """Prove that a file is the archive of a large picture: it is read here, and its tiles are
        decoded by many tasks. The record learns of it. Raises LaffError, UnreadablePicture,
        OSError, _Failed."""
        with proof.Watch() as taken:
            path = self.settings.folders.path(picture.source)
            record["source_sha256"] = proof.source_digest(path, picture.source)
            record["archive_sha256"] = proof.file_digest(part, from_disk=True)
            parsed = proof.parse(part, header, self.settings.basis_file())
        wrong, seconds = [], 0.0
        groups = deque(plan.group_tiles(_grid(picture), self._runner.cores))
        while groups:
            with taken:
                some = [groups.popleft() for _ in range(min(len(groups), 4 * self._runner.cores))]
                parts = [_strings(parsed, [tile.index for tile in g], words) for g in some]
            results = self._runner.spread_safely(
                partial(tasks.prove_strings, self.settings),
                parts,
                f"verifying {picture.title}",
                lambda part, reason: {"error": reason},
            )
            for result in results:
                if "error" in result:
                    raise _Failed(result["error"], result.get("fatal", False))
                wrong += result["wrong"]
                seconds += result["cpu_seconds"]
        proof.require_equal(wrong, len(parsed.blocks), len(words))
        record["pixels_sha256"] = proof.whole_digest(word.digest for word in words)
        record["verify_seconds"] = taken.seconds + seconds

    def _rounds(self, picture: Picture) -> tuple[dict, BinaryIO, tuple]:
        """What a record tells of a large picture; its archive, in a file without a name; and what
        that must give back: its header and a proof.Word for each tile."""
        target, basis = self.options.target, self.options.basis
        depth, span = self._span(picture)
        search = codec.StepSearch(
            **target,
            levels=span.levels,
            limits=span.limits,
            channels=picture.channels,
            raw_nbytes=picture.raw_nbytes,
            samples=picture.pixels * picture.channels,
            max_error=self.options.max_error,
        )
        self._progress.watch(picture.archive, picture.pixels, self.options.passes)
        history: list[tuple[float, int, float]] = []
        kept = None
        look, icc, info = tasks.Look.nothing(), None, {}
        cpu = 0.0
        step = search.first()
        while step is not None:
            tiles = codec.Tiles()
            results = self._on_tiles(
                tasks.code_chunks,
                picture,
                f"tiles of {picture.title}",
                self._progress.count,
                step=step,
                span=span,
                look=not history,
            )
            for result in results:
                for index, tile in result["tiles"]:
                    tiles[index] = tile
                cpu += result["cpu_seconds"]
                if not history:
                    look += result["look"]
                    if result["tiles"][0][0] == 0:  # the first ones speak for all
                        icc, info = result["icc"], result["info"]
            header = codec.ImageHeader(
                width=picture.width,
                height=picture.height,
                mode="RGB" if picture.channels == 3 else "L",
                bits=depth,
                levels=span.levels,
                limits=span.limits,
                mapping=info.get("mapping"),
                icc=icc,
                **tasks.embedded(self.settings, picture, info),
            )
            archive = tempfile.TemporaryFile()  # noqa: SIM115 (the best one stays open)
            try:
                nbytes = codec.assemble(
                    header, step=step, basis=basis, **self.options.method, tiles=tiles, file=archive
                )
            except OSError as error:
                raise LaffError(
                    f"{tempfile.gettempdir()}: no room for a large archive ({error.strerror}): "
                    "free some, or name another folder in TMPDIR"
                ) from None
            history.append((step, nbytes, tiles.sse))
            if search.best(history) == len(history) - 1:
                kept = (tiles, archive, header)
            step = search.next(history)
        tiles, archive, header = kept
        words = tiles.seen
        seen = [word.seen for word in words if word.seen is not None]
        facts = {}
        if seen:
            facts = measure.Watch(picture.width, picture.height, None).facts(seen, icc, span.levels)
        best = history[search.best(history)]
        outcome = search.outcome(best)
        facts |= tasks.remarks(self.settings, picture, info, look, span, best[2], outcome, best[1])
        facts |= {"archive_bytes": best[1], "cpu_seconds": cpu}
        return facts, archive, (header, words)

    def _span(self, picture: Picture) -> tuple[int, Span]:
        """The bits of a large picture's samples and the levels that it uses."""
        bits, levels = self.settings.declared_bits(picture), picture.levels
        if self.options.bits is not None:
            levels = None
        counts = None
        if codec.needs_counts(picture.dtype, bits, levels):
            results = self._on_tiles(tasks.count_chunks, picture, f"levels of {picture.title}")
            first, *others = (Counts.unpack(result["counts"]) for result in results)
            counts = sum(others, first)
        try:
            return codec.span_of(picture.dtype, bits, levels and Levels(*levels), counts)
        except LaffError as error:
            raise _Failed(str(error)) from None

    def _on_tiles(self, function, picture, description, count=None, **what) -> Iterator[dict]:
        """Run a task function over all tiles of a picture, `what` to do in its chunks, and yield
        the results in portions, so that memory does not follow the picture; `count` is told of
        every portion that is fed. Raises _Failed."""
        fed = self._runner.is_fed(picture.source)
        # The driver's own process keeps what it decodes from one chunk to the next.
        segment = None if fed else picture.segment
        groups = plan.group_tiles(_grid(picture), self._runner.cores, segment)
        chunks = deque(tasks.Chunk(picture, group, **what) for group in groups)
        run = partial(
            self._runner.spread_safely,
            partial(function, self.settings),
            description=description,
            lost=lambda chunk, reason: {"key": picture.archive, "error": reason},
        )
        while chunks:
            portion = self._portion(chunks, fed)
            results = run(parts=[self._with_pixels(c) if fed else c for c in portion])
            if any(result.get("unseen") for result in results):
                self._runner.feed([picture.source])
                fed = True
                chunks.extendleft(reversed(portion))
                continue
            for result in results:
                if "error" in result:
                    raise _Failed(result["error"], result.get("fatal", False))
            if fed and count is not None:
                count(picture.archive, sum(t.height * t.width for c in portion for t in c.tiles))
            yield from results

    def _portion(self, chunks: deque[tasks.Chunk], fed: bool) -> list[tasks.Chunk]:
        """Take as many chunks as memory may hold the pixels of, or what becomes of them."""
        most = self._runner.portion_nbytes()
        if not fed:
            most = max(PORTION_NBYTES, self._runner.cores * PORTION_NBYTES_PER_CORE)
        portion, nbytes = [], 0
        while chunks and (not portion or nbytes < most):
            portion.append(chunks.popleft())
            pixels = sum(tile.height * tile.width for tile in portion[-1].tiles)
            nbytes += pixels * portion[-1].picture.channels * portion[-1].picture.dtype.itemsize
        return portion

    def _with_pixels(self, chunk: tasks.Chunk) -> tasks.Chunk:
        self._runner.check()
        try:
            arrays, icc, info = tasks.read_tiles(
                self.settings, chunk.picture, chunk.tiles, self._runner.sandbox()
            )
            info = tasks.about(chunk.tiles, info)
            # The first ones speak for all.
            payload = [tasks.Pixels.of(a, icc, {} if i else info) for i, a in enumerate(arrays)]
        except (UnreadablePicture, OSError) as error:
            raise _Failed(why_unread(error)) from None
        return replace(chunk, payload=payload)

    # Bookkeeping

    def _fail_file(self, name: str, reason: str) -> None:
        self._add_row("failed", {"picture": name, "page": 0, "pages": 1, "label": None}, reason)

    def _add_row(self, status: str, facts: dict, reason: str | None = None) -> None:
        self._shown += bool(facts.get("visual"))
        self.outcome.rows.append({**facts, "status": status, "error": reason})

    def _require_output(self) -> None:
        """JobError if the output folder is gone."""
        if not (self.options.output / STATE_FOLDER).is_dir():
            raise JobError(gone(str(self.options.output)))


class _Failed(Exception):
    """A large picture cannot be compressed."""

    def __init__(self, reason: str, fatal: bool = False):
        super().__init__(reason)
        self.reason, self.fatal = reason, fatal


def _strings(parsed, numbers: list[int], words: list) -> proof.Strings:
    """What a task needs to decode some tiles of an archive."""
    header = replace(parsed.header, icc=None, metadata=None)
    return proof.Strings(
        replace(parsed, header=header, packed=None, preview=None, blocks=[], layers=[]),
        numbers,
        [parsed.blocks[number] for number in numbers],
        [[strings[number] for number in numbers] for strings in parsed.layers],
        [words[number].digest for number in numbers],
    )


def _grid(picture: Picture) -> list:
    return codec.tile_grid(picture.height, picture.width)
