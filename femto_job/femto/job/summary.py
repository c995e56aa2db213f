"""What is printed at the end of a run, and the counts that the report shares with it.

Rows are read once, one at a time: there may be a million of them, and they need not be in memory.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import printable
from ..samples import exactness
from .plan import which
from .progress import bytes_text, seconds_text

LISTED = 10
"""Most failures, and most warnings, that are printed."""


@dataclass
class Totals:
    """Counts and sums over the rows of a report, and the first `listed` of those that people should
    see.

    `source_bytes` is what the files hold that were compressed: of a file of several pictures each
    counts for its share.
    """

    listed: int = LISTED
    counts: Counter = field(default_factory=Counter)
    source_bytes: float = 0.0
    raw_bytes: int = 0
    archive_bytes: int = 0
    pixels: int = 0
    with_psnr: int = 0
    with_ssim: int = 0
    psnr: float = 0.0
    ssim: float = 0.0
    worst: dict | None = None
    warned: int = 0
    noted: int = 0
    missed: int = 0
    verified: int = 0
    verify_seconds: float = 0.0
    cpu_seconds: float = 0.0
    failures: list[dict] = field(default_factory=list)
    warnings: list[dict] = field(default_factory=list)
    notes: list[dict] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[dict]) -> "Totals":
        """Of all rows."""
        totals = cls()
        for row in rows:
            totals.add(row)
        return totals

    @property
    def made(self) -> int:
        """How many archives there are, of this run and of earlier ones."""
        return self.counts["done"] + self.counts["skipped"]

    def add(self, row: dict) -> None:
        """Count one row."""
        row = {k: v for k, v in row.items() if k != "visual"}
        self.counts[row["status"]] += 1
        if row["status"] == "failed":
            self._list(self.failures, row)
            return
        self.source_bytes += row["source_bytes"] / row["pages"]
        self.raw_bytes += row["raw_bytes"]
        self.archive_bytes += row["archive_bytes"]
        self.pixels += row["width"] * row["height"]
        if row["psnr"] is not None and row["psnr"] < math.inf:
            self.with_psnr += 1
            self.psnr += row["psnr"]
            if self.worst is None or row["psnr"] < self.worst["psnr"]:
                self.worst = row
        if row["ssim"] is not None:
            self.with_ssim += 1
            self.ssim += row["ssim"]
        self.missed += row["target_met"] is False
        if row["status"] == "done" and row.get("verify_seconds") is not None:
            self.verified += 1
            self.verify_seconds += row["verify_seconds"]
            self.cpu_seconds += row["cpu_seconds"]
        if row["warnings"]:
            self.warned += 1
            self._list(self.warnings, row)
        if row["notes"]:
            self.noted += 1
            self._list(self.notes, row)

    def _list(self, rows: list[dict], row: dict) -> None:
        if len(rows) < self.listed:
            rows.append(row)


def change(before: float, after: float) -> str:
    """How much smaller bytes have become, or larger."""
    if after <= before:
        return f"{before / after:.1f} times smaller"
    return f"{after / before:.1f} times larger"


def summary(options, outcome) -> str:
    """The end of a run on one screen."""
    totals = Totals.of(outcome.rows)
    done, skipped, failed = (totals.counts[s] for s in ("done", "skipped", "failed"))
    lines = [f"{done} compressed, {skipped} unchanged, {failed} failed"]
    if done:
        lines.append(
            f"{outcome.coded_pixels / 1e6:.1f} Mpixel in {seconds_text(outcome.seconds)} "
            f"on {outcome.cores} cores"
        )
    if totals.made:
        before, after = totals.source_bytes, totals.archive_bytes
        saved = f", {bytes_text(before - after)} saved" if after < before else ""
        lines += [
            f"{bytes_text(before)} of files became {bytes_text(after)} of archives: "
            f"{change(before, after)}{saved}",
            f"{bytes_text(totals.raw_bytes)} of raw pixels: {change(totals.raw_bytes, after)}, "
            f"{8 * after / totals.pixels:.2f} bits per pixel",
        ]
    if options.max_error is not None:
        lines.append(f"every archive is {exactness(options.max_error)}")
    if totals.with_psnr:
        lines.append(
            f"PSNR {totals.psnr / totals.with_psnr:.1f} dB on average, "
            f"lowest {totals.worst['psnr']:.1f} dB ({printable(totals.worst['picture'])})"
        )
    if totals.with_ssim:
        some = f", of {totals.with_ssim} of {totals.made} pictures"
        lines.append(
            f"SSIM {totals.ssim / totals.with_ssim:.4f} on average"
            + some * (totals.with_ssim < totals.made)
        )
    if totals.verified:
        lines.append(
            f"verified: {totals.verified} archives were read back and decoded, in "
            f"{totals.verify_seconds:.1f} CPU s beside {totals.cpu_seconds:.1f} of compressing"
        )
    elif done:
        lines.append("verified: none (--no-verify)")
    if outcome.gone is not None:
        lines += _gone(outcome.gone)
    lines.append(f"archives: {printable(str(options.output))}")
    if outcome.reports:
        lines.append(f"report:   {printable(str(outcome.reports[0]))}")
    if outcome.left_out:
        lines.append(f"left out: {', '.join(outcome.left_out.texts())}")
    lines += [f"failed: {_title(row)}: {printable(row['error'])}" for row in totals.failures]
    if failed > LISTED:
        lines.append(f"... and {failed - LISTED} more failed, see failures.csv")
    return "\n".join(lines + _remarks(totals))


def _gone(gone) -> list[str]:
    """What became of the originals."""
    kept = gone.stay.total()
    lines = [f"{gone.files} originals deleted, {bytes_text(gone.nbytes)}; {kept} stay"]
    for reason, count in gone.stay.most_common(LISTED):
        lines.append(f"original stays: {count} x {reason} (as {printable(gone.first[reason])})")
    return lines


def _remarks(totals: Totals) -> list[str]:
    """The lines that say what people should look at."""
    lines = []
    if totals.warned:
        lines.append(f"{totals.warned} with warnings, {totals.noted} with notes, see report.csv")
    elif totals.noted:
        lines.append(f"{totals.noted} with notes, see report.csv")
    if totals.missed:
        lines.append(f"{totals.missed} missed the target")
    for row in totals.warnings:
        lines.append(f"warning: {_title(row)}: {printable('; '.join(row['warnings']))}")
    if totals.warned > LISTED:
        lines.append(f"... and {totals.warned - LISTED} more with warnings")
    return lines


def _title(row: dict) -> str:
    return printable(row["picture"]) + which(row["page"], row["pages"], row["label"])
