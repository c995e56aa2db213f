"""Make golden archives: of a new version of the format all of them, else those that are missing.

    python3 tests/conformance/make_golden.py [FOLDER]

Archives that are there stay as they are: what was written once has to stay readable.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "femto_job"))

import femto  # noqa: E402
from femto import codec, pictures  # noqa: E402

GOLDEN = Path(__file__).resolve().parent / "golden"
KEPT = ("quality", "ratio", "psnr", "lossless", "max_error", "effort", "tune", "bits")
"""Options that are needed to make the same strings again."""


def crop(name: str, y: int, x: int, height: int, width: int) -> np.ndarray:
    """A window of one of the sample pictures."""
    with pictures.open_page(ROOT / "samples" / name) as reader:
        return np.ascontiguousarray(reader[y : y + height, x : x + width])


def _stretched(picture: np.ndarray, low: int, high: int) -> np.ndarray:
    stretched = np.rint(low + picture * ((high - low) / 255))
    return stretched.astype(np.uint16)


def _hot(picture: np.ndarray) -> np.ndarray:
    picture[30, 40] = 65535
    return picture


def sources() -> dict[str, tuple[np.ndarray, dict]]:
    """Name -> picture and options of every golden archive."""
    photo = crop("dragonfly.png", 60, 80, 97, 130)
    xray = crop("chest-xray.png", 100, 100, 80, 111)
    y, x = np.mgrid[0:70, 0:90]
    waves = 32768 + 30000 * np.sin(x / 9) * np.cos(y / 13)
    deep = np.stack([waves, waves.T[: waves.shape[0] // 2].mean() + 0 * waves, 65535 - waves], 2)
    grey = 128 + 0.6 * (x - 20) + 20 * np.sin(0.3 * y)
    cast = np.where(x < 45, 3, -2)  # in one direction of colour: one plane of chroma is empty
    near_grey = np.rint(np.dstack([grey + cast, grey, grey - cast])).astype(np.uint8)
    return {
        "photo-q75": (photo, {"quality": 75, "source": "photo.png"}),
        "photo-q20": (photo, {"quality": 20}),
        "photo-q98": (photo[:40, :50], {"quality": 98}),
        "photo-fast": (photo, {"quality": 75, "effort": "fast"}),
        "photo-perceptual": (photo, {"quality": 75, "tune": "perceptual"}),
        "photo-ratio": (photo, {"ratio": 20}),
        "xray-q60": (xray, {"quality": 60}),
        "xray-q80": (xray, {"quality": 80}),
        "xray-psnr": (xray, {"psnr": 36}),
        "near-grey": (near_grey, {}),
        "near-grey-fast": (near_grey, {"effort": "fast", "tune": "perceptual"}),
        "deep-q80": (deep.astype(np.uint16), {"quality": 80}),
        "deep-grey": (waves.astype(np.uint16), {"quality": 95, "icc": b"not a real profile"}),
        "12-bits": (_stretched(photo, 0, 4095), {"quality": 75, "bits": 12}),
        "levels": (_stretched(xray, 8000, 9200), {"quality": 80}),
        "hot-pixel": (_hot(_stretched(xray, 0, 4095)), {"quality": 80, "effort": "fast"}),
        "pixel": (np.array([[[200, 30, 90]]], np.uint8), {}),
        "row": (photo[:1], {"quality": 90}),
        # Small ones: without a compiler a sample of a residual takes milliseconds.
        "photo-lossless": (photo[20:40, 30:57], {"lossless": True}),
        "photo-error-2": (photo[50:59, 60:70], {"max_error": 2, "quality": 80}),
        "hot-lossless": (_hot(_stretched(xray, 0, 4095))[25:37, 30:45], {"lossless": True}),
        "constant": (np.full((37, 70), 77, np.uint8), {"metadata": {"note": "Größe"}}),
    }


def strings_hash(archive: bytes) -> str:
    """SHA-256 over the strings of all tiles and layers."""
    parsed = codec.parse(archive)
    digest = hashlib.sha256()
    for string in [*parsed.blocks, *(s for layer in parsed.layers for s in layer)]:
        digest.update(len(string).to_bytes(4, "big") + string)
    return digest.hexdigest()


def main(folder: Path = GOLDEN) -> None:
    """Write what is missing, and the manifest."""
    folder.mkdir(exist_ok=True)
    manifest_path = folder / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    for name, (image, options) in sources().items():
        name = f"v{codec.container.VERSION}-{name}"
        if name in manifest:
            continue
        archive = femto.encode(image, **options)
        decoded = femto.decode(archive)
        (folder / f"{name}.laff.gz").write_bytes(archive)
        for suffix, pixels in (("source", image), ("decoded", decoded)):
            pictures.write_picture(
                folder / f"{name}.{suffix}.png",
                pixels,
                width=pixels.shape[1],
                height=pixels.shape[0],
                mode="L" if pixels.ndim == 2 else "RGB",
                bits=8 * pixels.itemsize,
            )
        manifest[name] = {
            "options": {k: v for k, v in options.items() if k in KEPT},
            "strings": strings_hash(archive),
            "pixels": hashlib.sha256(decoded.astype(">u2").tobytes()).hexdigest(),
        }
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
