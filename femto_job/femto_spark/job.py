"""Compressing a folder: find out what there is to do, do it by the runner, report."""

import hashlib
import itertools
import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from femto import LaffError, codec
from femto.bases import DEFAULT, load_basis
from femto.samples import Counts, Levels, Span
from femto.target import DEFAULT_QUALITY

from . import measure, plan, report, session, tasks
from .plan import Picture, Source, printable
from .progress import Progress
from .records import JobError, Records, write_whole
from .runner import Folders, Runner, Work, why_unread
from .sandbox import UnreadablePicture

PROBED_TOGETHER = 100
"""Most files whose headers one task reads."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; see compress.py."""

    input: Path
    output: Path
    target: dict = field(default_factory=dict)
    gray: bool = False
    bands: list[int] | str | None = None
    alpha: bool = True
    range: list[float] | None = None
    basis: str = "photo"
    effort: str = "full"
    tune: str = "psnr"
    recursive: bool = False
    overwrite: bool = False
    report: bool = True
    reader: str = "auto"
    cut_above: float | None = None
    bits: int | None = None
    strict: bool = False
    strip_metadata: bool = False
    quiet: bool = False

    @property
    def reading(self) -> dict:
        """What femto.pictures is to read of a file, where that is not plain."""
        return {"bands": self.bands, "alpha": self.alpha, "range": self.range}


@dataclass
class Outcome:
    """What came of a job: rows of the report, counts, and how long it took."""

    rows: list[dict]
    left_out: plan.LeftOut = field(default_factory=plan.LeftOut)
    seconds: float = 0.0
    coded_pixels: int = 0
    cores: int = 0
    reports: list[Path] = field(default_factory=list)

    def count(self, status: str) -> int:
        """How many pictures ended as "done", "skipped" or "failed"."""
        return sum(row["status"] == status for row in self.rows)


class Job(Work):
    """One run over one folder.

    Parameters: the options, and a function that gives the SparkContext; it is called only if
    there is something to do. Errors of the whole job are raised as JobError.
    """

    def __init__(self, options: Options, get_context: Callable):
        self.options = options
        self._get_context = get_context
        self._progress: Progress | None = None
        self.outcome = Outcome([])

    def run(self) -> Outcome:
        """Compress everything that is not done. Raises JobError, KeyboardInterrupt."""
        began = time.monotonic()
        found = plan.require_pictures(
            self.options.input, recursive=self.options.recursive, skip=self.options.output
        )
        self.outcome.left_out = found.left_out
        for name, reason in found.failed:
            self._fail_file(name, reason)
        try:
            self.options.output.mkdir(parents=True, exist_ok=True)
            with Records(self.options.output) as records:
                self._run(found.sources, records)
        except OSError as error:
            raise JobError(self._unwritable(error)) from None
        self.outcome.seconds = time.monotonic() - began
        self.outcome.rows.sort(key=lambda row: (row["picture"], row["page"]))
        try:
            self.outcome.reports = report.write(self.options, self.outcome)
        except OSError as error:
            raise JobError(self._unwritable(error)) from None
        return self.outcome

    # Finding out what there is to do

    def _run(self, sources: list[Source], records: Records) -> None:
        options = self.options
        try:
            basis_sha256 = load_basis(options.basis).sha256
        except LaffError as error:
            raise JobError(str(error)) from None
        target = options.target or {"quality": DEFAULT_QUALITY}
        plan = {"effort": options.effort, "tune": options.tune}
        wanted = {
            "target": {k: float(v) for k, v in target.items()},
            "gray": options.gray,
            **options.reading,
            "bits": options.bits,
            "strip": options.strip_metadata,
            "basis": basis_sha256,
            **plan,
        }
        folders = Folders(
            input=str(options.input.resolve()),
            output=str(options.output.resolve()),
            run=uuid.uuid4().hex[:12],
        )
        self.settings = tasks.Settings(
            folders=folders,
            target=options.target,
            plan=plan,
            gray=options.gray,
            reading=options.reading,
            basis=options.basis,
            basis_file=None if options.basis == DEFAULT else Path(options.basis).name,
            measure=options.report,
            bits=options.bits,
            strip=options.strip_metadata,
            fingerprint=hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest(),
        )
        history = defaultdict(list)
        for record in records.by_archive.values():
            history[record["picture"]].append(record)
        new = []
        for source in sources:
            current = [r for r in history[source.name] if self._is_current(r, source)]
            if current and len(current) == current[0]["pages"]:
                for record in current:
                    self._add_row("skipped", record)
            else:
                new.append(source)
        if not new:
            return
        write_whole(folders.token, folders.run.encode())
        context = None
        try:
            context = self._get_context()
            with Runner(context, folders, reader=options.reader, quiet=options.quiet) as runner:
                self._runner = runner
                self._start(new)
                self._execute(self._plan(new, sources, history, records))
        except (JobError, OSError):
            raise
        except Exception:
            if context is not None and session.is_stopped(context):
                raise JobError(session.GONE) from None
            raise
        finally:
            folders.token.unlink(missing_ok=True)

    def _is_current(self, record: dict | None, source: Source) -> bool:
        """Whether an archive is there, whole, and what this job would make of its picture."""
        if self.options.overwrite or record is None:
            return False
        made_of = (record["source_bytes"], record["source_mtime_ns"], record["settings"])
        if made_of != (source.nbytes, source.mtime_ns, self.settings.fingerprint):
            return False
        try:
            status = os.stat(self.options.output / record["archive"])
        except OSError:
            return False
        return status.st_size == record["archive_bytes"]

    def _start(self, sources: list[Source]) -> None:
        """Prepare the executors, and find out who can read the pictures."""
        self._progress = Progress(0, 0, quiet=True)
        self.task = partial(tasks.compress_pictures, self.settings)
        if self.settings.basis_file is not None:
            self._runner.context.addFile(str(Path(self.options.basis).resolve()))
        self._runner.find_view(sources)

    def _plan(self, new: list[Source], sources: list[Source], history, records) -> list[Picture]:
        pages = self._probe(new)
        counted = {}
        for source in sources:
            found = pages.get(source.name)
            if found is not None:
                counted[source.name] = [(p["page"], p["label"]) for p in found]
            else:
                counted[source.name] = [(r["page"], r["label"]) for r in history[source.name]] or [
                    (0, None)
                ]
        kept = {name: rows[0]["base"] for name, rows in history.items() if rows}
        taken = [r["archive"] for r in records.by_archive.values() if r["picture"] not in counted]
        bases = plan.name_bases(counted, kept, taken)
        pictures = []
        for source in new:
            for page in pages.get(source.name) or []:
                picture = Picture(
                    source=source,
                    page=page["page"],
                    pages=len(pages[source.name]),
                    width=page["width"],
                    height=page["height"],
                    channels=1 if self.options.gray else page["channels"],
                    bits=page["bits"],
                    archive=plan.archive_name(
                        bases[source.name],
                        page["page"],
                        len(pages[source.name]),
                        page["label"],
                    ),
                    base=bases[source.name],
                    label=page["label"],
                    levels=page["levels"],
                    segment=page["segment"],
                    place=page["place"],
                )
                record = records.by_archive.get(picture.archive)
                if self._is_current(record, source):
                    self._add_row("skipped", record)
                    continue
                reason = page["error"] and tasks.reason_of(UnreadablePicture(page["error"]))
                if record is None and not self.options.overwrite:
                    reason = reason or self._foreign(picture)
                if reason:
                    self.fail(picture, reason)
                else:
                    pictures.append(picture)
        room = plan.SHOWN - sum(bool(row.get("visual")) for row in self.outcome.rows)
        if room > 0 and pictures:
            every = max(1, -(-len(pictures) // room))
            pictures = [replace(p, shown=i % every == 0) for i, p in enumerate(pictures)]
        return pictures

    def _foreign(self, picture: Picture) -> str | None:
        """Why an archive must not be replaced that no record tells of; None if it may."""
        path = self.options.output / picture.archive
        if not os.path.lexists(path):
            return None
        try:
            source = tasks.embedded(self.settings, picture, {})["source"]
            if source is not None and codec.info(path)["source"] == source:
                return None
        except (LaffError, OSError):
            pass
        return (
            f"{printable(picture.archive)} exists and was not made from it: "
            "move that file away, or use --overwrite"
        )

    def _probe(self, sources: list[Source]) -> dict[str, list[dict]]:
        """Pages by file; files without a readable page get their row in the report."""
        answers = []
        left = list(sources)
        if not self._runner.all_fed:
            size = min(PROBED_TOGETHER, max(1, len(sources) // (4 * self._runner.cores)))
            groups = [sources[i : i + size] for i in range(0, len(sources), size)]
            answers = self._runner.spread_safely(
                partial(tasks.probe_files, self.settings),
                groups,
                "reading headers",
                lambda source, reason: (source.name, None, reason),
            )
            unseen = {name for name, _, reason in answers if reason == "unseen"}
            answers = [a for a in answers if a[0] not in unseen]
            left = [s for s in sources if s.name in unseen]
            if left:
                self._runner.feed(left)
        for source in left:
            self._runner.check()
            try:
                pages = self._runner.sandbox().probe(
                    self.settings.folders.path(source),
                    name=source.name,
                    reading=self.settings.reading,
                )
                answers.append((source.name, pages, None))
            except UnreadablePicture as error:
                answers.append((source.name, None, str(error)))
        for name, _, reason in answers:
            if reason is not None:
                self._fail_file(name, reason)
        return {name: pages for name, pages, reason in answers if reason is None}

    # Doing it

    def _execute(self, pictures: list[Picture]) -> None:
        cores = self._runner.cores
        limit = plan.cut_limit(pictures, cores, self.options.cut_above)
        cut = [p for p in pictures if p.pixels > limit and len(_grid(p)) > 1]
        whole = [p for p in pictures if not (p.pixels > limit and len(_grid(p)) > 1)]
        groups = plan.group(whole, cores)
        self.outcome.coded_pixels = sum(p.pixels for p in pictures)
        self.outcome.cores = cores
        self._progress = Progress(
            len(pictures), self.outcome.coded_pixels, quiet=self.options.quiet
        )
        jobs = itertools.chain(
            (partial(self._compress_cut, p) for p in sorted(cut, key=lambda p: -p.pixels)),
            self._runner.batches(groups, self),
        )
        try:
            self._runner.run(jobs, self._progress.refresh)
        finally:
            self._progress.close()

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
                tasks.save(self.settings, result["record"], result["data"])
            except OSError as error:
                failed = tasks.failure(picture, error)
                self.fail(picture, failed["error"], fatal=failed["fatal"])
                return
        self._add_row("done", result["record"])
        self._progress.add(pixels=picture.pixels)

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
        self._progress.add(pixels=picture.pixels, failed=True)
        if fatal:
            count = self.outcome.count("done") + self.outcome.count("skipped")
            self._runner.stop(
                JobError(
                    f"{printable(str(self.options.output))}: {reason.rpartition(': ')[2]}: "
                    f"{count} archives are whole; make room, then run the same command again"
                )
            )

    # Large pictures

    def _compress_cut(self, picture: Picture) -> None:
        """Compress one large picture by many tasks, in the same rounds as femto.encode."""
        began = time.monotonic()
        try:
            facts, data = self._rounds(picture)
        except _Failed as failed:
            self._progress.watch(picture.archive, None)
            self.fail(picture, failed.reason, fatal=failed.fatal)
            return
        shape = (picture.height, picture.width) + ((3,) if picture.channels == 3 else ())
        facts |= {"seconds": time.monotonic() - began, "archive_bytes": len(data)}
        record = tasks.make_record(self.settings, picture, shape, facts)
        self._progress.watch(picture.archive, None)
        self.take(picture, {"record": record, "data": data})

    def _rounds(self, picture: Picture) -> tuple[dict, bytes]:
        target, basis = self.settings.target, self.options.basis
        depth, span = self._span(picture)
        search = codec.StepSearch(
            **target,
            levels=span.levels,
            limits=span.limits,
            channels=picture.channels,
            raw_nbytes=picture.raw_nbytes,
            samples=picture.pixels * picture.channels,
        )
        coded = self._runner.context.accumulator(0)
        rounds = 4 if "ratio" in target or "psnr" in target else 1
        passes = rounds + (0.5 if self.settings.measure else 0)
        self._progress.watch(
            picture.archive, lambda: min(coded.value / passes, 0.98 * picture.pixels)
        )
        history: list[tuple[float, int, float]] = []
        kept = None
        step = search.first()
        while step is not None:
            results = self._on_tiles(
                tasks.code_chunks,
                coded,
                picture,
                f"tiles of {picture.title}",
                step=step,
                span=span,
                look=not history,
            )
            if any(r.get("unseen") for r in results):
                self._runner.feed([picture.source])
                continue
            if not history:
                info = next(
                    (i for r in results if (i := r["info"])["metadata"]), results[0]["info"]
                )
                look = sum((r["look"] for r in results), tasks.Look.nothing())
            tiles = [tile for _, tile in sorted(t for r in results for t in r["tiles"])]
            header = codec.ImageHeader(
                width=picture.width,
                height=picture.height,
                mode="RGB" if picture.channels == 3 else "L",
                bits=depth,
                levels=span.levels,
                limits=span.limits,
                mapping=info.get("mapping"),
                icc=results[0]["icc"],
                **tasks.embedded(self.settings, picture, info),
            )
            data = codec.assemble(header, step=step, basis=basis, **self.settings.plan, tiles=tiles)
            history.append((step, len(data), sum(tile.sse for tile in tiles)))
            if search.best(history) == len(history) - 1:
                kept = (step, tiles, data, header.icc)
            step = search.next(history)
        step, tiles, data, icc = kept
        facts = {}
        if self.settings.measure:
            facts = self._measure(picture, coded, step, span, tiles, icc)
        best = history[search.best(history)]
        outcome = search.outcome(best)
        return facts | tasks.remarks(
            self.settings, picture, info, look, span, best[2], outcome, len(data)
        ), data

    def _span(self, picture: Picture) -> tuple[int, Span]:
        """The bits of a large picture's samples and the levels that it uses."""
        bits, levels = self.settings.declared_bits(picture), picture.levels
        if self.settings.bits is not None:
            levels = None
        counts = None
        if codec.needs_counts(picture.dtype, bits, levels):
            results = self._on_tiles(
                tasks.count_chunks, None, picture, f"levels of {picture.title}"
            )
            if any(r.get("unseen") for r in results):
                self._runner.feed([picture.source])
                return self._span(picture)
            first, *others = (Counts.unpack(r["counts"]) for r in results)
            counts = sum(others, first)
        try:
            return codec.span_of(picture.dtype, bits, levels and Levels(*levels), counts)
        except LaffError as error:
            raise _Failed(str(error)) from None

    def _measure(self, picture: Picture, coded, step, span, tiles: list, icc) -> dict:
        results = self._on_tiles(
            tasks.measure_chunks,
            coded,
            picture,
            f"measuring {picture.title}",
            tiles,
            step=step,
            span=span,
        )
        fidelity = measure.Fidelity()
        for result in results:
            fidelity.add(measure.Fidelity(**result["fidelity"]))
        facts = {"psnr": fidelity.psnr(span.levels.range), "ssim": fidelity.ssim()}
        crops = [r["crops"] for r in results if r["crops"]]
        if crops:
            pieces = [piece for r in results for piece in r["pieces"]]
            width, height = measure.thumbnail_size(picture.width, picture.height)
            facts["visual"] = measure.visual(
                measure.join_pieces(pieces, width, height), *crops[0], icc, span.levels
            )
        return facts

    def _on_tiles(self, function, coded, picture, description, encoded=None, **what) -> list[dict]:
        """Run a task function over all tiles of a picture, `what` to do in its chunks; fed in
        portions if need be."""
        groups = plan.group_tiles(_grid(picture), self._runner.cores)
        chunks = [
            tasks.Chunk(
                picture,
                g,
                encoded=None if encoded is None else [encoded[t.index] for t in g],
                **what,
            )
            for g in groups
        ]
        run = partial(
            self._runner.spread_safely,
            partial(function, self.settings, coded),
            description=description,
            lost=lambda chunk, reason: {"key": picture.archive, "error": reason},
        )
        results = []
        if not self._runner.is_fed(picture.source):
            results = run(parts=chunks)
        else:
            sample_bytes = picture.channels * picture.dtype.itemsize
            portion, total = [], 0
            for chunk in chunks:
                portion.append(chunk)
                total += sum(t.height * t.width for t in chunk.tiles) * sample_bytes
                if total >= self._runner.portion_nbytes() or chunk is chunks[-1]:
                    results += run(parts=[self._with_pixels(c) for c in portion])
                    portion, total = [], 0
        for result in results:
            if "error" in result:
                raise _Failed(result["error"], result.get("fatal", False))
        return results

    def _with_pixels(self, chunk: tasks.Chunk) -> tasks.Chunk:
        self._runner.check()
        try:
            arrays, icc, info = tasks.read_tiles(
                self.settings, chunk.picture, chunk.tiles, self._runner.sandbox()
            )
        except (UnreadablePicture, OSError) as error:
            raise _Failed(why_unread(error)) from None
        info = tasks.about(chunk.tiles, info)
        # The first ones speak for all.
        payload = [tasks.Pixels.of(a, icc, {} if i else info) for i, a in enumerate(arrays)]
        return replace(chunk, payload=payload)

    # Bookkeeping

    def _fail_file(self, name: str, reason: str) -> None:
        self._add_row("failed", {"picture": name, "page": 0, "pages": 1, "label": None}, reason)

    def _add_row(self, status: str, facts: dict, reason: str | None = None) -> None:
        self.outcome.rows.append({**facts, "status": status, "error": reason})

    def _unwritable(self, error: OSError) -> str:
        output = printable(str(self.options.output))
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            return f"{output}: is a file: name a folder with --output"
        return (
            f"{output}: cannot be written ({error.strerror}): "
            "allow this user to write there, make room, or choose another --output"
        )


class _Failed(Exception):
    """A large picture cannot be compressed."""

    def __init__(self, reason: str, fatal: bool = False):
        super().__init__(reason)
        self.reason, self.fatal = reason, fatal


def _grid(picture: Picture) -> list:
    return codec.tile_grid(picture.height, picture.width)
