"""How good a reconstruction is, and the small pictures that show it."""

import base64
import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from femto.samples import Levels, to_bytes
from femto.target import psnr

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


class Fidelity:
    """Sums of errors over the tiles of a picture; tiles can be added in any order and place.

    SSIM is that of the luma, its windows within one tile: so it does not depend on how a picture
    was spread over a cluster.
    """

    def __init__(self, sse: float = 0.0, samples: int = 0, ssim_sum: float = 0.0, windows: int = 0):
        self.sse, self.samples, self.ssim_sum, self.windows = sse, samples, ssim_sum, windows

    def add_tile(self, original: np.ndarray, decoded: np.ndarray, peak: float) -> None:
        """Add one tile: two arrays of one shape, uint8 or uint16; `peak`, the range of the levels
        that the picture uses."""
        difference = original.astype(np.int32) - decoded
        self.sse += float(np.square(difference, dtype=np.int64).sum())
        self.samples += original.size
        similarity = ssim_map(luma(original), luma(decoded), peak)
        self.ssim_sum += float(similarity.sum())
        self.windows += similarity.size

    def add(self, other: "Fidelity") -> None:
        """Add what another process measured."""
        self.sse += other.sse
        self.samples += other.samples
        self.ssim_sum += other.ssim_sum
        self.windows += other.windows

    def psnr(self, peak: float) -> float:
        """Peak signal-to-noise ratio in dB over all samples; infinite if there is no error."""
        return psnr(self.sse, self.samples, peak)

    def ssim(self) -> float:
        """Mean structural similarity."""
        return self.ssim_sum / self.windows


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
        "original": webp(original, lossless=True),
        "decoded": webp(decoded, lossless=True),
    }


def join_pieces(pieces: list[tuple[int, int, np.ndarray]], width: int, height: int) -> np.ndarray:
    """The thumbnail whose parts (y, x, pixels) were scaled tile by tile."""
    joined = np.zeros((height, width, *pieces[0][2].shape[2:]), np.float32)
    for y, x, piece in pieces:
        joined[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
    return joined
