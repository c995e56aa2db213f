"""Distortion of a decoded picture against its original.

A metric group is computed by one function (original, decoded) -> {name: float | None}; `GROUPS`
names them. None means that the metric is not defined for such a picture.
"""

import importlib.metadata
import io
import math

import numpy as np
from PIL import Image
from scipy.ndimage import correlate1d

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003, table 1


def peak(image):
    """Largest sample value of the picture's type: 255 or 65535."""
    return float(np.iinfo(image.dtype).max)


def luma(image):
    """(h, w) float64 luma, not rounded; a grey picture is its own luma."""
    return image.astype(np.float64) if image.ndim == 2 else image @ LUMA


def psnr_db(original, decoded, top):
    """Peak signal-to-noise ratio in dB over all samples, inf when equal."""
    error = np.mean(np.square(np.asarray(original, float) - np.asarray(decoded, float)))
    return 10 * math.log10(top * top / error) if error else math.inf


def psnr(original, decoded):
    """PSNR over all samples of all channels, and of luma."""
    top = peak(original)
    return {
        "psnr_rgb": psnr_db(original, decoded, top),
        "psnr_y": psnr_db(luma(original), luma(decoded), top),
    }


def ssim_terms(x, y, top):
    """Mean SSIM and mean contrast-structure term of two (h, w) float pictures.

    Wang et al. 2004: Gaussian window 11x11 of sigma 1.5, K = (0.01, 0.03), only positions where
    the window lies inside the picture.
    """
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(a):
        return correlate1d(correlate1d(a, window, 0), window, 1)[5:-5, 5:-5]

    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    mx, my = smooth(x), smooth(y)
    vx, vy = smooth(x * x) - mx * mx, smooth(y * y) - my * my
    structure = (2 * (smooth(x * y) - mx * my) + c2) / (vx + vy + c2)
    ssim = structure * (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return float(ssim.mean()), float(structure.mean())


def ms_ssim(original, decoded):
    """Multi-scale SSIM of luma and the same in dB, -10 log10(1 - MS-SSIM).

    Five scales (2x2 mean between them), so the short side must be 176 or more: else None.
    """
    x, y = luma(original), luma(decoded)
    if min(x.shape) < 11 * 2 ** (len(MS_SSIM_WEIGHTS) - 1):
        return {"ms_ssim": None, "ms_ssim_db": None}
    value = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        ssim, structure = ssim_terms(x, y, peak(original))
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        value *= max(ssim if last else structure, 0.0) ** weight
        h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
        x, y = (a[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for a in (x, y))
    return {"ms_ssim": value, "ms_ssim_db": -10 * math.log10(1 - value) if value < 1 else math.inf}


def ssimulacra2(original, decoded):
    """SSIMULACRA2 by the package of that name (100: no difference). 8 bits only; grey as RGB."""
    if original.dtype != np.uint8:
        return {"ssimulacra2": None}
    from ssimulacra2 import compute_ssimulacra2

    files = []
    for image in (original, decoded):
        files.append(io.BytesIO())
        Image.fromarray(image).save(files[-1], "BMP")
    return {"ssimulacra2": float(compute_ssimulacra2(*files))}


GROUPS = {"psnr": psnr, "ms-ssim": ms_ssim, "ssimulacra2": ssimulacra2}
NAMES = {
    "psnr": ("psnr_rgb", "psnr_y"),
    "ms-ssim": ("ms_ssim", "ms_ssim_db"),
    "ssimulacra2": ("ssimulacra2",),
}


def cache_key(group):
    """Name of the group in the cache, with the version of the package it comes from."""
    if group == "ssimulacra2":
        return f"ssimulacra2 {importlib.metadata.version('ssimulacra2')}"
    return f"{group} 1"  # to be raised when the definition above changes
