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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..coding import contexts, entropy, first_layer, model, partition, restore
from ..coding.blocks import SIZES, ZIGZAG, ZONES
from ..coding.contexts import Learned
from ..coding.kernels import packed
from ..container import AnyPath, Archive, is_plain
from ..errors import LaffError
from ..files.whole import whole_file

FORMAT = "laff-basis"
VERSION = 2
DEFAULT = "photo"


@dataclass
class Basis:
    """Learned tables, as the coder uses them.

    components   int16 (classes - 1, 63, 63): row = component, column = DCT score 1 … 63 of an
                 8 x 8 block in zigzag order, in 1/32767; class 0 is the DCT itself
    means        int32 (classes + 2, 2, 64): mean magnitude in every zone, for luma and chroma, of
                 the classes of small blocks and of blocks of 16 and 32 pixels, in 1/1024
    levels       int32 (classes, 63): mean magnitudes in grey levels, as levels of `classes`
    prices       float32 (classes): bits that naming the class takes
    size_costs   float32 (2, 3, terms): cost tables of `partition`, for luma and chroma
    zone_weights, weights, sign_weights: int32 fixed point, 1/4096
    state        int32: the coder's adaptive state
    restoration  the filter's weights, see `restore`
    """

    name: str
    sha256: str
    components: np.ndarray
    means: np.ndarray
    levels: np.ndarray
    prices: np.ndarray
    size_costs: np.ndarray
    zone_weights: np.ndarray
    weights: np.ndarray
    sign_weights: np.ndarray
    state: np.ndarray
    restoration: restore.Table

    def __post_init__(self) -> None:
        self.classes = len(self.components) + 1
        self.class_bits = (self.classes - 1).bit_length()
        self.backward = np.zeros((self.classes, ZONES, ZONES), np.float32)
        self.backward[:] = np.eye(ZONES, dtype=np.float32)
        self.backward[1:, 1:, 1:] = orthonormal(self.components)
        self.forward = np.ascontiguousarray(self.backward.transpose(0, 2, 1))
        expect = np.ascontiguousarray(self.means, np.int32)
        before = np.cumsum(expect, axis=2) - expect
        # A small block's zone 0 is the mean alone, which has no magnitude to expect.
        before[: self.classes] -= expect[: self.classes, :, :1]
        foreseen = np.stack([np.maximum(before, 0), self._whole(expect)]).astype(np.int32)
        self.learned = packed(
            Learned(
                self._edges(),
                expect,
                foreseen,
                self.zone_weights,
                self.weights,
                self.sign_weights,
            )
        )

    @functools.cached_property
    def first_state(self) -> np.ndarray:
        """What `first_layer` takes of the state."""
        return first_layer.state_of(self.state)

    def _whole(self, expect: np.ndarray) -> np.ndarray:
        """What a block holds in all zones, for every zone: a pass that refines has seen it all."""
        whole = expect.sum(axis=2, keepdims=True)
        whole[: self.classes] -= expect[: self.classes, :, :1]
        return np.broadcast_to(whole, expect.shape)

    def _edges(self) -> np.ndarray:
        """int32 (classes, 64, 4, 8): the border samples (left, right, top, bottom) that a unit of
        each component of a small block makes, in 1/1024. From the stored integers alone."""
        stored = np.zeros((self.classes, ZONES, ZONES), np.int64)
        stored[:] = 32767 * np.eye(ZONES, dtype=np.int64)
        stored[1:, 1:, 1:] = self.components
        lines = contexts.LINES[0, :8, :8]
        u, v = ZIGZAG.T
        borders = [
            lines[u] * lines[v, :1],
            lines[u] * lines[v, 7:],
            lines[v] * lines[u, :1],
            lines[v] * lines[u, 7:],
        ]
        edges = np.stack([stored @ border for border in borders], axis=2)
        return np.ascontiguousarray((edges + (1 << 24)) >> 25).astype(np.int32)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of matrices, (classes, n, n), each sum in the order of its terms: a BLAS would round
    it otherwise on every kind of processor, and archives should not depend on that."""
    out, term = np.zeros_like(a), np.empty_like(a)
    for k in range(a.shape[2]):
        np.multiply(a[:, :, k, None], b[:, k, None, :], out=term)
        out += term
    return out


def orthonormal(stored: np.ndarray) -> np.ndarray:
    """The orthonormal matrices next to stored int16 rows (in 1/32767), float64 (classes, n, n).

    Four steps of Newton's iteration for the polar factor (Higham 1986), X ← 1.5 X - 0.5 X Xᵀ X.
    """
    matrices = stored.astype(np.float64) / 32767
    for _ in range(4):
        square = _product(matrices, matrices.transpose(0, 2, 1))
        matrices = 1.5 * matrices - 0.5 * _product(square, matrices)
    return matrices


def untrained() -> Basis:
    """The DCT alone, with plausible weights: where training starts."""
    means = np.zeros((3, 2, ZONES), np.int32)
    means[:] = np.maximum(1024 / (1 + ZIGZAG.sum(1)) ** 1.5, 1)
    weights = np.zeros(contexts.MAGNITUDES)
    weights[[0, 1]] = 0.15
    weights[[2, 3]] = 0.05
    weights[6:10] = 0.03
    weights[10:12] = 0.15
    weights[12:17] = 0.05
    weights[[19, 21]] = 0.1
    weights[contexts.CONSTANT] = 0.01
    zone = np.zeros(contexts.ZONE_FEATURES)
    zone[:2] = 0.2
    zone[2:4] = 0.05
    zone[6:8] = 0.15
    zone[8] = 0.05
    zone[15], zone[17], zone[contexts.ZONE_CONSTANT] = 0.03, 0.1, 0.01
    keys = ZONES + contexts.LARGE_SIGN_KEYS
    sign = np.zeros((contexts.PASSES, model.PLANES, keys, contexts.SIGNED), np.int32)
    for s in range(SIZES):
        sign[0, :, contexts.sign_key(0, 1, 0, s, 0), 8:10] = 2048
        sign[1:, :, contexts.sign_key(0, 1, 0, s, 0), 0] = 4096

    def fixed(x: np.ndarray, *shape: int) -> np.ndarray:
        return np.ascontiguousarray(
            np.broadcast_to(np.rint(x * 4096), (*shape, len(x))).astype(np.int32)
        )

    # Nothing is known of what blocks cost: the middle size wins.
    costs = np.zeros((2, SIZES, partition.TERMS), np.float32)
    costs[:, :, -1] = [3, 1, 100]
    return Basis(
        "untrained",
        "",
        np.zeros((0, 63, 63), np.int16),
        means,
        np.zeros((1, 63), np.int32),
        np.zeros(1, np.float32),
        costs,
        fixed(zone, contexts.PASSES, 3, contexts.SETS, ZONES),
        fixed(weights, contexts.PASSES, 3, contexts.SETS, model.GROUPS),
        sign,
        model.fresh_state(),
        restore.no_weights(),
    )


# --- the file --------------------------------------------------------------------------------
# A zip of plain arrays (NumPy's npz, read without pickle). What identifies a basis is the hash of
# its arrays, not of the file: another zlib may pack the same arrays into other bytes.

_ARRAYS = {
    "components": ("<i2", (-1, 63, 63)),
    "means": ("<u2", (2, 2, ZONES)),
    "levels": ("<i2", (0, 63)),
    "prices": ("<f4", (0,)),
    "size_costs": ("<f4", (2, SIZES, partition.TERMS)),
    "zone_weights": ("<i2", (contexts.PASSES, 3, contexts.SETS, ZONES, contexts.ZONE_FEATURES)),
    "weights": ("<i2", (contexts.PASSES, 3, contexts.SETS, model.GROUPS, contexts.MAGNITUDES)),
    "sign_weights": ("<i2", (contexts.PASSES, 3, contexts.LARGE_SIGN_KEYS, contexts.SIGNED)),
    "state_odds": ("<i1", (model.SLOTS,)),
    "state_counts": ("<u1", (model.SLOTS,)),
    "state_weights": ("<i2", (model.WEIGHTS,)),
    "restore_luma": ("<i2", (restore.CLASSES, restore.FEATURES)),
    "restore_chroma": ("<i2", (restore.CLASSES, restore.FEATURES)),
}
"""Name -> type and shape of every array in a basis file, for no classes; see `_shape`."""
MAX_FILE, MAX_UNPACKED = 8 << 20, 64 << 20


def _shape(name: str, classes: int) -> tuple[int, ...]:
    """Shape of an array in the file of a basis of so many classes."""
    shape = list(_ARRAYS[name][1])
    if name in ("components", "means", "levels", "prices"):
        shape[0] += classes
    elif name == "sign_weights":
        shape[2] += classes * ZONES
    return tuple(shape)


COUNTS = np.array([0, 2, 3, 4, 6, 8, 11, 15, 20])
"""Counts of slots that a file tells apart."""
SURE = 5
"""Slots with smaller counts say little: their odds are stored more coarsely."""


def pack_state(state: np.ndarray) -> dict[str, np.ndarray]:
    """A coder state as the arrays of a basis file: probabilities in 8 bits (log odds in
    sixteenths of the coder's unit, of which two or four are told apart), weights in 3.13 fixed
    point."""
    slots = state[: model.SLOTS]
    weights = state[model.SLOTS :]
    found = slots & 255
    counts = COUNTS[np.searchsorted((COUNTS[1:] + COUNTS[:-1]) / 2, found)]
    odds = (entropy.TABLES[entropy.STRETCH + (slots >> 18)] + 8) >> 4
    # Probabilities near 0 and 1 have fewer odds of their own: these are kept as they are, so that
    # what a file holds comes back to the same when it is packed again.
    unit = np.where(abs(odds) > 88, 1, np.where(counts < SURE, 4, 2))
    odds = np.where(counts == 0, 0, (odds + unit // 2) // unit * unit)
    return {
        "state_odds": np.clip(odds, -127, 127).astype("<i1"),
        "state_counts": counts.astype("<u1"),
        "state_weights": np.clip((weights + 4) >> 3, -32768, 32767).astype("<i2"),
    }


def unpack_state(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The coder's state, int32, from the arrays of a basis file."""
    odds = arrays["state_odds"].astype(np.int64) * 16
    counts = arrays["state_counts"].astype(np.int64)
    p = entropy.TABLES[entropy.SQUASH + odds].astype(np.int64) << (entropy.PROBABILITY_BITS - 16)
    p = np.where(counts == 0, 1 << (entropy.PROBABILITY_BITS - 1), p)
    weights = arrays["state_weights"].astype(np.int64) << 3
    return np.concatenate([(p << 8) | counts, weights]).astype(np.int32)


def _hash(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {VERSION}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_name(name: str) -> None:
    """LaffError for what cannot be a basis's name: archives have it, and look for it as a file."""
    if not is_plain(name):
        raise LaffError(
            f"the basis's name {name!r} is not a plain one: give up to 100 letters, digits and the "
            "like, no / or \\ or :, no dot in front"
        )


def save_basis(basis: Basis, path: str | Path) -> str:
    """Write a basis file and return the hash that identifies the basis. Raises LaffError for a name
    that archives could not have."""
    check_name(basis.name)
    arrays = {name: getattr(basis, name) for name in _ARRAYS if hasattr(basis, name)}
    arrays |= {f"restore_{name}": array for name, array in basis.restoration._asdict().items()}
    arrays = {name: array.astype(_ARRAYS[name][0]) for name, array in arrays.items()}
    arrays |= pack_state(basis.state)
    digest = _hash(arrays)
    header = json.dumps(
        {"format": FORMAT, "version": VERSION, "name": basis.name, "sha256": digest}
    )
    path = Path(path)
    with whole_file(path, below=path.parent) as file:
        np.savez_compressed(file, header=np.frombuffer(header.encode(), np.uint8), **arrays)
    return digest


def read_basis(path: str | Path) -> Basis:
    """Read and check a basis file. Raises LaffError."""
    try:
        if Path(path).stat().st_size > MAX_FILE:
            raise LaffError(f"{path}: too large for a basis file: give one that femto trained")
        with zipfile.ZipFile(path) as members:
            unpacked = sum(member.file_size for member in members.infolist())
        if unpacked > MAX_UNPACKED:
            raise LaffError(f"{path}: too large for a basis file: give one that femto trained")
        with np.load(path, allow_pickle=False) as npz:
            header = json.loads(npz["header"].tobytes())
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise LaffError(f"{path}: not a basis file: give one that femto trained")
            if header.get("version") != VERSION:
                raise LaffError(
                    f"{path}: version {header.get('version')!r} of the basis format is unknown "
                    f"here (this femto reads {VERSION}): use the femto that trained it"
                )
            arrays = {name: npz[name] for name in _ARRAYS}
    except FileNotFoundError:
        raise LaffError(f"{path}: no such basis file: check the name") from None
    except LaffError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise LaffError(f"{path}: not a whole basis file ({error}): copy it again") from None
    classes = arrays["prices"].size
    if not 1 <= classes <= model.CLASSES:
        raise LaffError(f"{path}: a basis of {classes} classes cannot be used: train it again")
    for name, (dtype, _) in _ARRAYS.items():
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].shape != _shape(name, classes):
            raise LaffError(f"{path}: the basis's {name} have the wrong shape: copy it again")
    if _hash(arrays) != header.get("sha256"):
        raise LaffError(f"{path}: the basis's checksum does not match: copy it again")
    as_int = {
        n: arrays[n].astype(np.int32)
        for n in ("means", "levels", "zone_weights", "weights", "sign_weights")
    }
    if not is_plain(header.get("name")):
        raise LaffError(f"{path}: the basis's name is not a plain one: train it again")
    return Basis(
        name=header["name"],
        sha256=header["sha256"],
        components=arrays["components"],
        prices=arrays["prices"],
        size_costs=arrays["size_costs"],
        state=unpack_state(arrays),
        restoration=restore.Table(arrays["restore_luma"], arrays["restore_chroma"]),
        **as_int,
    )


@functools.lru_cache(maxsize=4)
def load_basis(name: str = DEFAULT) -> Basis:
    """The basis of that name, if femto ships it, else the one in the file of that path.

    Raises LaffError if there is none or it is damaged.
    """
    if name == DEFAULT:
        resource = importlib.resources.files("femto") / "data" / f"{name}.basis"
        with importlib.resources.as_file(resource) as path:
            return read_basis(path)
    return read_basis(name)


def check_basis(path: AnyPath | None) -> None:
    """LaffError if there is a path, and no file there."""
    if path is not None and not Path(path).is_file():
        raise LaffError(f"{path}: no such basis file: check the name")


def basis_of(archive: Archive) -> Basis:
    """The basis that a parsed archive was made with, by name and (the beginning of its) hash.

    Looked for among the shipped ones, then in the archive's `basis_file`, then as NAME.basis and
    in a folder `basis` beside the archive. Raises LaffError, naming the one that is needed, if it
    is not found.
    """
    name, sha256 = archive.basis_name, archive.basis_sha256
    check_basis(archive.basis_file)

    def places() -> Iterator[str]:
        yield DEFAULT
        if archive.basis_file is not None:
            yield archive.basis_file
        folder = Path(archive.name).parent
        for path in (folder / f"{name}.basis", folder / "basis" / f"{name}.basis"):
            if path.is_file():
                yield str(path)

    for place in places() if sha256 else ():
        found = load_basis(place)
        if found.sha256.startswith(sha256):
            return found
    given = "" if archive.basis_file is None else f", which {archive.basis_file} is not"
    raise LaffError(
        f"{archive.name}: needs the basis {name!r} ({sha256[:12]}…){given}: give its file with "
        f"--basis, or put {name}.basis beside the archive or in a folder named basis there"
    )
