"""Which reader a file needs, and the two ways in: probe() and open_page()."""

from collections.abc import Sequence
from typing import Any, cast

from ..errors import LaffError
from .common import DICOM_SUFFIXES, RAW_EXTENSIONS, AnySource, Source, decoding
from .dicom import dicom_pages
from .metadata import gather
from .modern import KINDS, modern_page
from .page import PageInfo, PictureReader, Reading, StoredPage
from .pillow import pillow_page
from .raw import RawPage
from .tiff import tiff_pages

# fmt: off
EXTENSIONS = RAW_EXTENSIONS | DICOM_SUFFIXES | {
    ".tif", ".tiff", ".btf", ".tf8", ".stk", ".lsm", ".svs", ".ndpi", ".png", ".apng",
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".heic", ".heif", ".hif",
    ".avif", ".jxl", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
}
# fmt: on


def _pages(
    source: Source, reading: Reading, page: int | None, place: dict[str, Any] | None = None
) -> Sequence[StoredPage | PageInfo]:
    """What reads every page, or page `page`. Raises LaffError if none can be read."""
    kind = source.kind()
    pages = tiff_pages(source, reading, page, place) if kind == "TIFF" else None
    if pages is not None:
        return pages
    if kind == "DICOM":
        return dicom_pages(source, page)
    if page not in (None, 0):
        raise LaffError(f"{source.name}: has no page {page}; its only page is 0")
    if kind in KINDS:
        return [modern_page(source, kind, reading)]
    return [RawPage(source) if kind in ("RAW", "TIFF") else pillow_page(source, kind, reading)]


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
        pages = _pages(source, reading, None)
        infos = [stored if isinstance(stored, PageInfo) else stored.info for stored in pages]
        for stored in pages:
            if isinstance(stored, StoredPage):
                stored.close()
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
        (stored,) = cast(list[StoredPage], _pages(source, reading, page, place))
        try:
            stored.measure()
            return PictureReader(source.name, stored, gray, gather(source, stored))
        except BaseException:
            stored.close()
            raise
