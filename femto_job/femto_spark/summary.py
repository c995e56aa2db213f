"""What is printed at the end of a run, and the counts that the report shares with it.

Rows are read once, one at a time: there may be a million of them, and they need not be in memory.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .plan import printable, which
from .progress import bytes_text, seconds_text

LISTED = 10
"""Most failures, and most warnings, that are printed."""


@dataclass
class Totals:
    """Counts and sums over the rows of a report, and the first of those that people should see."""

    counts: Counter = field(default_factory=Counter)
    raw_bytes: int = 0
    archive_bytes: int = 0
    pixels: int = 0
    measured: int = 0
    psnr: float = 0.0
    ssim: float = 0.0
    worst: dict | None = None
    warned: int = 0
    noted: int = 0
    missed: int = 0
    failures: list[dict] = field(default_factory=list)
    warnings: list[dict] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[dict], listed: int = LISTED) -> "Totals":
        """Of all rows, with the first `listed` failures and warnings."""
        totals = cls()
        for row in rows:
            totals._add(row, listed)
        return totals

    def _add(self, row: dict, listed: int) -> None:
        self.counts[row["status"]] += 1
        if row["status"] == "failed":
            if len(self.failures) < listed:
                self.failures.append(row)
            return
        self.raw_bytes += row["raw_bytes"]
        self.archive_bytes += row["archive_bytes"]
        self.pixels += row["width"] * row["height"]
        if row["psnr"] is not None:
            self.measured += 1
            self.psnr += row["psnr"]
            self.ssim += row["ssim"]
            if self.worst is None or row["psnr"] < self.worst["psnr"]:
                self.worst = row
        self.missed += row["target_met"] is False
        if row["warnings"]:
            self.warned += 1
            if len(self.warnings) < listed:
                self.warnings.append(row)
        elif row["notes"]:
            self.noted += 1


def summary(options, outcome) -> str:
    """The end of a run on one screen."""
    totals = Totals.of(outcome.rows)
    done, skipped, failed = (totals.counts[s] for s in ("done", "skipped", "failed"))
    lines = [f"{done} compressed, {skipped} unchanged, {failed} failed"]
    if outcome.ignored:
        kinds = sorted({Path(n).suffix.lower() or "no extension" for n in outcome.ignored})
        lines[0] += (
            f"; {len(outcome.ignored)} other files ignored "
            f"({', '.join(map(printable, kinds[:6]))}{', ...' if len(kinds) > 6 else ''})"
        )
    if done:
        lines.append(
            f"{outcome.coded_pixels / 1e6:.1f} Mpixel in {seconds_text(outcome.seconds)} "
            f"on {outcome.cores} cores"
        )
    if done + skipped:
        lines.append(
            f"{bytes_text(totals.raw_bytes)} of pixels in {bytes_text(totals.archive_bytes)} of "
            f"archives: {totals.raw_bytes / totals.archive_bytes:.1f} times smaller, "
            f"{8 * totals.archive_bytes / totals.pixels:.2f} bits per pixel"
        )
    if totals.measured:
        lines.append(
            f"PSNR {totals.psnr / totals.measured:.1f} dB, "
            f"SSIM {totals.ssim / totals.measured:.4f} on average; "
            f"lowest PSNR {totals.worst['psnr']:.1f} dB ({printable(totals.worst['picture'])})"
        )
    lines.append(f"archives: {printable(str(options.output))}")
    if outcome.reports:
        lines.append(f"report:   {printable(str(outcome.reports[0]))}")
    lines += [f"failed: {_title(row)}: {printable(row['error'])}" for row in totals.failures]
    if failed > LISTED:
        lines.append(f"... and {failed - LISTED} more failed, see report.csv")
    return "\n".join(lines + _remarks(totals))


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
