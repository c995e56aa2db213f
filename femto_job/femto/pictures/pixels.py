"""Conversions of pixels: arrays in, arrays out."""

import contextlib
import io

import numpy as np


def on_white(
    colour: np.ndarray, alpha: np.ndarray, bits: int | None = None, premultiplied: bool = False
) -> np.ndarray:
    """Composite (h, w[, 3]) on white with alpha (h, w) of the same type and bits, rounded."""
    full = np.iinfo(colour.dtype).max if bits is None else (1 << bits) - 1
    alpha = alpha if colour.ndim == 2 else alpha[..., None]
    alpha = alpha.astype(np.uint32)
    if premultiplied:
        out = np.minimum(colour + (full - alpha), full)
    else:
        out = (colour * alpha + full * (full - alpha) + full // 2) // full
    return out.astype(colour.dtype)


def luma(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) to (h, w) by ITU-R BT.601 in 16-bit fixed point, as Pillow's mode L."""
    r, g, b = (rgb[..., i].astype(np.uint32) for i in range(3))
    if rgb.dtype == np.uint8:
        return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)
    # The weights add up to 65536, so the sum of 16-bit values fits 32 bits without the rounding.
    return ((r * 19595 + g * 38470 + b * 7471) >> 16).astype(np.uint16)


def scale(values: np.ndarray, bits: int) -> np.ndarray:
    """Integers of `bits` bits to the full range of uint8 (up to 8 bits) or uint16, rounded."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return values.astype(dtype, copy=False)
    full, top = np.iinfo(dtype).max, (1 << bits) - 1
    return ((values.astype(np.uint32) * full + top // 2) // top).astype(dtype)


def usable_profile(icc: bytes | None, space: bytes) -> bytes | None:
    """The ICC profile if it is one, and one of the colour space `space` (such as b"RGB ")."""
    if not icc or len(icc) < 132 or icc[36:40] != b"acsp" or icc[16:20] != space:
        return None
    return bytes(icc)


class CmykToRgb:
    """CMYK (h, w, 4) uint8, 255 = full ink, to sRGB: by its ICC profile, else (1-C)(1-K)."""

    def __init__(self, icc: bytes | None):
        self._transform = None
        icc = usable_profile(icc, b"CMYK")
        if icc:
            from PIL import ImageCms

            with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
                self._transform = ImageCms.buildTransform(
                    ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                    ImageCms.createProfile("sRGB"),
                    "CMYK",
                    "RGB",
                    ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )

    def __call__(self, cmyk: np.ndarray) -> np.ndarray:
        if self._transform is not None:
            from PIL import Image, ImageCms

            image = Image.fromarray(np.ascontiguousarray(cmyk), "CMYK")
            return np.asarray(ImageCms.applyTransform(image, self._transform))
        white = 255 - cmyk.astype(np.uint32)
        return ((white[..., :3] * white[..., 3:] + 127) // 255).astype(np.uint8)


def ycbcr_to_rgb(
    ycbcr: np.ndarray, bits: int, coefficients=None, reference=None, unit: int | None = None
) -> np.ndarray:
    """YCbCr of `bits` bits to RGB, same shape and type (TIFF 6.0, section 21, as libtiff does).

    coefficients: luma weights of red, green and blue (default: BT.601); reference: samples of
    black and white of Y, Cb, Cr, of `unit` bits (default: the full range, as JFIF).
    """
    full = (1 << bits) - 1
    half = (full + 1) // 2
    red, green, blue = _numbers(coefficients, 3) or (0.299, 0.587, 0.114)
    if min(red, green, blue) <= 0:
        red, green, blue = 0.299, 0.587, 0.114
    span = _numbers(reference, 6)
    if span is not None:
        span = [v * full / ((1 << (unit or bits)) - 1) for v in span]
    if span is None or min(np.subtract(span[1::2], span[::2])) <= 0:
        span = [0, full, half, full, half, full]
    y, cb, cr = (ycbcr[..., i].astype(np.float64) for i in range(3))
    y = (y - span[0]) * (full / (span[1] - span[0]))
    cb = (cb - span[2]) * ((half - 1) / (span[3] - span[2]))
    cr = (cr - span[4]) * ((half - 1) / (span[5] - span[4]))
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    rgb = np.stack([r, (y - red * r - blue * b) / green, b], axis=-1)
    return np.clip(np.rint(rgb), 0, full).astype(ycbcr.dtype)


def _numbers(values, count: int) -> list[float] | None:
    """A tag of RATIONALs (tifffile gives numerators and denominators in turn), or of numbers."""
    if values is None or not hasattr(values, "__len__"):
        return None
    values = [float(v) for v in values]
    if len(values) == 2 * count:
        if not all(values[1::2]):
            return None
        values = [a / b for a, b in zip(values[::2], values[1::2], strict=True)]
    return values if len(values) == count else None
