"""A basis: everything that is learned from pictures before the first archive is made.

The SVD bases of the block classes, the magnitudes that each class expects of its components, the
weights of the neighbourhood, and the entropy coder's state after the training pictures.
"""

import functools
import hashlib
import importlib.resources
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import classes, entropy, kstrings
from .blocks import SUB, ZONES
from .errors import LaffError
from .kstrings import LOW

FORMAT = "laff-basis"
VERSION = 1
DEFAULT = "photo"


@dataclass
class Basis:
    """Learned tables, as the coder uses them.

    components  int16 (classes - 1, 63, 63): row = component, column = one of the 63 lowest
                frequencies without the mean (8 x 8, row-major), in 1/32767; class 0 is the DCT
    means       int32 (classes, 2, 256): mean magnitude of every score (luma, chroma), relative
    zone_weights, weights, sign_weights: int32 fixed point, 1/4096
    state       int32: the coder's adaptive state
    levels      int32 (classes, 2, 63): mean magnitudes in grey levels, as levels of `classes`
    prices      float32 (classes): bits that naming the class takes
    """

    name: str
    sha256: str
    components: np.ndarray
    means: np.ndarray
    zone_weights: np.ndarray
    weights: np.ndarray
    sign_weights: np.ndarray
    state: np.ndarray
    levels: np.ndarray
    prices: np.ndarray

    def __post_init__(self):
        self.classes = len(self.components) + 1
        self.class_bits = (self.classes - 1).bit_length()
        self.backward = np.zeros((self.classes, LOW, LOW), np.float32)
        self.backward[:] = np.eye(LOW, dtype=np.float32)
        for c, stored in enumerate(self.components, 1):
            self.backward[c, 1:, 1:] = orthonormal(stored)
        self.forward = np.ascontiguousarray(self.backward.transpose(0, 2, 1))
        self.edges = self._edges()
        self.zone_means = self.means.reshape(self.classes, 2, ZONES, SUB).sum(axis=3)
        self.zone_means[:, :, 0] -= self.means[:, :, 0]

    def _edges(self) -> np.ndarray:
        """int32 (classes, 64, 4, 8): border lines (left, right, top, bottom) that a unit of each
        component makes, as cosines along the line, in 1/128. From the stored integers alone."""
        stored = np.zeros((self.classes, LOW, LOW), np.int64)
        stored[:] = 32767 * np.eye(LOW, dtype=np.int64)
        stored[1:, 1:, 1:] = self.components
        unit = np.eye(kstrings.ROTATED, dtype=np.int64)
        u, v = kstrings.FREQUENCY[kstrings.LOW_SCORES].T
        first, last = kstrings.EDGE.T
        lines = [
            unit[u] * first[v, None],
            unit[u] * last[v, None],
            unit[v] * first[u, None],
            unit[v] * last[u, None],
        ]
        edges = np.stack([stored @ line for line in lines], axis=2)
        return np.ascontiguousarray((edges + 16384) >> 15).astype(np.int32)

    def classify(self, scores: np.ndarray, step: float) -> np.ndarray:
        """The class of every block, (rows, columns) uint8, by estimated rate and distortion."""
        out = np.zeros(scores.shape[2:4], np.uint8)
        if self.classes > 1:
            shift = classes.ZERO_LEVEL - round(classes.LEVEL_STEPS * float(np.log2(step)))
            classes.choose(scores, step, self.forward, self.levels, self.prices, shift, out)
        return out


def orthonormal(stored: np.ndarray) -> np.ndarray:
    """The orthonormal matrix next to stored int16 rows, float64 (n, n).

    Newton's iteration for the polar factor (Higham 1986): plain arithmetic in a fixed order, so
    that all machines get the same matrix to the last bits.
    """
    matrix = stored.astype(np.float64) / 32767
    for _ in range(4):
        matrix = 1.5 * matrix - 0.5 * (matrix @ matrix.T @ matrix)
    return matrix


def untrained() -> Basis:
    """The DCT alone, with plausible weights: where training starts."""
    u, v = kstrings.FREQUENCY.T
    means = np.zeros((1, 2, 256), np.int32)
    means[0] = np.maximum(4096 / (1 + u + v) ** 1.5, 1)
    weights = np.zeros(kstrings.MAGNITUDES)
    weights[[0, 1]] = 0.15
    weights[[2, 3]] = 0.05
    weights[6:10] = 0.03
    weights[10:12] = 0.15
    weights[12:17] = 0.05
    weights[[19, 21]] = 0.1
    weights[23] = 0.01
    zone = np.zeros(kstrings.ZONE_FEATURES)
    zone[:2] = 0.2
    zone[2:4] = 0.05
    zone[6:8] = 0.15
    zone[8] = 0.05
    zone[15], zone[17], zone[21] = 0.1, 0.1, 0.01
    sign = np.zeros((kstrings.PLANES, 1, LOW, kstrings.SIGNED), np.int32)
    sign[:, :, 0, 8:10] = 2048
    fixed = lambda x, *shape: np.broadcast_to(np.rint(x * 4096), (*shape, len(x))).astype(np.int32)  # noqa: E731
    return Basis(
        "untrained", "", np.zeros((0, 63, 63), np.int16), means,
        np.ascontiguousarray(fixed(zone, 3, 2, ZONES)),
        np.ascontiguousarray(fixed(weights, 3, 2, kstrings.GROUPS)),
        sign, kstrings.fresh_state(), np.zeros((1, 2, LOW - 1), np.int32), np.zeros(1, np.float32),
    )  # fmt: skip


# --- the file --------------------------------------------------------------------------------
# A zip of plain arrays (NumPy's npz, read without pickle). What identifies a basis is the hash of
# its arrays, not of the file: another zlib may pack the same arrays into other bytes.

_ARRAYS = {
    "components": ("<i2", (None, LOW - 1, LOW - 1)),
    "means": ("<u2", (None, 2, 256)),
    "levels": ("<i2", (None, 2, LOW - 1)),
    "prices": ("<f4", (None,)),
    "zone_weights": ("<i2", (3, 2, ZONES, kstrings.ZONE_FEATURES)),
    "weights": ("<i2", (3, 2, kstrings.GROUPS, kstrings.MAGNITUDES)),
    "sign_weights": ("<i2", (3, None, LOW, kstrings.SIGNED)),
    "state_odds": ("<i1", (kstrings.SLOTS,)),
    "state_counts": ("<u1", (kstrings.SLOTS,)),
    "state_weights": ("<i2", (kstrings.WEIGHTS,)),
    "state_apms": ("<u2", (kstrings.APMS * entropy.APM_BINS,)),
}
"""Name -> type and shape of every array in a basis file (None: the number of classes)."""
MAX_FILE = 8 << 20


def pack_state(state: np.ndarray) -> dict[str, np.ndarray]:
    """A coder state as the arrays of a basis file: probabilities in 8 bits (log odds in
    sixteenths of the coder's unit), weights in 3.13 fixed point."""
    slots = state[: kstrings.SLOTS]
    weights = state[kstrings.SLOTS : kstrings.SLOTS + kstrings.WEIGHTS]
    odds = entropy.TABLES[entropy.STRETCH + (slots >> 18)]
    return {
        "state_odds": np.clip((odds + 8) >> 4, -127, 127).astype("<i1"),
        "state_counts": (slots & 255).astype("<u1"),
        "state_weights": np.clip((weights + 4) >> 3, -32768, 32767).astype("<i2"),
        "state_apms": np.clip(state[kstrings.SLOTS + kstrings.WEIGHTS :], 0, 65535).astype("<u2"),
    }


def unpack_state(arrays: dict[str, np.ndarray]) -> np.ndarray:
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


def save_basis(basis: Basis, path: str | Path) -> str:
    """Write a basis file and return the hash that identifies the basis."""
    arrays = {name: getattr(basis, name) for name in _ARRAYS if not name.startswith("state_")}
    arrays = {name: array.astype(_ARRAYS[name][0]) for name, array in arrays.items()}
    arrays |= pack_state(basis.state)
    digest = _hash(arrays)
    header = json.dumps({"format": FORMAT, "version": VERSION, "name": basis.name, "sha256": digest})
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        np.savez_compressed(file, header=np.frombuffer(header.encode(), np.uint8), **arrays)
    part.replace(path)
    return digest


def read_basis(path: str | Path) -> Basis:
    """Read and check a basis file. Raises LaffError."""
    try:
        if Path(path).stat().st_size > MAX_FILE:
            raise LaffError(f"{path}: too large for a basis file: give one that femto trained")
        with np.load(path, allow_pickle=False) as npz:
            header = json.loads(npz["header"].tobytes())
            if header.get("format") != FORMAT:
                raise LaffError(f"{path}: not a basis file: give one that femto trained")
            if header.get("version") != VERSION:
                raise LaffError(
                    f"{path}: version {header.get('version')!r} of the basis format is unknown "
                    f"here (this femto reads {VERSION}): install a newer femto"
                )
            arrays = {name: npz[name] for name in _ARRAYS}
    except FileNotFoundError:
        raise LaffError(f"{path}: no such basis file: check the name") from None
    except LaffError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise LaffError(f"{path}: not a whole basis file ({error}): copy it again") from None
    classes = len(arrays["means"])
    if not 1 <= classes <= kstrings.CLASSES or len(arrays["components"]) != classes - 1:
        raise LaffError(f"{path}: a basis of {classes} classes cannot be used: train it again")
    for name, (dtype, shape) in _ARRAYS.items():
        wanted = (classes - 1,) if name == "components" else ()
        wanted += tuple(classes if n is None else n for n in shape[len(wanted) :])
        if arrays[name].dtype.str.lstrip("|") != np.dtype(dtype).str.lstrip("|") or (
            arrays[name].shape != wanted
        ):
            raise LaffError(f"{path}: the basis's {name} have the wrong shape: copy it again")
    if _hash(arrays) != header.get("sha256"):
        raise LaffError(f"{path}: the basis's checksum does not match: copy it again")
    as_int = {n: arrays[n].astype(np.int32) for n in
              ("means", "levels", "zone_weights", "weights", "sign_weights")}  # fmt: skip
    return Basis(
        name=str(header.get("name")), sha256=header["sha256"], components=arrays["components"],
        prices=arrays["prices"], state=unpack_state(arrays), **as_int,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def load_basis(name: str = DEFAULT) -> Basis:
    """The basis of that name, if femto ships it, else the one in the file of that path.

    Raises LaffError if there is none or it is damaged.
    """
    if name == DEFAULT:
        resource = importlib.resources.files(__package__) / "data" / f"{name}.basis"
        with importlib.resources.as_file(resource) as path:
            return read_basis(path)
    return read_basis(name)


def basis_of(name: str, sha256: str, archive: str) -> Basis:
    """The basis that an archive was made with, by name and hash.

    Looked for among the shipped ones, then as NAME.basis and in a folder `basis` beside the
    archive. Raises LaffError, naming the one that is needed, if it is not found.
    """
    folder = Path(archive).parent
    shipped = load_basis(DEFAULT)
    if shipped.sha256 == sha256:
        return shipped
    for path in (folder / f"{name}.basis", folder / "basis" / f"{name}.basis"):
        if path.is_file() and (found := load_basis(str(path))).sha256 == sha256:
            return found
    raise LaffError(
        f"{archive}: needs the basis {name!r} ({sha256[:12]}…): put {name}.basis beside it or in "
        "a folder named basis there"
    )
