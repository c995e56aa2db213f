"""How good a reconstruction is, and the small pictures that show it."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..samples import Levels, to_bytes
from ..tiles import Tile

THUMBNAIL = 200
"""Longer edge of a thumbnail, in pixels."""
CROP = 240
"""Edge of a crop, in pixels."""
_RADIUS = 5
_LUMA = np.array([0.299, 0.587, 0.114])


def luma(pixels: np.ndarray) -> np.ndarray:
    """(h, w) float64: the grey picture itself, or Y of Rec. 601 of an RGB one."""
    return pixels.astype(np.float64) if pixels.ndim == 2 else pixels @ _LUMA


def ssim_map(a: np.ndarray, b: np.ndarray, peak: float) -> np.ndarray:
    """Structural similarity of two grey pictures around every pixel, -1 to 1.

    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli: Image Quality Assessment: From Error
    Visibility to Structural Similarity, IEEE TIP 13 (4), 2004: Gaussian window of 11 x 11,
    sigma 1.5, K1 = 0.01, K2 = 0.03. Windows that would reach over the edge are left out, unless
    the picture is smaller than one window.

    Parameters: `a`, `b` (h, w) float; `peak`, the largest possible value.
    """
    from scipy.ndimage import gaussian_filter  # no run without a report needs it

    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2

    def blur(x):
        return gaussian_filter(x, 1.5, truncate=_RADIUS / 1.5)

    mean_a, mean_b = blur(a), blur(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = blur(a * b) - product
    variances = blur(a * a + b * b) - squares
    similarity = ((2 * product + c1) * (2 * covariance + c2)) / ((squares + c1) * (variances + c2))
    if min(a.shape) > 2 * _RADIUS:
        similarity = similarity[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return similarity


@dataclass
class Similarity:
    """SSIM of a picture, added up over its tiles, in any order and place.

    It is that of the luma, its windows within one tile: so it does not depend on how a picture was
    spread over a cluster.
    """

    total: float = 0.0
    windows: int = 0

    @classmethod
    def of(cls, original: np.ndarray, decoded: np.ndarray, peak: float) -> "Similarity":
        """Of one tile: two arrays of one shape, uint8 or uint16; `peak`, the range of the levels
        that the picture uses."""
        if np.array_equal(original, decoded):
            height, width = original.shape[:2]
            edge = 2 * _RADIUS if min(height, width) > 2 * _RADIUS else 0
            windows = (height - edge) * (width - edge)
            return cls(float(windows), windows)
        similarity = ssim_map(luma(original), luma(decoded), peak)
        return cls(float(similarity.sum()), similarity.size)

    def __add__(self, other: "Similarity") -> "Similarity":
        return Similarity(self.total + other.total, self.windows + other.windows)

    @property
    def mean(self) -> float:
        """Mean structural similarity."""
        return self.total / self.windows


@dataclass
class Seen:
    """What was measured of a tile while it was coded: its similarity, its part of the thumbnail (y,
    x, pixels), and the two crops, if they are of this tile."""

    similarity: Similarity
    piece: tuple[int, int, np.ndarray] | None = None
    crops: tuple[np.ndarray, np.ndarray] | None = None


class Watch:
    """Measures the tiles of a picture while they are coded.

    Parameters: the picture's width and height; `crop`, the number of the tile that crops are cut
    from, None if the picture is not shown.
    """

    def __init__(self, width: int, height: int, crop: int | None):
        self._width, self._height, self._crop = width, height, crop

    def __call__(self, tile: Tile, levels: Levels, pixels: np.ndarray, decoded: np.ndarray) -> Seen:
        seen = Seen(Similarity.of(pixels, decoded, levels.range))
        if self._crop is None:
            return seen
        width, height = thumbnail_size(self._width, self._height)
        x0, x1 = (round(x * width / self._width) for x in (tile.x, tile.x + tile.width))
        y0, y1 = (round(y * height / self._height) for y in (tile.y, tile.y + tile.height))
        if x0 < x1 and y0 < y1:
            seen.piece = (y0, x0, thumbnail(pixels, x1 - x0, y1 - y0))
        if tile.index == self._crop:
            window = busiest_window(pixels)
            seen.crops = (pixels[window].copy(), decoded[window].copy())
        return seen

    def facts(self, seen: list[Seen], icc: bytes | None, levels: Levels) -> dict:
        """What the report says of the picture, from what was seen of all its tiles."""
        facts: dict = {"ssim": sum((s.similarity for s in seen), Similarity()).mean}
        crops = next((s.crops for s in seen if s.crops), None)
        if crops:
            size = thumbnail_size(self._width, self._height)
            small = join_pieces([s.piece for s in seen if s.piece], *size)
            facts["visual"] = visual(small, *crops, icc, levels)
        return facts


def thumbnail(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale a picture or tile down to `width` x `height` pixels, by averaging areas."""
    # Plain slicing first: enough samples remain for an average, and 16 bits stay 16 bits.
    step = max(1, min(pixels.shape[0] // (4 * height), pixels.shape[1] // (4 * width)))
    small = pixels[::step, ::step].astype(np.float32)
    planes = [small] if small.ndim == 2 else [small[..., c] for c in range(3)]
    scaled = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BOX))
        for plane in planes
    ]
    return scaled[0] if len(scaled) == 1 else np.stack(scaled, -1)


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture's thumbnail."""
    scale = min(1.0, THUMBNAIL / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def busiest_window(pixels: np.ndarray) -> tuple[slice, slice]:
    """Where a crop shows most: the CROP x CROP window with the largest variance of luma, on a
    grid of half a window."""
    height, width = pixels.shape[:2]
    best, where = -1.0, (0, 0)
    for y in range(0, max(1, height - CROP + 1), CROP // 2):
        for x in range(0, max(1, width - CROP + 1), CROP // 2):
            spread = float(luma(pixels[y : y + CROP : 4, x : x + CROP : 4]).var())
            if spread > best:
                best, where = spread, (y, x)
    y, x = where
    return slice(y, min(y + CROP, height)), slice(x, min(x + CROP, width))


def busiest_tile(pixels: np.ndarray, grid: list[Tile]) -> int:
    """The number of the tile with the largest variance of luma; small ones at the edges hardly
    count."""

    def spread(tile: Tile) -> float:
        part = pixels[tile.y : tile.y + tile.height : 8, tile.x : tile.x + tile.width : 8]
        return float(luma(part).var()) * min(CROP, tile.height) * min(CROP, tile.width)

    return max(grid, key=spread).index


def visual(
    small: np.ndarray,
    original: np.ndarray,
    decoded: np.ndarray,
    icc: bytes | None,
    levels: Levels,
) -> dict[str, str]:
    """Thumbnail and the two crops as WebP data in base64, for the report: `levels`, which the
    picture uses, from black to white."""
    profile = {"icc_profile": icc} if icc and len(icc) <= 8192 else {}

    def webp(pixels, **options) -> str:
        image = Image.fromarray(to_bytes(pixels, levels))
        out = io.BytesIO()
        image.save(out, "WEBP", **options, **(profile if image.mode == "RGB" else {}))
        return base64.b64encode(out.getvalue()).decode()

    return {
        "thumbnail": webp(small, quality=85),
        # The quickest of its methods: a tenth larger than the default, and ten times as fast.
        "original": webp(original, lossless=True, method=0),
        "decoded": webp(decoded, lossless=True, method=0),
    }


def join_pieces(pieces: list[tuple[int, int, np.ndarray]], width: int, height: int) -> np.ndarray:
    """The thumbnail whose parts (y, x, pixels) were scaled tile by tile."""
    joined = np.zeros((height, width, *pieces[0][2].shape[2:]), np.float32)
    for y, x, piece in pieces:
        joined[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
    return joined
