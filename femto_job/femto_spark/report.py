"""report.html, to look at, and report.csv, to compute with: what became of every picture.

The page holds everything it shows (no scripts, no other files). At most plan.SHOWN pictures are
shown in it; the table has a row for each. Rows of earlier runs come from the records.
"""

import csv
import html
import io
from pathlib import Path
from string import Template

from femto.target import DEFAULT_QUALITY

from .plan import SHOWN, printable, which
from .progress import bytes_text, seconds_text
from .records import write_whole

COLUMNS = (
    "picture",
    "page",
    "status",
    "archive",
    "width",
    "height",
    "mode",
    "bits",
    "source_bytes",
    "raw_bytes",
    "archive_bytes",
    "ratio",
    "bits_per_pixel",
    "psnr_db",
    "ssim",
    "target_met",
    "seconds",
    "warnings",
    "notes",
    "error",
)
IGNORED_LISTED = 100
REMARKS_LISTED = 100


def write(options, outcome) -> list[Path]:
    """Write both reports into the output folder and return their paths. Raises OSError."""
    rows = sorted(outcome.rows, key=lambda r: (r["picture"], r["page"]))
    page = options.output / "report.html"
    table = options.output / "report.csv"
    write_whole(page, render(options, outcome, rows).encode("utf-8", "replace"))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(map(csv_row, rows))
    write_whole(table, text.getvalue().encode("utf-8", "backslashreplace"))
    return [page, table]


def csv_row(row: dict) -> dict:
    """One row of report.csv: bytes, pixels, dB; empty where nothing is known. A picture without
    any error has the PSNR "inf"."""
    made = row["status"] != "failed"
    values = {
        "picture": row["picture"],
        "page": row["page"] + 1,
        "status": row["status"],
        "error": row["error"],
        **{
            k: row.get(k)
            for k in ("archive", "width", "height", "mode", "bits", "source_bytes", "raw_bytes")
        },
    }
    if made:
        pixels = row["width"] * row["height"]
        values |= {
            "archive_bytes": row["archive_bytes"],
            "ratio": f"{row['raw_bytes'] / row['archive_bytes']:.3f}",
            "bits_per_pixel": f"{8 * row['archive_bytes'] / pixels:.4f}",
            "seconds": f"{row['seconds']:.2f}",
            "target_met": {True: "yes", False: "no", None: ""}[row["target_met"]],
            "warnings": "; ".join(row["warnings"]),
            "notes": "; ".join(row["notes"]),
        }
        if row["ssim"] is not None:
            values |= {"psnr_db": _psnr(row, ""), "ssim": f"{row['ssim']:.5f}"}
    return values


def _psnr(row: dict, unit: str = " dB") -> str:
    if row["ssim"] is None:
        return ""
    return "inf" if row["psnr"] is None else f"{row['psnr']:.2f}{unit}"


def _title(row: dict) -> str:
    page = which(row["page"], row["pages"], row["label"])
    return html.escape(printable(row["picture"]) + page)


def _facts(row: dict) -> str:
    parts = [
        f"{row['width']} × {row['height']} {'RGB' if row['mode'] == 'RGB' else 'grey'}, "
        f"{row['bits']} bits",
        f"{bytes_text(row['raw_bytes'])} → <b>{bytes_text(row['archive_bytes'])}</b>",
        f"<b>{row['raw_bytes'] / row['archive_bytes']:.1f}</b> times smaller",
    ]
    if row["ssim"] is not None:
        parts += [f"PSNR <b>{_psnr(row)}</b>", f"SSIM <b>{row['ssim']:.4f}</b>"]
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
        cells += [f'<td colspan="7" class="why">{html.escape(printable(row["error"]))}</td>']
    else:
        cells += [
            f"{row['width']} × {row['height']}",
            bytes_text(row["source_bytes"]),
            bytes_text(row["raw_bytes"]),
            bytes_text(row["archive_bytes"]),
            f"{row['raw_bytes'] / row['archive_bytes']:.1f}",
            _psnr(row, ""),
            "" if row["ssim"] is None else f"{row['ssim']:.4f}",
        ]
    text = "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in cells)
    return f'<tr class="{status}">{text}</tr>'


def render(options, outcome, rows: list[dict]) -> str:
    """The page as text."""
    made = [r for r in rows if r["status"] != "failed"]
    failed = [r for r in rows if r["status"] == "failed"]
    shown = [r for r in made if r.get("visual")][:SHOWN]
    warned = [r for r in made if r["warnings"]]
    noted = [r for r in made if r["notes"]]
    tiles = [
        (str(outcome.count("done")), "compressed"),
        (str(outcome.count("skipped")), "unchanged"),
        (str(len(failed)), "failed"),
    ]
    if warned:
        tiles.append((str(len(warned)), "with warnings"))
    if made:
        raw, nbytes = (sum(r[k] for r in made) for k in ("raw_bytes", "archive_bytes"))
        pixels = sum(r["width"] * r["height"] for r in made)
        tiles += [
            (f"{raw / nbytes:.1f}×", f"smaller: {bytes_text(raw)} → {bytes_text(nbytes)}"),
            (f"{8 * nbytes / pixels:.2f}", "bits per pixel"),
        ]
        measured = [r for r in made if r["psnr"] is not None]
        if measured:
            tiles += [
                (f"{sum(r['psnr'] for r in measured) / len(measured):.1f} dB", "mean PSNR"),
                (f"{sum(r['ssim'] for r in measured) / len(measured):.4f}", "mean SSIM"),
            ]
    asked = (
        ", ".join(f"{k} {v:g}" for k, v in options.target.items()) or f"quality {DEFAULT_QUALITY}"
    )
    note = f"{asked}, basis {html.escape(printable(Path(options.basis).name))}"
    note += ", effort fast" if options.effort == "fast" else ""
    note += ", tuned for the eye" if options.tune == "perceptual" else ""
    note += ", as grey pictures" if options.gray else ""
    if outcome.count("done"):
        note += (
            f"; {outcome.coded_pixels / 1e6:.1f} Mpixel in {seconds_text(outcome.seconds)} "
            f"on {outcome.cores} cores"
        )
    parts = []
    if failed:
        parts.append("<h2>Failed</h2><ul>")
        parts += [
            f"<li><b>{_title(r)}</b>: {html.escape(printable(r['error']))}</li>" for r in failed
        ]
        parts.append("</ul>")
    for heading, key, remarked in (("Warnings", "warnings", warned), ("Notes", "notes", noted)):
        if remarked:
            parts.append(f"<h2>{heading}</h2><ul class={key}>")
            parts += [
                f"<li><b>{_title(r)}</b>: {html.escape(printable('; '.join(r[key])))}</li>"
                for r in remarked[:REMARKS_LISTED]
            ]
            parts.append("</ul>")
            if len(remarked) > REMARKS_LISTED:
                parts.append(f"<p class=note>{len(remarked)} in all, see report.csv</p>")
    if shown:
        some = f" ({len(shown)} of {len(made)})" if len(shown) < len(made) else ""
        parts.append(
            f"<h2>Pictures{some}</h2><p class=note>The crops are shown pixel for pixel, "
            "where the picture has most detail.</p>"
        )
        parts += map(_figure, shown)
    parts.append(
        "<h2>All pictures</h2><div class=scroll><table><thead><tr>"
        + "".join(
            f"<th>{name}</th>"
            for name in ["picture", "", "pixels", "file", "raw", "archive", "ratio", "PSNR", "SSIM"]
        )
        + "</tr></thead><tbody>"
    )
    parts += map(_table_row, rows)
    parts.append("</tbody></table></div>")
    if outcome.ignored:
        parts.append(
            f"<h2>Ignored</h2><p class=note>{len(outcome.ignored)} files whose extension is not "
            "one of a picture:</p><p>"
        )
        parts.append(", ".join(html.escape(printable(n)) for n in outcome.ignored[:IGNORED_LISTED]))
        parts.append(", …</p>" if len(outcome.ignored) > IGNORED_LISTED else "</p>")
    return _PAGE.substitute(
        folder=html.escape(printable(str(options.input))),
        note=note,
        tiles="".join(f"<div><b>{a}</b><span>{b}</span></div>" for a, b in tiles),
        body="\n".join(parts),
    )


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
