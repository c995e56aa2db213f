"""Archives that claim much and hold nothing."""

from femto import codec, container, tiles

PHOTO = "5b9b4e1c528f582b"
GIGAPIXEL = (1 << 20, 1024)
"""Rows and columns: so high and narrow that a row of tiles is a single one."""


def claiming(height: int, width: int, *, tile: int = 1024, strings: bool = True, **more) -> bytes:
    """An archive that claims to be so large, of empty strings or of none at all. Its checksums are
    right."""
    count = tiles.tile_count(height, width, tile) if strings else 0
    says = {"basis_name": "photo", "basis_sha256": PHOTO, "step": 16.0} | more
    return container.write(
        codec.ImageHeader(width, height, "L", 8),
        tile=tile,
        blocks=[b""] * count,
        layers=[[b""] * count],
        **says,
    )
