"""Archives as a codec of numcodecs, as Zarr's format 2 and others use them: `femto.laff`.

    import numcodecs

    codec = numcodecs.get_codec({"id": "femto.laff", "quality": 80})
    archive = codec.encode(pixels)
    pixels = codec.decode(archive)

Where femto is installed, that name is found; else `import femto.numcodecs` registers it. It is
lossy unless `lossless` is true, and an array becomes one picture: uint8 or uint16, (h, w) or
(h, w, 3), with any number of axes of length 1 before. What is decoded is (h, w) or (h, w, 3),
little-endian.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import codec
from .errors import LaffError

try:
    from numcodecs.abc import Codec
    from numcodecs.compat import ensure_bytes, ndarray_copy
    from numcodecs.registry import register_codec
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs numcodecs, which is not here: pip install numcodecs", name=error.name
    ) from None

__all__ = ["Laff"]


class Laff(Codec):
    """An array as an archive.

    Parameters: `quality`, `ratio` or `psnr`, `lossless` or `max_error`, `effort`, `tune` and
    `bits`, as for `femto.encode`; the configuration holds those that are not as usual. The basis is
    femto's own. Raises LaffError for options that cannot be.
    """

    codec_id = "femto.laff"

    def __init__(
        self,
        *,
        quality: float | None = None,
        ratio: float | None = None,
        psnr: float | None = None,
        lossless: bool = False,
        max_error: int | None = None,
        effort: str = "full",
        tune: str = "psnr",
        bits: int | None = None,
    ):
        given = {"quality": quality, "ratio": ratio, "psnr": psnr, "max_error": max_error}
        given |= {"lossless": lossless or None, "bits": bits}
        self._options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if effort != "full":
            self._options["effort"] = effort
        if tune != "psnr":
            self._options["tune"] = tune
        # What cannot be is told before there are arrays; a pixel is soon coded.
        deep = isinstance(bits, int) and bits > 8
        codec.encode(np.zeros((1, 1), np.uint16 if deep else np.uint8), **self._options)

    def get_config(self) -> dict[str, Any]:
        """What `numcodecs.get_codec` makes an equal codec of."""
        return {"id": self.codec_id, **self._options}

    def __repr__(self) -> str:
        given = ", ".join(f"{key}={value!r}" for key, value in self._options.items())
        return f"{type(self).__name__}({given})"

    def encode(self, buf: Any) -> bytes:
        """The archive of an array. Raises LaffError if it is not one picture, or if what is decoded
        could not take its place: arrays that are big-endian, or column by column in memory."""
        pixels = np.asarray(buf)
        shape = picture_shape(pixels.shape, pixels.dtype)
        if pixels.dtype != pixels.dtype.newbyteorder("<"):
            raise LaffError(f"big-endian samples ({pixels.dtype.str}) are not coded: take <u2")
        if pixels.flags.f_contiguous and not pixels.flags.c_contiguous:
            raise LaffError('arrays that are column by column are not coded: take order "C"')
        return codec.encode(pixels.reshape(shape), **self._options)

    def decode(self, buf: Any, out: Any = None) -> NDArray[Any]:
        """The array of an archive, (h, w) or (h, w, 3); into `out`, a buffer of its size, if there
        is one. Raises LaffError."""
        pixels = codec.decode(ensure_bytes(buf), samples=True)
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
        if out is not None and memoryview(out).nbytes != pixels.nbytes:
            room = memoryview(out).nbytes
            raise LaffError(f"out has {room} bytes, the picture {pixels.nbytes}: take so many")
        found: NDArray[Any] = ndarray_copy(pixels, out)
        return found


def picture_shape(shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
    """The shape of the picture that an array is, (h, w) or (h, w, 3). Raises LaffError if it is
    none, or of another type than uint8 and uint16."""
    if np.dtype(dtype).newbyteorder("=") not in (np.uint8, np.uint16):
        raise LaffError(f"arrays of {np.dtype(dtype)} are not coded: give uint8 or uint16")
    found = tuple(shape)
    while len(found) > 2 and found[0] == 1 and not (len(found) == 3 and found[2] == 3):
        found = found[1:]
    if len(found) != 2 and not (len(found) == 3 and found[2] == 3):
        raise LaffError(
            f"a chunk of shape {tuple(shape)} is not a picture: choose (h, w) or (h, w, 3), with "
            "axes of length 1 before these"
        )
    return found


register_codec(Laff)
