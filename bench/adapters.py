"""One adapter per codec: the same two calls for all, single thread, bytes as they lie on disk."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, features

from bench import ROOT


class NotSupported(Exception):
    """The codec has no mode for this kind of picture; the reason is the message."""


@dataclass(frozen=True)
class Codec:
    """name: as on the command line and in tables. qualities: settings of the rate-distortion curve,
    in the codec's own unit. typical: the setting at which speed is measured. version: of the
    library. settings: all that is fixed."""

    name: str
    qualities: tuple
    typical: float
    version: str
    settings: str

    def check(self, image):
        """Raise NotSupported when the codec cannot code such a picture."""

    def encode(self, image, quality):
        """(h, w) or (h, w, 3) array -> bytes of the file."""
        raise NotImplementedError

    def decode(self, data):
        """Bytes of the file -> array of the original's type; grey may come back as RGB."""
        raise NotImplementedError

    def key(self):
        """What a cached measurement depends on beside picture and quality."""
        return f"{self.name}|{self.version}|{self.settings}"


def _only_8_bits(image, name):
    if image.dtype != np.uint8:
        raise NotSupported(f"{name} has 8 bits only")


class _Pillow(Codec):
    def _save(self, image, **options):
        out = io.BytesIO()
        Image.fromarray(image).save(out, **options)
        return out.getvalue()

    def decode(self, data):
        return np.asarray(Image.open(io.BytesIO(data)))


class Jpeg(_Pillow):
    """libjpeg-turbo, optimised Huffman tables. A grey picture has no chroma to subsample."""

    def check(self, image):
        _only_8_bits(image, "JPEG")
        if image.ndim == 2 and self.name != "jpeg420":
            raise NotSupported("a grey JPEG is the same with and without chroma subsampling")

    def encode(self, image, quality):
        subsampling = 2 if self.name == "jpeg420" else 0
        return self._save(
            image, format="JPEG", quality=quality, optimize=True, subsampling=subsampling
        )


class Webp(_Pillow):
    """libwebp, method 6. It has no grey mode: a grey picture is coded as RGB without chroma."""

    def check(self, image):
        _only_8_bits(image, "WebP")
        if max(image.shape[:2]) > 16383:
            raise NotSupported("WebP is limited to 16383 x 16383")

    def encode(self, image, quality):
        return self._save(image, format="WEBP", quality=quality, method=6)


class Avif(Codec):
    """libavif with libaom, speed 4, 4:4:4 (grey: 4:0:0)."""

    def check(self, image):
        _only_8_bits(image, "AVIF in this bench (the format ends at 12)")

    def encode(self, image, quality):
        # imagecodecs codes a 2-D array losslessly whatever the level: give it RGB, drop the chroma.
        pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
        return imagecodecs.avif_encode(
            pixels,
            quality,
            speed=4,
            pixelformat="400" if image.ndim == 2 else "444",
            numthreads=1,
        )

    def decode(self, data):
        return imagecodecs.avif_decode(data, numthreads=1)


class JpegXl(Codec):
    """libjxl, effort 7; quality is the Butteraugli distance. A bare codestream is a .jxl file."""

    def encode(self, image, quality):
        return imagecodecs.jpegxl_encode(image, distance=quality, effort=7, numthreads=1)

    def decode(self, data):
        return imagecodecs.jpegxl_decode(data, numthreads=1)


class Jpeg2000(Codec):
    """OpenJPEG, 9/7 wavelet, one layer, colour transform on; quality is the PSNR aimed at.

    The bare codestream (.j2k) is a file of its own, 85 bytes smaller than a .jp2.
    """

    def encode(self, image, quality):
        return imagecodecs.jpeg2k_encode(
            image, quality, codecformat="j2k", mct=image.ndim == 3, numthreads=1
        )

    def decode(self, data):
        return imagecodecs.jpeg2k_decode(data, numthreads=1)


class Femto(Codec):
    """femto of this checkout. `name` may carry options of femto.encode: femto:effort=fast."""

    def encode(self, image, quality):
        import femto

        if isinstance(quality, str):  # "ratio=8", "psnr=40": a target instead of a quality
            name, value = quality.split("=")
            target = {name: float(value)}
        else:
            target = {"quality": quality}
        return femto.encode(image, **target, **femto_options(self.name))

    def decode(self, data):
        import femto

        return femto.decode(data, basis=femto_options(self.name).get("basis"))


def femto_options(name):
    """Options in a codec's name: "femto:effort=fast,tune=psnr" -> {"effort": "fast", …}."""
    name = VARIANTS.get(name, name)
    _, _, options = name.partition(":")
    return dict(item.split("=", 1) for item in options.split(",") if item)


def femto_version(package=ROOT / "femto_job" / "femto"):
    """Hash of the package's files: measurements of one state of the code are never mixed with
    those of another, and nothing has to be remembered when the code changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(package).rglob("*")):
        if path.is_file() and not {"__pycache__", "_library"} & set(path.parts):
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


VARIANTS = {
    "femto-fast": "femto:effort=fast",
    "femto-perceptual": "femto:tune=perceptual",
}
"""Short names of what is measured beside femto."""
JPEG_QUALITIES = (20, 35, 50, 65, 75, 85, 90, 95, 98)
PEERS = ("jpeg420", "jpeg444", "webp", "avif444", "jxl", "jp2")


def _turbo():
    return f"libjpeg-turbo {features.version('libjpeg_turbo')}, Pillow {Image.__version__}"


_MAKERS = {
    "jpeg420": lambda: Jpeg("jpeg420", JPEG_QUALITIES, 75, _turbo(), "optimize, 4:2:0"),
    "jpeg444": lambda: Jpeg("jpeg444", JPEG_QUALITIES, 75, _turbo(), "optimize, 4:4:4"),
    "webp": lambda: Webp(
        "webp",
        (10, 30, 50, 70, 80, 90, 97, 100),
        80,
        f"libwebp {features.version('webp')}, Pillow {Image.__version__}",
        "method 6",
    ),
    "avif444": lambda: Avif(
        "avif444",
        (25, 40, 50, 60, 70, 80, 88, 94),
        70,
        f"{imagecodecs.avif_version()}, imagecodecs {imagecodecs.__version__}",
        "libaom, 4:4:4 (grey 4:0:0), speed 4",
    ),
    "jxl": lambda: JpegXl(
        "jxl",
        (0.3, 0.6, 1.0, 1.4, 2.0, 2.8, 4.0, 6.0),
        1.4,
        f"{imagecodecs.jpegxl_version()}, imagecodecs {imagecodecs.__version__}",
        "effort 7, distances",
    ),
    "jp2": lambda: Jpeg2000(
        "jp2",
        (26.0, 28.5, 31.0, 33.0, 35.0, 37.0, 39.0, 42.0, 45.0, 48.0, 51.0, 54.0),
        37.0,
        f"{imagecodecs.jpeg2k_version()}, imagecodecs {imagecodecs.__version__}",
        "9/7, colour transform on, PSNR targets",
    ),
}


def get_codec(name):
    """The codec of that name. ValueError names those that there are."""
    if name in _MAKERS:
        return _MAKERS[name]()
    if VARIANTS.get(name, name).partition(":")[0] == "femto":
        qualities = (30, 40, 50, 60, 70, 80, 88, 94)
        version = femto_version()
        if basis := femto_options(name).get("basis"):
            version += f", {basis}: {hashlib.sha256(Path(basis).read_bytes()).hexdigest()[:16]}"
        return Femto(name, qualities, 75, version, "gzip archive")
    known = ", ".join((*VARIANTS, *_MAKERS))
    raise ValueError(f"unknown codec {name}: use femto[:option=value,…], {known}")
