"""Picture files: read them as the arrays that femto codes, write what it decodes.

What is done to transparency, palettes, CMYK, orientation, ICC profiles and RAW, and what is
refused, is said in docs/PICTURES.md. Pillow is always there; tifffile, imagecodecs and rawpy are
imported only when a picture needs them. A room a family: `tiff`, `pillow`, `raw`; `page` is what
they have in common, `read` chooses among them, `write` is the way out.
"""

from .page import PageInfo, PictureReader
from .read import EXTENSIONS, open_page, probe
from .write import FORMATS, write_picture

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "PageInfo",
    "PictureReader",
    "open_page",
    "probe",
    "write_picture",
]
