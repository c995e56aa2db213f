"""What an archive may be at most, and what is believed of one from a stranger."""

HASH_DIGITS = 16
"""Of its basis's hash an archive holds the first digits."""
MAX_SIDE = 1 << 20
"""Largest width or height of a picture, in pixels."""
MAX_PIXELS = 1 << 36
"""Largest picture, in pixels."""
MIN_STEP = 0.05
"""Finest quantiser step in grey levels, of a picture that uses at least 256 of them."""
MAX_STREAM = 1 << 32
"""Longest archive that is read from a stream, in bytes: one without end must not fill memory."""
MAX_TILE = 2048
"""Largest edge of a tile, in pixels: a small file must not make a decoder need gigabytes."""
MAX_TEXT = 1 << 38
"""Largest archive text, in characters, that is unpacked."""
MAX_EXPANSION = 12
"""gzip-ed base64 grows to at most 8/6 and its metadata to little more: anything that unpacks to
far more than its size is not an archive but a trap."""
MAX_ERROR = (1 << 16) - 1
"""Largest error that a residual may be said to leave, in levels."""
MAX_METADATA = 1 << 24
"""Most bytes of metadata, unpacked."""
MAX_PARTS = 1 << 20
"""Most lists, dicts and their members in metadata, and in each part of an archive's header."""
MAX_HEADER = 1 << 26
"""Longest text of an archive without its strings, in bytes: ICC profile and metadata go into it."""
SPOOL = 1 << 24
"""So many bytes of strings are kept in memory; more go into a file in the folder of temporary ones,
so that memory does not follow the archive."""
BELIEVED_PIXELS = (1 << 31) // 12
"""How many pixels an archive is believed to hold unless its reader says more: as many as Pillow
opens, 179 million (see `check_pixels`)."""
