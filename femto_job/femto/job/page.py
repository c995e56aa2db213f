"""report.html: what became of the pictures, for people.

The page holds everything that it shows (no scripts, no other files), and its size does not grow
with the archive: it has counts of all, a sample of rows, some pictures, and the first failures,
warnings and notes. MAX_BYTES holds for whatever names and reasons there are.
"""

import html
from pathlib import Path
from string import Template

from ..errors import printable
from ..files.folder import Names
from ..samples import exactness
from .plan import SHOWN, which
from .progress import bytes_text, seconds_text
from .summary import Totals, change

MAX_BYTES = 5_000_000
SHOWN_BYTES = 3_500_000
"""Of these, most for pictures."""
ROWS = 1000
"""Most rows in the table; of more, every other, every fourth and so on."""
LISTED = 100
"""Most failures, warnings and notes that are listed."""
NAME, REASON = 120, 300
"""Most characters of a name and of a reason; the tables have all of them."""


HEADS = ("picture", "", "pixels", "file", "archive", "ratio", "raw", "raw ratio", "PSNR", "SSIM")


class Page:
    """The page of a run: takes its rows one by one, and keeps as many as it shows."""

    def __init__(self, options, outcome):
        self._options, self._outcome = options, outcome
        self._totals = Totals(LISTED)
        self._rows: list[dict] = []
        self._count, self._every = 0, 1
        self._shown: list[dict] = []
        self._shown_bytes = 0

    def add(self, row: dict) -> None:
        """Take a row of the report."""
        self._totals.add(row)
        visual = row.get("visual")
        if visual and len(self._shown) < SHOWN:
            nbytes = sum(map(len, visual.values()))
            if self._shown_bytes + nbytes <= SHOWN_BYTES:
                self._shown.append(row)
                self._shown_bytes += nbytes
        if self._count % self._every == 0:
            if len(self._rows) == ROWS:
                self._rows, self._every = self._rows[::2], 2 * self._every
            if self._count % self._every == 0:
                self._rows.append({k: v for k, v in row.items() if k != "visual"})
        self._count += 1

    def render(self) -> str:
        """The page as text."""
        parts = [*self._remarks(), *self._left_out(), *self._pictures(), *self._table()]
        tiles = "".join(f"<div><b>{a}</b><span>{b}</span></div>" for a, b in self._tiles())
        return _PAGE.substitute(
            folder=_text(str(self._options.input)),
            note=self._note(),
            tiles=tiles,
            body="\n".join(parts),
        )

    def _tiles(self) -> list[tuple[str, str]]:
        totals = self._totals
        tiles = [
            (str(totals.counts["done"]), "compressed"),
            (str(totals.counts["skipped"]), "unchanged"),
            (str(totals.counts["failed"]), "failed"),
        ]
        if totals.warned:
            tiles.append((str(totals.warned), "with warnings"))
        if totals.made:
            before, after = totals.source_bytes, totals.archive_bytes
            times, _, smaller = change(before, after).partition(" times ")
            saved = f", {bytes_text(before - after)} saved" if after < before else ""
            tiles.append(
                (
                    f"{times}×",
                    f"{smaller} files: {bytes_text(before)} → {bytes_text(after)}{saved}",
                )
            )
            times, _, smaller = change(totals.raw_bytes, after).partition(" times ")
            tiles += [
                (f"{times}×", f"{smaller} than {bytes_text(totals.raw_bytes)} of raw pixels"),
                (f"{8 * after / totals.pixels:.2f}", "bits per pixel"),
            ]
        if totals.with_psnr:
            tiles.append((f"{totals.psnr / totals.with_psnr:.1f} dB", "mean PSNR"))
        if totals.with_ssim:
            some = f" of {totals.with_ssim} of {totals.made} pictures"
            tiles.append(
                (
                    f"{totals.ssim / totals.with_ssim:.4f}",
                    "mean SSIM" + some * (totals.with_ssim < totals.made),
                )
            )
        return tiles

    def _note(self) -> str:
        options, outcome = self._options, self._outcome
        asked = (
            ", ".join(f"{k} {v:g}" for k, v in options.target.items())
            or f"quality {options.quality}"
        )
        if options.max_error is not None:
            asked = f"{exactness(options.max_error)}, {asked} below"
        note = f"{asked}, basis {_text(Path(options.basis).name)}"
        note += ", effort fast" if options.effort == "fast" else ""
        note += ", tuned for the eye" if options.tune == "perceptual" else ""
        note += ", as grey pictures" if options.gray else ""
        if self._totals.counts["done"]:
            note += (
                f"; {outcome.coded_pixels / 1e6:.1f} Mpixel in {seconds_text(outcome.seconds)} "
                f"on {outcome.cores} cores"
            )
        return note

    def _remarks(self) -> list[str]:
        totals, parts = self._totals, []
        for heading, count, rows, text, table in (
            ("Failed", totals.counts["failed"], totals.failures, _why, "failures.csv"),
            ("Warnings", totals.warned, totals.warnings, _joined("warnings"), "report.csv"),
            ("Notes", totals.noted, totals.notes, _joined("notes"), "report.csv"),
        ):
            if not count:
                continue
            parts.append(f"<h2>{heading}</h2><ul class={heading.lower()}>")
            parts += [f"<li><b>{_title(r)}</b>: {text(r)}</li>" for r in rows]
            parts.append("</ul>")
            if count > len(rows):
                parts.append(
                    f"<p class=note>The first {len(rows)} of {count}; all are in {table}.</p>"
                )
        return parts

    def _pictures(self) -> list[str]:
        if not self._shown:
            return []
        made = self._totals.made
        some = f" ({len(self._shown)} of {made})" if len(self._shown) < made else ""
        return [
            f"<h2>Pictures{some}</h2><p class=note>The crops are shown pixel for pixel, "
            "from a part that has much detail.</p>",
            *map(_figure, self._shown),
        ]

    def _table(self) -> list[str]:
        parts = ["<h2>All pictures</h2>"]
        if len(self._rows) < self._count:
            parts = [
                f"<h2>Pictures: {len(self._rows)} of {self._count}</h2><p class=note>One in "
                f"{self._every}; all are in report.csv and report.parquet.</p>"
            ]
        parts.append("<div class=scroll><table><thead><tr>")
        parts += [f"<th>{name}</th>" for name in HEADS]
        parts.append("</tr></thead><tbody>")
        parts += map(_table_row, self._rows)
        parts.append("</tbody></table></div>")
        return parts

    def _left_out(self) -> list[str]:
        left_out = self._outcome.left_out
        if not left_out:
            return []
        parts = ["<h2>Left out</h2><ul class=notes>"]
        parts += [
            f"<li>{_text(text, REASON)}: {_some(names)}</li>"
            for text, names in zip(
                left_out.texts(),
                filter(None, (left_out.files, left_out.linked, left_out.folders)),
                strict=True,
            )
        ]
        return [*parts, "</ul>"]


def _some(names: Names) -> str:
    return ", ".join(map(_text, names.first)) + (", …" if names.count > len(names.first) else "")


def _text(text: str, most: int = NAME) -> str:
    """A name or a reason in HTML, its middle left out if it is long."""
    text = printable(text)
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} … {text[-most // 3 :]}"
    return html.escape(text)


def _title(row: dict) -> str:
    return _text(row["picture"]) + html.escape(which(row["page"], row["pages"], row["label"]))


def _why(row: dict) -> str:
    return _text(row["error"], REASON)


def _joined(key: str):
    return lambda row: _text("; ".join(row[key]), REASON)


def _psnr(row: dict, unit: str = "") -> str:
    return "" if row["psnr"] is None else f"{row['psnr']:.2f}{unit}"


def _facts(row: dict) -> str:
    file, archive = row["source_bytes"] / row["pages"], row["archive_bytes"]
    parts = [
        f"{row['width']} × {row['height']} {'RGB' if row['mode'] == 'RGB' else 'grey'}, "
        f"{row['bits']} bits",
        f"{bytes_text(file)} → <b>{bytes_text(archive)}</b>, <b>{change(file, archive)}</b>",
        f"{change(row['raw_bytes'], archive)} than raw pixels",
    ]
    if row["psnr"] is not None:
        parts.append(f"PSNR <b>{_psnr(row, ' dB')}</b>")
    if row["ssim"] is not None:
        parts.append(f"SSIM <b>{row['ssim']:.4f}</b>")
    return " · ".join(parts)


def _figure(row: dict) -> str:
    visual = row["visual"]
    name = _title(row)
    return (
        f'<article><header><img class="thumb" alt="" src="{_uri(visual["thumbnail"])}">'
        f"<div><h3>{name}</h3><p>{_facts(row)}</p></div></header>"
        f'<div class="pair"><figure><img alt="{name}, original" src="{_uri(visual["original"])}">'
        f"<figcaption>original</figcaption></figure>"
        f'<figure><img alt="{name}, reconstruction" src="{_uri(visual["decoded"])}">'
        f"<figcaption>from the archive</figcaption></figure></div></article>"
    )


def _uri(data: str) -> str:
    return f"data:image/webp;base64,{data}"


def _table_row(row: dict) -> str:
    status = row["status"]
    cells = [_title(row), {"done": "compressed", "skipped": "unchanged"}.get(status, status)]
    if status == "failed":
        cells.append(f'<td colspan="8" class="why">{_why(row)}</td>')
    else:
        file, raw, archive = row["source_bytes"], row["raw_bytes"], row["archive_bytes"]
        cells += [
            f"{row['width']} × {row['height']}",
            bytes_text(file),
            bytes_text(archive),
            f"{file / row['pages'] / archive:.1f}",
            bytes_text(raw),
            f"{raw / archive:.1f}",
            _psnr(row),
            "" if row["ssim"] is None else f"{row['ssim']:.4f}",
        ]
    text = "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in cells)
    return f'<tr class="{status}">{text}</tr>'


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>femto: $folder</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #e3e6ec;
  --ground: #f7f8fa; --card: #fff; --accent: #2457c5; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --soft: #98a2b3; --line: #2c3340;
  --ground: #12161d; --card: #1a2029; --accent: #84adff; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--ground); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
h3 { margin: 0; font-size: 1rem; } p { margin: .25rem 0; } .note, header p { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin-top: 1.25rem; }
.tiles div, article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .8rem 1rem; }
.tiles b { display: block; font-size: 1.5rem; color: var(--accent); }
.tiles span { color: var(--soft); font-size: .85rem; }
article { margin: 1rem 0; } article header { display: flex; gap: 1rem; align-items: center; }
article header div { min-width: 0; flex: 1; } header p b { color: var(--ink); }
.thumb { max-width: 96px; max-height: 96px; border-radius: .3rem; }
.pair { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: .8rem; }
figure { margin: 0; } figure img { display: block; max-width: 100%; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .8rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, td:nth-child(2), .why { text-align: left; }
td:first-child, .why { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; } .skipped { color: var(--soft); }
ul { max-height: 22rem; overflow-y: auto; }
.failed td { color: var(--bad); } li b { color: var(--bad); } .notes b { color: var(--ink); }
</style>
</head>
<body>
<h1>femto: $folder</h1>
<p class="note">$note</p>
<div class="tiles">$tiles</div>
$body
</body>
</html>
""")
