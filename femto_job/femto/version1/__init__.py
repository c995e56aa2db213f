"""The decoder of archives of version 1, complete in itself and never changed.

Archives of version 1 decode with it for ever, to the same pixels. `photo.basis` is the basis that
was shipped with that version. Of the rest of femto it needs `errors` and `jit` alone.
"""

from .basis import MAX_FILE, Basis1, read_basis
from .kstrings import LAYER_ENDS, decode_scores, to_pixels

__all__ = ["LAYER_ENDS", "MAX_FILE", "Basis1", "decode_scores", "read_basis", "to_pixels"]
