"""A basis: everything that is learned from pictures before the first archive is made.

The SVD bases of the block classes, the magnitudes that each class expects of its components, the
weights of the neighbourhood, and the entropy coder's state after the training pictures.
"""

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from ..errors import LaffError
from ..jit import njit
from . import entropy, features, model
from .blocks import SIZES, ZIGZAG, ZONES
from .features import Learned

FORMAT = "laff-basis"
VERSION = 1


@dataclass
class Basis1:
    """Learned tables, as the decoder uses them.

    components   int16 (classes - 1, 63, 63): row = component, column = DCT score 1 … 63 of an
                 8 x 8 block in zigzag order, in 1/32767; class 0 is the DCT itself
    means        int32 (classes + 2, 2, 64): mean magnitude in every zone, for luma and chroma, of
                 the classes of small blocks and of blocks of 16 and 32 pixels, in 1/1024
    zone_weights, weights, sign_weights: int32 fixed point, 1/4096
    state        int32: the coder's adaptive state
    """

    name: str
    sha256: str
    components: np.ndarray
    means: np.ndarray
    zone_weights: np.ndarray
    weights: np.ndarray
    sign_weights: np.ndarray
    state: np.ndarray

    def __post_init__(self):
        self.classes = len(self.components) + 1
        self.class_bits = (self.classes - 1).bit_length()
        self.backward = np.zeros((self.classes, ZONES, ZONES), np.float32)
        self.backward[:] = np.eye(ZONES, dtype=np.float32)
        for c, stored in enumerate(self.components, 1):
            self.backward[c, 1:, 1:] = _orthonormal(stored)
        before = np.cumsum(self.means, axis=2) - self.means
        # A small block's zone 0 is the mean alone, which has no magnitude to expect.
        before[: self.classes] -= self.means[: self.classes, :, :1]
        self.learned = Learned(
            self._edges(),
            self.means,
            np.maximum(before, 0).astype(np.int32),
            self.zone_weights,
            self.weights,
            self.sign_weights,
        )

    def _edges(self) -> np.ndarray:
        """int32 (classes, 64, 4, 8): the border samples (left, right, top, bottom) that a unit of
        each component of a small block makes, in 1/1024. From the stored integers alone."""
        stored = np.zeros((self.classes, ZONES, ZONES), np.int64)
        stored[:] = 32767 * np.eye(ZONES, dtype=np.int64)
        stored[1:, 1:, 1:] = self.components
        lines = features.LINES[0, :8, :8]
        u, v = ZIGZAG.T
        borders = [
            lines[u] * lines[v, :1],
            lines[u] * lines[v, 7:],
            lines[v] * lines[u, :1],
            lines[v] * lines[u, 7:],
        ]
        edges = np.stack([stored @ border for border in borders], axis=2)
        return np.ascontiguousarray((edges + (1 << 24)) >> 25).astype(np.int32)


@njit
def _product(a, b, out):
    """out = a b, each sum in the order of its terms: a BLAS would round it otherwise on every
    kind of processor, and pixels should not depend on that."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = 0.0
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] += a[i, k] * b[k, j]


def _orthonormal(stored: np.ndarray) -> np.ndarray:
    """The orthonormal matrix next to stored int16 rows (in 1/32767), float64 (n, n).

    Four steps of Newton's iteration for the polar factor (Higham 1986), X ← 1.5 X - 0.5 X Xᵀ X.
    """
    matrix = stored.astype(np.float64) / 32767
    square, cube = np.empty_like(matrix), np.empty_like(matrix)
    for _ in range(4):
        _product(matrix, np.ascontiguousarray(matrix.T), square)
        _product(square, matrix, cube)
        matrix = 1.5 * matrix - 0.5 * cube
    return matrix


# --- the file --------------------------------------------------------------------------------
# A zip of plain arrays (NumPy's npz, read without pickle). What identifies a basis is the hash of
# its arrays, not of the file: another zlib may pack the same arrays into other bytes.

_ARRAYS = {
    "components": ("<i2", (-1, 63, 63)),
    "means": ("<u2", (2, 2, ZONES)),
    "levels": ("<i2", (0, 63)),
    "prices": ("<f4", (0,)),
    "size_costs": ("<f4", (2, SIZES, 166)),
    "zone_weights": ("<i2", (3, features.SETS, ZONES, features.ZONE_FEATURES)),
    "weights": ("<i2", (3, features.SETS, model.GROUPS, features.MAGNITUDES)),
    "sign_weights": ("<i2", (3, features.LARGE_SIGN_KEYS, features.SIGNED)),
    "state_odds": ("<i1", (model.SLOTS,)),
    "state_counts": ("<u1", (model.SLOTS,)),
    "state_weights": ("<i2", (model.WEIGHTS,)),
    "state_apms": ("<u2", (model.APMS * entropy.APM_BINS,)),
}
"""Name -> type and shape of every array in a basis file, for no classes; see `_shape`."""
MAX_FILE = 8 << 20
"""Bytes that a basis file may have."""


def _shape(name: str, classes: int) -> tuple[int, ...]:
    """Shape of an array in the file of a basis of so many classes."""
    shape = list(_ARRAYS[name][1])
    if name in ("components", "means", "levels", "prices"):
        shape[0] += classes
    elif name == "sign_weights":
        shape[1] += classes * ZONES
    return tuple(shape)


def _unpack_state(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The coder's state, int32, from the arrays of a basis file."""
    odds = arrays["state_odds"].astype(np.int64) * 16
    counts = arrays["state_counts"].astype(np.int64)
    p = entropy.TABLES[entropy.SQUASH + odds].astype(np.int64) << (entropy.PROBABILITY_BITS - 16)
    p = np.where(counts == 0, 1 << (entropy.PROBABILITY_BITS - 1), p)
    weights = arrays["state_weights"].astype(np.int64) << 3
    return np.concatenate([(p << 8) | counts, weights, arrays["state_apms"]]).astype(np.int32)


def _hash(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {VERSION}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_basis(data: bytes, name) -> Basis1:
    """Read and check the content of a basis file; `name` stands for the file in errors.

    Raises LaffError.
    """
    if len(data) > MAX_FILE:
        raise LaffError(f"{name}: too large for a basis file: give one that femto trained")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as npz:
            header = json.loads(npz["header"].tobytes())
            if header.get("format") != FORMAT:
                raise LaffError(f"{name}: not a basis file: give one that femto trained")
            if header.get("version") != VERSION:
                raise LaffError(
                    f"{name}: version {header.get('version')!r} of the basis format is unknown "
                    f"here (this femto reads {VERSION}): install a newer femto"
                )
            arrays = {key: npz[key] for key in _ARRAYS}
    except LaffError:
        raise
    except (
        AttributeError,
        EOFError,
        KeyError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise LaffError(f"{name}: not a whole basis file ({error}): copy it again") from None
    classes = len(arrays["prices"])
    if not 1 <= classes <= model.CLASSES:
        raise LaffError(f"{name}: a basis of {classes} classes cannot be used: train it again")
    for key, (dtype, _) in _ARRAYS.items():
        if arrays[key].dtype != np.dtype(dtype) or arrays[key].shape != _shape(key, classes):
            raise LaffError(f"{name}: the basis's {key} have the wrong shape: copy it again")
    if _hash(arrays) != header.get("sha256"):
        raise LaffError(f"{name}: the basis's checksum does not match: copy it again")
    tables = ("means", "zone_weights", "weights", "sign_weights")
    return Basis1(
        name=str(header.get("name")),
        sha256=header["sha256"],
        components=arrays["components"],
        state=_unpack_state(arrays),
        **{key: arrays[key].astype(np.int32) for key in tables},
    )
