"""Which reader a file needs, and the two ways in: probe() and open_page()."""

from collections.abc import Sequence
from typing import Any, cast

from ..errors import LaffError
from .common import DICOM_SUFFIXES, RAW_EXTENSIONS, AnySource, Source, decoding
from .dicom import dicom_plans
from .metadata import gather
from .modern import KINDS, modern_plan
from .page import PageInfo, PictureReader, Plan, Reading
from .pillow import pillow_plan
from .raw import RawPlan
from .tiff import tiff_plans

# fmt: off
EXTENSIONS = RAW_EXTENSIONS | DICOM_SUFFIXES | {
    ".tif", ".tiff", ".btf", ".tf8", ".stk", ".lsm", ".svs", ".ndpi", ".png", ".apng",
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".heic", ".heif", ".hif",
    ".avif", ".jxl", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
}
# fmt: on


def _plans(
    source: Source, reading: Reading, page: int | None, place: dict[str, Any] | None = None
) -> Sequence[Plan | PageInfo]:
    """A plan for every page, or for page `page`. Raises LaffError if none can be read."""
    kind = source.kind()
    plans = tiff_plans(source, reading, page, place) if kind == "TIFF" else None
    if plans is not None:
        return plans
    if kind == "DICOM":
        return dicom_plans(source, page)
    if page not in (None, 0):
        raise LaffError(f"{source.name}: has no page {page}; its only page is 0")
    if kind in KINDS:
        return [modern_plan(source, kind, reading)]
    return [RawPlan(source) if kind in ("RAW", "TIFF") else pillow_plan(source, kind, reading)]


def probe(
    path_or_bytes: AnySource,
    *,
    name: str | None = None,
    bands: Sequence[int] | str | None = None,
    alpha: bool = True,
    range: Sequence[float] | None = None,
) -> list[PageInfo]:
    """The pictures of a file, told from its header: [PageInfo, ...], one per page.

    path_or_bytes: a path, or the file's bytes; name: what to call it in messages, and whose suffix
    tells camera RAW (default: the path). bands, alpha, range: see Reading. Raises LaffError if
    nothing in it can be read.
    """
    source = Source(path_or_bytes, name)
    reading = Reading.checked(bands, alpha, range)
    with decoding(source.name):
        plans = _plans(source, reading, None)
        infos = [plan if isinstance(plan, PageInfo) else plan.info for plan in plans]
        for plan in plans:
            if isinstance(plan, Plan):
                plan.close()
    return infos


def open_page(
    path_or_bytes: AnySource,
    page: int = 0,
    *,
    name: str | None = None,
    gray: bool = False,
    bands: Sequence[int] | str | None = None,
    alpha: bool = True,
    range: Sequence[float] | None = None,
    place: dict[str, Any] | None = None,
) -> PictureReader:
    """Open one page for reading by window; a context manager.

    page: as PageInfo.page; gray: convert colour to grey (BT.601 luma); path_or_bytes, name, bands,
    alpha and range as for probe(); place: PageInfo.place, as probe() told it with the same options,
    by which a page of a TIFF is opened without looking at the others, as long as the file is the
    same. Strips and tiles of a TIFF are decoded as windows need them, of
    uncompressed ones only the window is read; other formats are decoded as a whole at the first
    window. Raises LaffError.
    """
    source = Source(path_or_bytes, name)
    reading = Reading.checked(bands, alpha, range)
    with decoding(source.name):
        # One that is asked for by its number is read or refused.
        (plan,) = cast(list[Plan], _plans(source, reading, page, place))
        try:
            plan.measure()
            return PictureReader(source.name, plan, gray, gather(source, plan))
        except BaseException:
            plan.close()
            raise
