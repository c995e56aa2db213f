"""A decoder of .laff archives written from docs/SPEC.md alone: plain, complete and slow.

It shares no code with femto and needs only NumPy. Section numbers in comments are those of the
specification. Cells are counted from 8, so that the margin of 8 cells around a tile has the
numbers below and above.

    python3 reference_decoder.py NAME.laff.gz NAME.basis OUT.npy
"""

import base64
import gzip
import hashlib
import json
import math
import sys
import zlib
from collections import Counter
from fractions import Fraction

import numpy as np

VERSION = 2
HASH_DIGITS = 16
MARGIN = 8

# 4 the constants, and 7, 10 what the layers hold and the pixels that the restoration reads
LIMIT = 255
LEARNING = 20
GOLOMB = 30
UNARY = 20
THRESHOLD = [15, 8, 8]
MEAN_OFFSET = 5
SIGNED = 28
ABOVE1, ABOVE, BELOW = 0.55, 0.45, 1.5
CLIP = [0.25, 0.7, 2.0]
COHERENCE = [0.4, 0.7]
ACTIVITIES = 11
LAYERS = {
    4: [(3, 1), (3, 3), (3, 10), (3, 64), (2, 6), (2, 15), (2, 28), (2, 64), (1, 15), (1, 28),
        (1, 64), (0, 21), (0, 64)],
    1: [(0, 1), (0, 3), (0, 6), (0, 10), (0, 21), (0, 64)],
}  # fmt: skip
# 14 the residual
CHANNELS = {1: [0], 3: [1, 0, 2]}
OWN = [(-1, -1), (-1, 1), (0, -2), (-2, 0), (-2, 1), (-1, -2), (-1, 2), (-2, -1), (0, -3), (-3, 0),
       (-2, 2), (-2, -2), (-1, 3), (-1, -3), (-3, 1), (-3, -1), (0, -4), (-4, 0)]  # fmt: skip
OTHER = [(0, 0), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -2), (-1, 2), (-2, -1),
         (-2, 1)]  # fmt: skip
INVERSE = [(17039, -1586, -308), (-1586, 14734, -605), (-308, -605, 17729)]
USUAL = [(9235, 10690, 8300), (11222, -432, -11930)]
FORGET, FLOOR = 11, 6000
NEIGHBOURS = [18, 8, 6]
TRUST = [4, 3, 3]
RESIDUAL_LEARNING = 170
START = 11000
RESTORED = {4: [0, 3, 3, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0], 1: [0] * 7}
PERCEPTUAL = [
    96, 73, 73, 61, 67, 61, 53, 58, 58, 53, 47, 52, 54, 52, 47, 42, 46, 49, 49, 46, 42, 37, 41, 44,
    45, 44, 41, 37, 32, 36, 40, 42, 42, 40, 36, 32, 32, 35, 38, 38, 38, 35, 32, 31, 33, 35, 35, 33,
    31, 29, 31, 32, 31, 29, 27, 28, 28, 27, 25, 25, 25, 22, 22, 19,
]  # fmt: skip
DECISION_KIND = [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7]
LATER_KIND = {2: 9, 1: 9, 0: 8}
TAPS = [(0, 1), (0, 2), (0, 3), (1, -2), (1, -1), (1, 0), (1, 1), (1, 2), (2, -1), (2, 0), (2, 1),
        (3, 0)]  # fmt: skip

# --- 1 container -----------------------------------------------------------------------------


def read_archive(data: bytes) -> dict:
    """Parse an archive and check it; passes, tune and metadata are always there in the result,
    blocks and strings are bytes."""
    top = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    if top["format"] != "laff" or top["version"] != VERSION:
        raise ValueError(f"not an archive of version {VERSION}")
    image, basis = top["image"], top["basis"]
    head = {key: top[key] for key in ("format", "version", "step", "tile")}
    head["image"] = {key: image[key] for key in ("width", "height", "mode", "bits")}
    head["basis"] = {"name": basis["name"], "sha256": basis["sha256"][:HASH_DIGITS]}
    for part, whole, key in (
        (head["image"], image, "source"),
        (head["image"], image, "icc"),
        (head, top, "metadata"),
    ):
        if whole.get(key) is not None:
            part[key] = whole[key]
    all_levels = [0, 2 ** image["bits"] - 1]
    levels = image.get("levels") or all_levels
    image["levels"], image["limits"] = levels, image.get("limits") or levels
    if levels != all_levels:
        head["image"]["levels"] = levels
    if image["limits"] != levels:
        head["image"]["limits"] = image["limits"]
    if image.get("mapping") is not None:
        head["image"]["mapping"] = image["mapping"]
    for key, usual in (("passes", 4), ("tune", "psnr")):
        if top.setdefault(key, usual) != usual:
            head[key] = top[key]
    if top.get("max_error") is not None:
        head["max_error"] = top["max_error"]
        if not 0 <= top["max_error"] <= 65535:
            raise ValueError("the largest error is outside of the limits")
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if zlib.crc32(text) != top["crc"]:
        raise ValueError("the header's checksum is wrong")
    width, height = image["width"], image["height"]
    if not (1 <= width <= 1 << 20 and 1 <= height <= 1 << 20 and width * height <= 1 << 36):
        raise ValueError("the size is outside of the limits")
    if image["mode"] not in ("L", "RGB") or not 1 <= image["bits"] <= 16:
        raise ValueError("the mode or the depth is unknown")
    (low, high), (least, most) = levels, image["limits"]
    if not (0 <= least <= low < high <= most <= all_levels[1]):
        raise ValueError("the levels or the limits are impossible")
    finest = 0.05 * max(min(1, (high - low) / 255), (most - least) / 65535)
    if not 16 <= top["tile"] <= 2048 or not 0.999 * finest <= top["step"] <= 1e6:
        raise ValueError("the tile or the step is outside of the limits")
    if top["passes"] not in LAYERS or top["tune"] not in ("psnr", "perceptual"):
        raise ValueError("the passes or the tune are unknown")
    if len(top["strings"]) > len(LAYERS[top["passes"]]) + (top.get("max_error") is not None):
        raise ValueError("too many layers")

    top["metadata"] = {} if top.get("metadata") is None else unpack_metadata(top["metadata"])

    def unseal(sealed, layer, tile):
        data = base64.b64decode(sealed, validate=True)
        crc = zlib.crc32(text + f"{layer},{tile}".encode() + data[:-4])
        if crc != int.from_bytes(data[-4:], "big"):
            raise ValueError(f"the checksum of string {layer},{tile} is wrong")
        return data[:-4]

    top["blocks"] = [unseal(s, -1, t) for t, s in enumerate(top["blocks"])]
    top["strings"] = [
        [unseal(s, layer, t) for t, s in enumerate(strings)]
        for layer, strings in enumerate(top["strings"])
    ]
    return top


def unpack_metadata(packed: str) -> dict:
    """What is known of the picture: JSON values and bytes."""
    inflate = zlib.decompressobj(-15)
    data = inflate.decompress(base64.b64decode(packed, validate=True), 1 << 24)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("the metadata are damaged or too long")
    line, _, data = data.partition(b"\n")
    values, lengths = json.loads(line)
    if sum(lengths.values()) != len(data):
        raise ValueError("the metadata are damaged")
    for key, length in lengths.items():
        values[key], data = data[:length], data[length:]
    return values


# --- 11 the basis file -----------------------------------------------------------------------


class Basis:
    """The arrays of a basis file that a decoder needs."""

    def __init__(self, path):
        with np.load(path, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != "laff-basis" or header["version"] != VERSION:
            raise ValueError(f"not a basis file of version {VERSION}")
        digest = hashlib.sha256(b"laff-basis %d" % VERSION)
        for name in sorted(arrays):
            array = arrays[name]
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
        self.sha256 = digest.hexdigest()
        if self.sha256 != header["sha256"]:
            raise ValueError("the basis's hash is wrong")
        self.components = arrays["components"]
        self.classes = len(self.components) + 1
        for name in ("means", "zone_weights", "weights", "sign_weights"):
            setattr(self, name, arrays[name].tolist())
        self.restoration = arrays["restore_luma"] / 4096, arrays["restore_chroma"] / 4096
        counts = arrays["state_counts"].astype(int)
        odds = np.array(list(SQUASH.values()))[16 * arrays["state_odds"].astype(int) + 2048]
        self.slots = np.where(counts == 0, 1 << 21, odds << 6).tolist()
        self.counts = counts.tolist()
        self.mixers = (8 * arrays["state_weights"].astype(int)).tolist()
        if [len(self.slots), len(self.mixers)] != [SLOTS.total, WEIGHTS.total]:
            raise ValueError("the basis has another state")
        self.edges, self.rotations = self._edges(), self._rotations()

    def _edges(self):
        """8: border samples of every component of small blocks, [class][zone][side][e]."""
        stored = np.zeros((self.classes, 64, 64), np.int64)
        stored[:] = 32767 * np.eye(64, dtype=np.int64)
        stored[1:, 1:, 1:] = self.components
        line = np.zeros((64, 4, 8), np.int64)
        c = np.array(COSINE[0])
        for z, (a, b) in enumerate(ZIGZAG):
            line[z] = c[a] * c[b][0], c[a] * c[b][7], c[b] * c[a][0], c[b] * c[a][7]
        return ((np.einsum("ckz,zse->ckse", stored, line) + (1 << 24)) >> 25).tolist()

    def _rotations(self):
        """10: the orthonormal matrix of every trained class, [class - 1][component][score]."""
        x = self.components / 32767
        for _ in range(4):
            x = 1.5 * x - 0.5 * (x @ x.transpose(0, 2, 1) @ x)
        return x


# --- 3, 4 zones and tables -------------------------------------------------------------------

ZIGZAG = sorted(
    ((a, b) for a in range(8) for b in range(8)),
    key=lambda ab: (sum(ab), ab[0] if sum(ab) % 2 else ab[1]),
)
ZONE_OF = {ab: z for z, ab in enumerate(ZIGZAG)}
LEVEL_ENDS = [2, 4, 7, 11, 17, 26, 38, 54, 75, 102, 135, 175, 225, 290, 370, 480, 640, 880, 1250,
              1850, 2900, 4800, 8500]  # fmt: skip
UP, BACK, DOWN, ON = (-1, 0), (0, -1), (1, 0), (0, 1)
SUM_ENDS = [5, 14, 30, 46, 62, 78, 94, 126, 158, 206, 270, 366, 510, 766, 1278]


def clamp(x, low, high):
    return min(max(x, low), high)


def wrap(x):
    """What is left of x in 32 bits of two's complement."""
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def level(x):
    return sum(end <= x for end in LEVEL_ENDS)


def sums(x):
    return sum(end <= x for end in SUM_ENDS)


def band(z):
    return sum(ZIGZAG[z]) >> 1


def group(s, z, sub):
    return z - 1 if z > 0 else 63 + (0, 1, 5)[s] + sub


def sg(x):
    return (x > 0) - (x < 0) + 1


def dct(n):
    """Orthonormal DCT, [frequency][sample]."""
    k, x = np.arange(n)[:, None], np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (2 * x + 1) * k / (2 * n))
    matrix[0] /= np.sqrt(2)
    return matrix


STRETCH = [clamp(round(256 * math.log((i + 0.5) / (4095.5 - i))), -2047, 2047) for i in range(4096)]
SQUASH = {i: round(65536 / (1 + math.exp(-i / 256))) for i in range(-2048, 2049)}
CONFIDENCE = [round(256 * (i + 0.3) / (i + 1.5)) for i in range(256)]
RATE = [math.floor(65536 / (i + 1.6)) for i in range(256)]
COSINE = [np.rint(1024 * dct(8 << s)).astype(int).tolist() for s in range(3)]

# --- 9 the state -----------------------------------------------------------------------------

SLOT_ARRAYS = {
    "context0": (84, 16, 3, 10),
    "context1": (84, 16, 3, 10),
    "context2": (16, 16, 8, 8, 3, 10),
    "context3": (84, 24, 3, 10),
    "context4": (3, 8, 16, 12, 3, 10),
    "context5": (16, 8, 8, 8, 3, 10),
    "context6": (84, 12, 12, 3, 10),
    "context7": (3, 3, 3, 3, 3, 3, 8, 3, 10),
    "sign0": (3, 84, 24),
    "sign1": (3, 24, 3, 3, 3),
    "sign2": (3, 84, 3, 3),
    "sign3": (3, 84, 3, 3),
    "sign4": (3, 84, 3, 3, 3),
    "sign5": (3, 24, 3, 3, 3),
    "flag": (2, 3, 64, 5, 4),
    "golomb": (2, 64),
    "mean": (3, 3, 48),
    "digit": (2, 3, 84, 8),
    "class0": (32, 33),
    "class1": (32, 33),
    "class2": (32, 33),
    "split0": (2, 2, 4, 4, 4, 4),
    "split1": (2, 2, 4, 4, 4, 4),
    "split2": (2, 2, 4, 4, 4, 4),
}
WEIGHT_ARRAYS = {
    "level": (3, 10, 24, 9),
    "group": (3, 10, 84, 9),
    "sign_level": (3, 24, 7),
    "sign_group": (3, 84, 7),
    "class": (2, 32, 4),
    "split": (2, 2, 4),
}


class Places:
    """Where the entries of arrays lie that follow each other in C order."""

    def __init__(self, arrays):
        self.shapes, self.begin, self.total = arrays, {}, 0
        for name, shape in arrays.items():
            self.begin[name] = self.total
            self.total += math.prod(shape)

    def __call__(self, name, *indices):
        """Place of the entry (or of the first entry of the row) of that name and index."""
        shape, at = self.shapes[name], 0
        for index, n in zip(indices, shape, strict=False):
            assert 0 <= index < n, (name, indices)
            at = at * n + index
        for n in shape[len(indices) :]:
            at *= n
        return self.begin[name] + at


SLOTS, WEIGHTS = Places(SLOT_ARRAYS), Places(WEIGHT_ARRAYS)

# --- 5 the coder -----------------------------------------------------------------------------


class Coder:
    """The range decoder of the current string and the adaptive state of a tile."""

    def __init__(self, basis):
        self.p, self.count = list(basis.slots), list(basis.counts)
        self.weights = list(basis.mixers)

    def start(self, string):
        self.string, self.position = string, 0
        self.low, self.high, self.code = 0, 0xFFFFFFFF, 0
        for _ in range(4):
            self.code = self.code << 8 | self._byte()

    def _byte(self):
        at, self.position = self.position, self.position + 1
        return self.string[at] if at < len(self.string) else 0

    def bit(self, probability):
        middle = self.low + ((self.high - self.low) * probability >> 16)
        bit = 1 if self.code <= middle else 0
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = (self.high << 8 & 0xFFFFFFFF) | 255
            self.code = (self.code << 8 & 0xFFFFFFFF) | self._byte()
        return bit

    def plain(self, n=1):
        """A number of n plain bits."""
        value = 0
        for _ in range(n):
            value = 2 * value + self.bit(32768)
        return value

    def _update(self, slot, bit, limit):
        count = self.count[slot]
        self.p[slot] += ((4194303 if bit else 0) - self.p[slot]) * RATE[count] >> 16
        if count < limit:
            self.count[slot] = count + 1

    def direct(self, slot, limit=LIMIT):
        bit = self.bit(clamp(self.p[slot] >> 6, 4, 65532))
        self._update(slot, bit, limit)
        return bit

    def mixed(self, slots, first, second):
        """A mixed bit; `first` and `second`: (name, index…) of the weights."""
        weights = self.weights
        x = [STRETCH[self.p[i] >> 10] * CONFIDENCE[self.count[i]] >> 8 for i in slots] + [256]
        a, b = WEIGHTS(*first), WEIGHTS(*second)
        dot_a = clamp(sum(x[i] * weights[a + i] for i in range(len(x))) >> 16, -2047, 2047)
        dot_b = clamp(sum(x[i] * weights[b + i] for i in range(len(x))) >> 16, -2047, 2047)
        bit = self.bit(SQUASH[(dot_a + dot_b) >> 1])
        for at, dot in ((a, dot_a), (b, dot_b)):
            error = ((bit << 16) - SQUASH[dot]) * LEARNING
            for i in range(len(x)):
                weights[at + i] += (x[i] * error + (1 << 23)) >> 24
        for slot in slots:
            self._update(slot, bit, LIMIT)
        return bit

    def golomb(self, row):
        at, n = SLOTS("golomb", row), 0
        while n < GOLOMB and self.direct(at + n, GOLOMB):
            n += 1
        if n == 0:
            return 0
        f = self.direct(at + 32 + n, GOLOMB)
        for _ in range(n - 1):
            f = 2 * f + self.plain()
        return (1 << n) + f - 1


# --- 3, 6, 7, 8 a tile -----------------------------------------------------------------------


def zeros(*shape, value=0):
    """Nested lists."""
    if len(shape) == 1:
        return [value] * shape[0]
    return [zeros(*shape[1:], value=value) for _ in range(shape[0])]


class Tile:
    """The integers of one tile, after `layers` layers; `events` counts what the strings held."""

    def __init__(self, height, width, planes, basis, block_string, passes=4):
        self.passes = passes
        self.height, self.width, self.planes, self.basis = height, width, planes, basis
        self.rows, self.columns = -(-height // 8), -(-width // 8)
        self.last_row, self.last_column = MARGIN + self.rows, MARGIN + self.columns
        h, w = -(-height // 32) * 4 + 2 * MARGIN, -(-width // 32) * 4 + 2 * MARGIN
        self.V = zeros(planes, 64, h, w)
        self.M = zeros(planes, 64, h, w)
        self.S = zeros(planes, 64, h, w)
        self.E = zeros(planes, h, w)
        self.D = zeros(planes, h, w)
        self.size = zeros(2, h, w, value=3)
        self.classes = zeros(h, w)
        self.total = zeros(planes, h, w)
        self.silence = zeros(planes, h, w)
        self.left, self.right = zeros(planes, w, 8 * h), zeros(planes, w, 8 * h)
        self.top, self.bottom = zeros(planes, h, 8 * w), zeros(planes, h, 8 * w)
        self.layers = 0
        self.events = Counter()

        self.coder = Coder(basis)
        self.colour = b""
        if planes == 3:
            self.colour = block_string[:6].ljust(6, b"\0")
            block_string = block_string[6:]
        self.coder.start(block_string)
        self.read_blocks()
        self.blocks = [self.list_blocks(kind) for kind in range(2)]

    def read_layer(self, string):
        """Read the next layer."""
        number, self.layers = self.layers, self.layers + 1
        layers = LAYERS[self.passes]
        self.level, last = layers[number]
        first = 0
        if number > 0 and layers[number - 1][0] == self.level:
            first = layers[number - 1][1]
        elif number > 0:
            self.double()
        self.later = int(self.level < self.passes - 1)
        self.rho = 0 if not self.later else 2 if self.level == 0 else 1
        self.coder.start(string)
        for z in range(first, last):
            for p in range(self.planes):
                if z < self.used[self.level][p]:
                    for block in self.blocks[min(p, 1)]:
                        self.read_zone(p, z, *block)

    def double(self):
        """7: count in steps of half the size."""

        def doubled(x, most):
            if isinstance(x, list):
                return [doubled(y, most) for y in x]
            return wrap(min(2 * x, most))

        for name in ("V", "D", "E", "left", "right", "top", "bottom"):
            setattr(self, name, doubled(getattr(self, name), 1 << 30))
        self.M, self.S = doubled(self.M, 255), doubled(self.S, 65535)
        self.total, self.silence = doubled(self.total, 1 << 26), doubled(self.silence, 0)

    def inside(self, y, x):
        return y < self.last_row and x < self.last_column

    def superblocks(self):
        for y in range(MARGIN, self.last_row, 4):
            for x in range(MARGIN, self.last_column, 4):
                yield y, x

    # 6 the block string

    def read_blocks(self):
        self.used = [
            [min(self.coder.plain(7), 64) for _ in range(self.planes)] for _ in range(self.passes)
        ]
        for kind in range(min(self.planes, 2)):
            size = self.size[kind]
            for y0, x0 in self.superblocks():
                whole = self.read_split(
                    0,
                    kind,
                    left=size[y0][x0 - 1],
                    left2=size[y0 + 2][x0 - 1],
                    top=size[y0 - 1][x0],
                    other=size[y0 - 1][x0 + 2],
                    luma=self.size[0][y0][x0] if kind else 3,
                )
                for y, x in ((y0, x0), (y0, x0 + 2), (y0 + 2, x0), (y0 + 2, x0 + 2)):
                    if not self.inside(y, x):
                        continue
                    s = 2
                    if not whole:
                        s = self.read_split(
                            1,
                            kind,
                            left=size[y][x - 1],
                            left2=size[y + 1][x - 1],
                            top=size[y - 1][x],
                            other=size[y - 1][x - 1],
                            luma=self.size[0][y][x] if kind else 3,
                        )
                    size[y][x] = size[y][x + 1] = size[y + 1][x] = size[y + 1][x + 1] = s
        if self.basis.classes > 1:
            for y in range(MARGIN, self.last_row):
                for x in range(MARGIN, self.last_column):
                    if self.size[0][y][x] == 0:
                        self.classes[y][x] = self.read_class(y, x)
            last = self.basis.classes - 1
            self.classes = [[min(c, last) for c in row] for row in self.classes]

    def read_split(self, h, kind, *, left, left2, top, other, luma):
        slots = [
            SLOTS("split0", h, kind, 0, left, top, luma),
            SLOTS("split1", h, kind, 0, *((left2, other) if h == 0 else (top, other)), luma),
            SLOTS("split2", h, kind, left, left2, top, other),
        ]
        row = ("split", h, kind)
        return self.coder.mixed(slots, row, row)

    def read_class(self, y, x):
        left, top = self.classes[y][x - 1], self.classes[y - 1][x]
        corner = self.classes[y - 1][x + 1]
        bits = (self.basis.classes - 1).bit_length()
        node = 1
        for _ in range(bits):
            slots = [
                SLOTS("class0", node, left),
                SLOTS("class1", node, top),
                SLOTS("class2", node, corner),
            ]
            row = ("class", int(left == top), node)
            node = 2 * node + self.coder.mixed(slots, row, row)
        return node - (1 << bits)

    # 3 coding order

    def list_blocks(self, kind):
        """(Y, X, s, before) of every block in coding order."""
        blocks = []
        for y0, x0 in self.superblocks():
            for quarter in range(4):
                for inner in range(4):
                    y = y0 + 2 * (quarter >> 1) + (inner >> 1)
                    x = x0 + 2 * (quarter & 1) + (inner & 1)
                    s = self.size[kind][y][x]
                    first = s == 0 or (s == 1 and inner == 0) or (s == 2 and quarter + inner == 0)
                    if not first or not self.inside(y, x):
                        continue
                    after = (s == 1 and quarter == 3) or (
                        s == 0 and (inner == 3 or (inner == 1 and quarter == 3))
                    )
                    blocks.append((y, x, s, not after))
        return blocks

    # 7 the layer strings

    def read_zone(self, p, z, Y, X, s, before):
        basis = self.basis
        r, h, kind = 1 << s, (1 << s) >> 1, min(p, 1)
        before = before or self.later
        c = self.classes[Y][X] if p == 0 and s == 0 else 0
        w = 3 if c > 0 else s
        means = basis.means[c if s == 0 else basis.classes - 1 + s][kind]
        self.mean = means[z]
        self.seen = sum(means[1 if s == 0 else 0 : 64 if self.later else z])
        E = self.E[p]
        self.near_energy = E[Y + h][X - 1] + E[Y - 1][X + h] + E[Y + h][X + r] + E[Y + r][X + h]
        around = sums(self.near_energy >> 2)
        quiet = min(self.silence[p][Y][X], 7)
        half = 32 if self.level > 0 else 0
        cells = [(i, j) for i in range(r) for j in range(r)]
        known = sum(abs(self.V[p][z][Y + i][X + j]) for i, j in cells if z + i + j > 0)

        flagged = False
        if z > 0 and known == 0:
            g = self.zone_features(p, z, Y, X, s, before)
            expected = self.product(g, basis.zone_weights[self.rho][p][w][z]) << 2 * s >> 8
            flagged = expected < THRESHOLD[self.rho]
            if flagged:
                self.event("flag")
                here = (self.later, p, z, level(expected), min(around >> 2, 3))
                if not self.coder.direct(SLOTS("flag", *here)):
                    self.event("empty zone")
                    self.silence[p][Y][X] += 1
                    return

        in_zone = 0
        for sub, (i, j) in enumerate(cells):
            y, x = Y + i, X + j
            dc = z == 0 and sub == 0
            q = group(s, z, sub)
            u, v = ZIGZAG[z][0] * r + i, ZIGZAG[z][1] * r + j
            key = {
                0: 64 * c + z,
                1: 64 * basis.classes + 4 * z + sub,
                2: 64 * basis.classes + 4 * SIGNED + 16 * z + sub,
            }[s]
            has_key = s == 0 or z < SIGNED
            old = self.V[p][z][y][x]

            if not dc and old != 0:
                size = self.read_digit(p, q, abs(old) >> 1)
                value = size if old > 0 else -size
                self.M[p][z][y][x] = min(size, 255)
            else:
                f, prediction = None, 0
                if has_key:
                    f = self.signed_features(p, z, Y, X, s, c, before, i, j)
                    prediction = self.product(f, basis.sign_weights[self.rho][p][key]) >> 12
                if dc and self.later:
                    self.event("mean digit")
                    ahead = prediction - 64 * (old + 1)
                    place = clamp((ahead + 192) >> 3, 0, 47)
                    size = 0
                    value = old + self.coder.direct(SLOTS("mean", p, s, place))
                else:
                    g = self.magnitude_features(p, z, Y, X, s, before, i, j)
                    g[26] = 0 if dc else min(abs(prediction), 1 << 20) >> 2
                    is_one = flagged and sub == r * r - 1 and in_zone == 0
                    size = self.read_magnitude(
                        p, z, s, w, q, dc, g, prediction, around, quiet, is_one
                    )
                    value = size
                    if size > 0 and self.read_sign(p, q, f, prediction, dc, size, Y, X, s, u, v):
                        value = -size
                    self.M[p][z][y][x] = min(size, 255)
                    if dc:
                        value += (prediction + 32 - half) >> 6

            if dc:
                middle = (value << 6) + half
                for yy in range(Y, Y + r):
                    for xx in range(X, X + r):
                        self.D[p][yy][xx] = wrap(middle >> s)
            else:
                in_zone += size
            self.V[p][z][y][x] = wrap(value)
            if value != old and has_key:
                self.draw_lines(value - old, p, z, Y, X, s, c, u, v)

        if z > 0:
            self.silence[p][Y][X] = 0 if in_zone > 0 else self.silence[p][Y][X] + 1
        if in_zone != known:
            grown = self.total[p][Y][X] + min(in_zone, 1 << 20) - min(known, 1 << 20)
            self.total[p][Y][X] = total = clamp(grown, 0, 1 << 26)
            for i, j in cells:
                self.S[p][z][Y + i][X + j] = min((in_zone << 4) >> 2 * s, 65535)
                self.E[p][Y + i][X + j] = (total << 4) >> 2 * s

    def event(self, name):
        self.events[name, self.level, self.passes] += 1

    @staticmethod
    def product(features, weights):
        return sum(a * b for a, b in zip(features, weights, strict=True))

    def read_digit(self, p, q, k):
        """The magnitude of a score that was k, not 0, after the pass before."""
        if self.level == 0 and k == 1:
            self.event("digit without a bit")
            return 2
        self.event("digit")
        bit = self.coder.direct(SLOTS("digit", min(self.level, 1), p, q, min(k, 8) - 1))
        return 2 * k + bit - (self.level == 0)

    def read_magnitude(self, p, z, s, w, q, dc, g, prediction, around, quiet, is_one):
        m = level(self.product(g, self.basis.weights[self.rho][p][w][q]) >> 8)
        sure = level(2 * min(abs(prediction), 1 << 20))
        own = sums(2 * (g[10] + g[11] + g[30]) + sum(g[12:17]) + g[33])
        beside = sums(2 * (g[0] + g[1] + g[28] + g[29]) + g[2] + g[3])
        beyond = sums(g[6] + g[7] + g[8] + g[9] + g[17] + g[18])
        if p == 0:
            other = sums(2 * (g[4] + g[5]) + g[2] + g[3])
        else:
            other = sums(4 * g[19] + g[20] + 6 * g[21] + g[22])
        shape = level(16 * g[24])
        across = g[21] if p == 2 else g[19]
        near = [
            min((g[0] + g[28] + 7) >> 4, 2),
            min((g[1] + g[29] + 7) >> 4, 2),
            min((g[10] + (g[30] >> 1)) >> 4, 2),
            min((g[11] + (g[30] >> 1)) >> 4, 2),
            min((across + 7) >> 4, 2),
        ]
        n = 0
        if is_one:
            self.event("known one")
            n = 1
        while n < (1 if self.later else UNARY):
            t = LATER_KIND[self.level] if self.later else DECISION_KIND[n]
            slots = [
                SLOTS("context0", q, beside, p, t),
                SLOTS("context1", q, own, p, t),
                SLOTS("context2", own, beside, beyond >> 1, band(z), p, t),
                SLOTS("context3", q, m, p, t),
                SLOTS("context4", s, band(z), other, m >> 1, p, t),
                SLOTS("context5", around, quiet, band(z), m // 3, p, t),
                SLOTS("context6", q, sure >> 1, shape >> 1, p, t),
                SLOTS("context7", s, *near, band(z), p, t),
            ]
            if not self.coder.mixed(slots, ("level", p, t, m), ("group", p, t, q)):
                return n
            n += 1
        if self.later:
            return n
        self.event("golomb of a mean" if dc else "golomb")
        return n + self.coder.golomb(int(dc))

    def read_sign(self, p, q, f, prediction, dc, size, Y, X, s, u, v):
        def V(du, dv):
            return self.score(self.V, p, Y, X, s, u + du, v + dv)

        if f is None:
            self.event("plain sign")
            return self.coder.plain()
        self.event("predicted sign")
        sure = level(2 * min(abs(prediction), 1 << 20))
        sigma = 0 if dc else 12 + (sure >> 1) if prediction > 0 else 11 - (sure >> 1)
        big = min(size, 3) - 1
        slots = [
            SLOTS("sign0", p, q, sigma),
            SLOTS("sign1", p, sigma, sg(f[12]), sg(f[13]), big),
            SLOTS("sign2", p, q, sg(f[8] + f[14]), sg(f[9] + f[15])),
            SLOTS("sign3", p, q, sg(f[12]), sg(f[13])),
            SLOTS("sign4", p, q, sg(V(-1, 0)), sg(V(0, -1)), sg(f[8])),
            SLOTS("sign5", p, sigma, sg(V(-2, 0)), sg(V(0, -2)), big),
        ]
        first, second = ("sign_level", p, sure), ("sign_group", p, q)
        return self.coder.mixed(slots, first, second)

    # 8 features

    @staticmethod
    def score(array, p, Y, X, s, u, v):
        """Entry of a neighbour in frequency, (u, v), of the block at (Y, X)."""
        r = 1 << s
        if not (0 <= u < 8 * r and 0 <= v < 8 * r) or (u == 0 and v == 0):
            return 0
        return array[p][ZONE_OF[u >> s, v >> s]][Y + (u & (r - 1))][X + (v & (r - 1))]

    def zone_level(self, p, z, y, x, *shifts):
        """S of the zone z, or the sum over those (da, db) away from it."""
        if not shifts:
            return self.S[p][z][y][x]
        a, b = ZIGZAG[z]
        there = [ZONE_OF.get((a + da, b + db)) for da, db in shifts]
        return sum(self.S[p][zone][y][x] for zone in there if zone is not None)

    def shape_feature(self, p, Y, X):
        return min(self.E[p][Y][X] * self.mean // (self.seen + 16), 65535)

    def zone_features(self, p, z, Y, X, s, before):
        def S(y, x, *shift):
            return self.zone_level(p, z, y, x, *shift)

        r, h = 1 << s, (1 << s) >> 1
        l, t, e, b = (Y + h, X - 1), (Y - 1, X + h), (Y + h, X + r), (Y + r, X + h)  # noqa: E741
        g = [0] * 26
        g[0] = S(*l)
        g[1] = S(*t)
        g[2] = S(Y - 1, X - 1)
        g[3] = S(Y - 1, X + r) if before else S(*t)
        g[4] = S(Y + h, X - 1 - r)
        g[5] = S(Y - 1 - r, X + h)
        g[6] = S(Y, X, UP)
        g[7] = S(Y, X, BACK)
        g[8] = S(Y, X, (-1, -1))
        g[9] = S(Y, X, (-2, 0), (0, -2))
        g[10] = S(Y, X, (-1, 1), (1, -1))
        g[11] = S(*l, UP, BACK, DOWN, ON)
        g[12] = S(*t, UP, BACK, DOWN, ON)
        g[13] = S(*e, UP, BACK, (-1, -1))
        g[14] = S(*b, UP, BACK, (-1, -1))
        if p > 0:
            far = r - 1
            g[15] = self.zone_level(0, z, Y, X) + self.zone_level(0, z, Y, X + far)
            g[15] += self.zone_level(0, z, Y + h, X + h) + self.zone_level(0, z, Y + far, X + far)
            g[16] = self.zone_level(0, z, Y + h, X + h, UP, BACK, DOWN, ON)
        if p == 2:
            g[17] = self.zone_level(1, z, Y, X)
            g[18] = self.zone_level(1, z, Y, X, UP, BACK, DOWN, ON)
        g[19] = self.shape_feature(p, Y, X)
        g[20] = 16
        g[21] = min(self.near_energy * self.mean // (4 * self.seen + 64), 65535)
        g[22] = S(*e)
        g[23] = S(*b)
        g[24] = S(Y, X, DOWN, ON)
        g[25] = S(Y + r, X - 1) + S(Y + r, X + r)
        return g

    def magnitude_features(self, p, z, Y, X, s, before, i, j):
        r = 1 << s
        u, v = ZIGZAG[z][0] * r + i, ZIGZAG[z][1] * r + j
        y, x = Y + i, X + j
        size = self.size[min(p, 1)]

        def S(y, x, *shift):
            return self.zone_level(p, z, y, x, *shift)

        def mu(dy, dx, *shifts, plane=p):
            corner = Y + r * dy, X + r * dx
            if not shifts:
                return 16 * self.M[plane][z][corner[0] + i][corner[1] + j]
            return 16 * sum(
                self.score(self.M, plane, *corner, s, u + du, v + dv) for du, dv in shifts
            )

        l, t, e, b = (Y + i, X - 1), (Y - 1, X + j), (Y + i, X + r), (Y + r, X + j)  # noqa: E741
        g = [0] * 34
        if size[l[0]][l[1]] == s:
            g[0], g[6], g[7] = mu(0, -1), mu(0, -1, UP, DOWN), mu(0, -1, BACK, ON)
        else:
            g[0], g[6], g[7] = S(*l), S(*l, UP, DOWN), S(*l, BACK, ON)
        if size[t[0]][t[1]] == s:
            g[1], g[8], g[9] = mu(-1, 0), mu(-1, 0, UP, DOWN), mu(-1, 0, BACK, ON)
        else:
            g[1], g[8], g[9] = S(*t), S(*t, UP, DOWN), S(*t, BACK, ON)
        g[2] = mu(-1, -1) if size[Y - 1][X - 1] == s else S(Y - 1, X - 1)
        if not before:
            g[3] = g[1]
        else:
            g[3] = mu(-1, 1) if size[Y - 1][X + r] == s else S(Y - 1, X + r)
        g[4] = S(Y + i, X - 1 - r)
        g[5] = S(Y - 1 - r, X + j)
        shifts = [UP, BACK, (-1, -1), (-2, 0), (0, -2), (-1, 1), (1, -1)]
        g[10:17] = [mu(0, 0, shift) for shift in shifts]
        if size[e[0]][e[1]] == s:
            g[17] = mu(0, 1, UP, BACK)
        else:
            g[17] = S(*e, UP, BACK)
        if size[b[0]][b[1]] == s:
            g[18] = mu(1, 0, UP, BACK)
        else:
            g[18] = S(*b, UP, BACK)
        if p > 0:
            if self.size[0][Y][X] == s:
                g[19] = mu(0, 0, plane=0)
                g[20] = mu(0, 0, UP, BACK, DOWN, ON, plane=0)
            else:
                g[19] = self.zone_level(0, z, y, x)
                g[20] = self.zone_level(0, z, y, x, UP, BACK, DOWN, ON)
        if p == 2:
            g[21] = mu(0, 0, plane=1)
            g[22] = mu(0, 0, UP, BACK, DOWN, ON, plane=1)
        g[23] = 16
        g[24] = self.shape_feature(p, Y, X)
        g[25] = S(*l) + S(*t)
        g[27] = S(Y, X, UP, BACK)
        if self.later:
            g[28] = mu(0, 1) if size[e[0]][e[1]] == s else S(*e)
            g[29] = mu(1, 0) if size[b[0]][b[1]] == s else S(*b)
            g[30] = mu(0, 0, DOWN, ON)
            g[31] = S(Y + r, X - 1) + S(Y + r, X + r)
            g[32] = S(Y, X, DOWN, ON)
            g[33] = S(Y, X)
        return g

    def signed_features(self, p, z, Y, X, s, c, before, i, j):
        r = 1 << s
        n = 8 * r
        y, x = Y + i, X + j
        f = [0] * 16
        if z == 0 and i == 0 and j == 0:
            D, h = self.D[p], r >> 1
            f[0] = D[Y][X] << s
            f[8] = D[Y + h][X - 1] << s
            f[9] = D[Y - 1][X + h] << s
            f[10] = D[Y - 1][X - 1] << s
            f[11] = D[Y - 1][X + r] << s if before else f[9]
            f[14] = D[Y + h][X + r] << s
            f[15] = D[Y + r][X + h] << s
            if p > 0:
                f[12] = self.D[0][Y][X] << s
            if p == 2:
                f[13] = self.D[1][Y][X] << s
            return f

        rows, columns = slice(8 * Y, 8 * Y + n), slice(8 * X, 8 * X + n)
        lines = [
            self.right[p][X - 1][rows],
            self.left[p][X][rows],
            self.left[p][X + r][rows],
            self.right[p][X + r - 1][rows],
            self.bottom[p][Y - 1][columns],
            self.top[p][Y][columns],
            self.top[p][Y + r][columns],
            self.bottom[p][Y + r - 1][columns],
        ]
        if s == 0:
            for k, line in enumerate(lines):
                f[k] = self.product(line, self.basis.edges[c][z][k >> 1]) >> 14
        else:
            u, v = ZIGZAG[z][0] * r + i, ZIGZAG[z][1] * r + j
            C = COSINE[s]
            along = [C[u]] * 4 + [C[v]] * 4
            end = [C[v][0], C[v][0], C[v][n - 1], C[v][n - 1],
                   C[u][0], C[u][0], C[u][n - 1], C[u][n - 1]]  # fmt: skip
            for k, line in enumerate(lines):
                f[k] = self.product(line, along[k]) * end[k] >> 24

        def alike(cy, cx):
            return self.size[min(p, 1)][cy][cx] == s and (p > 0 or self.classes[cy][cx] == c)

        V = self.V[p][z]
        if alike(Y, X - 1):
            f[8] = 64 * V[y][x - r]
        if alike(Y - 1, X):
            f[9] = 64 * V[y - r][x]
        if alike(Y - 1, X - 1):
            f[10] = 64 * V[y - r][x - r]
        if alike(Y - 1, X + r):
            f[11] = 64 * V[y - r][x + r]
        if alike(Y, X + r):
            f[14] = 64 * V[y][x + r]
        if alike(Y + r, X):
            f[15] = 64 * V[y + r][x]
        if p > 0 and self.size[0][Y][X] == s and self.classes[Y][X] == 0:
            f[12] = 64 * self.V[0][z][y][x]
        if p == 2:
            f[13] = 64 * self.V[1][z][y][x]
        return f

    def draw_lines(self, change, p, z, Y, X, s, c, u, v):
        r = 1 << s
        n = 8 * r
        if s == 0:
            added = [[w * change for w in side] for side in self.basis.edges[c][z]]
        else:
            C = COSINE[s]
            added = [
                [w * (end * change) >> 10 for w in along]
                for along, end in (
                    (C[u], C[v][0]),
                    (C[u], C[v][n - 1]),
                    (C[v], C[u][0]),
                    (C[v], C[u][n - 1]),
                )
            ]
        places = [
            (self.left[p][X], 8 * Y),
            (self.right[p][X + r - 1], 8 * Y),
            (self.top[p][Y], 8 * X),
            (self.bottom[p][Y + r - 1], 8 * X),
        ]
        for (line, at), samples in zip(places, added, strict=True):
            for e, sample in enumerate(samples):
                line[at + e] = wrap(line[at + e] + sample)


# --- 10 pixels -------------------------------------------------------------------------------


def zone_steps(step: float, tune: str) -> np.ndarray:
    """Step of every zone, (64)."""
    return step / (np.array(PERCEPTUAL) / 64 if tune == "perceptual" else np.ones(64))


def dequantised(tile: Tile, steps: np.ndarray, p: int) -> np.ndarray:
    """Scores of a plane in grey levels, (64, cell rows, cell columns)."""
    V = np.array(tile.V[p], float)
    if tile.layers == 0 or tile.used[0][p] == 0:
        return 0 * V
    last_pass, end = LAYERS[tile.passes][tile.layers - 1]
    n = np.full((64, 1, 1), last_pass)
    n[end:] += 1
    m = np.abs(V) / 2.0 ** (n - last_pass)
    x = np.where(m > 0, 2.0**n * (m + ABOVE) - BELOW, 0)
    x = np.where(n == 1, 2 * m - ABOVE1 * (m > 1), x)
    x = np.where(n == 0, m, x)
    x *= np.sign(V)
    for Y, X, s, _ in tile.blocks[min(p, 1)]:
        x[0, Y, X] = 2**last_pass * V[0, Y, X] + (2**last_pass - 1) / 2 - (MEAN_OFFSET << s)
    return x * steps[:, None, None]


def inverse(tile: Tile, steps: np.ndarray, p: int) -> np.ndarray:
    """Plane p, (h, w), of a tile."""
    rotations = tile.basis.rotations
    matrices = [dct(8 << s) for s in range(3)]
    scores = dequantised(tile, steps, p)
    plane = np.zeros((-(-tile.height // 32) * 32, -(-tile.width // 32) * 32))
    for Y, X, s, _ in tile.blocks[min(p, 1)]:
        r = 1 << s
        n = 8 * r
        block = np.empty((n, n))
        of_block = scores[:, Y : Y + r, X : X + r].copy()
        c = tile.classes[Y][X]
        if p == 0 and s == 0 and c > 0:
            of_block[1:, 0, 0] = of_block[1:, 0, 0] @ rotations[c - 1]
        for z, (a, b) in enumerate(ZIGZAG):
            block[a * r : a * r + r, b * r : b * r + r] = of_block[z]
        y, x = 8 * (Y - MARGIN), 8 * (X - MARGIN)
        plane[y : y + n, x : x + n] = matrices[s].T @ block @ matrices[s]
    return plane[: tile.height, : tile.width]


def group_classes(plane: np.ndarray, sigma: float, lean: float) -> np.ndarray:
    """17 · activity + direction of every group of 2 x 2 pixels.

    What is compared with a bound is multiplied by `lean` first: with a little less and a little
    more than 1, calls that are too close fall once to either side.
    """
    height, width = plane.shape
    around = np.pad(plane, ((1, 1 + height % 2), (1, 1 + width % 2)), mode="edge")
    x = around[1:-1, 1:-1]
    left, right, above, below = (
        around[1:-1, :-2],
        around[1:-1, 2:],
        around[:-2, 1:-1],
        around[2:, 1:-1],
    )
    dx, dy = right - left, below - above
    sums_of = []
    for values in (
        np.abs(2 * x - left - right) + np.abs(2 * x - above - below),
        dx * dx,
        dy * dy,
        dx * dy,
    ):
        groups = values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
        near = np.pad(groups, 1, mode="edge")
        rows, columns = groups.shape
        sums_of.append(sum(near[i : i + rows, j : j + columns] for i in range(3) for j in range(3)))
    t, hh, vv, hv = sums_of
    activity = sum(t * lean >= 2 ** ((k - 6) / 2) * 36 * sigma for k in range(1, ACTIVITIES + 1))
    a, b = hh - vv, 2 * hv
    eighth = np.rint(np.degrees(np.arctan2(b, a)) / 45).astype(int) % 8
    floor = 36 * sigma**2 / 10000
    some, much = ((a * a + b * b) * lean > (c * (hh + vv + floor)) ** 2 for c in COHERENCE)
    return 17 * activity + np.where(some, 1 + eighth + 8 * much, 0)


def restored(tile: Tile, step: float, tune: str, p: int, lean: float = 1) -> np.ndarray:
    """Plane p of a tile after the restoration."""
    plane = inverse(tile, zone_steps(step, tune), p)
    sigma = step * 2 ** RESTORED[tile.passes][tile.layers]
    height, width = plane.shape
    place = np.empty((tile.rows * 8 + 32, tile.columns * 8 + 32), int)
    for Y, X, s, _ in tile.blocks[min(p, 1)]:
        n = 8 << s
        near = np.array([min(i, n - 1 - i, 2) for i in range(n)])
        y, x = 8 * (Y - MARGIN), 8 * (X - MARGIN)
        place[y : y + n, x : x + n] = 3 * near[:, None] + near
    groups = group_classes(plane, sigma, lean).repeat(2, 0).repeat(2, 1)[:height, :width]
    weights = tile.basis.restoration[min(p, 1)][9 * groups + place[:height, :width]]
    around = np.pad(plane, 3, mode="edge")
    out = plane.copy()
    for number, clip in enumerate(CLIP):
        for t, (dy, dx) in enumerate(TAPS):
            for y, x in ((3 + dy, 3 + dx), (3 - dy, 3 - dx)):
                change = around[y : y + height, x : x + width] - plane
                change = np.clip(change, -clip * sigma, clip * sigma)
                out += weights[:, :, len(TAPS) * number + t] * change
    return out


def colour_rows(stored: bytes) -> np.ndarray:
    """Row p is what plane p adds to R, G and B."""
    numbers = np.frombuffer(stored, np.int8).astype(float)
    first, second = numbers[:3], numbers[3:]
    w = np.array([[0.299, 0.587, 0.114]])
    length = (w @ w.T).item()
    q = math.sqrt(1 + 1.5 * length)
    N = q ** (1 / 3) * (np.eye(3) + (1 / q - 1) * w.T @ w / length)
    if not first.any() or not np.cross(second, first).any():
        first, second = np.linalg.inv(N).sum(axis=0), np.array([1.0, 0, -1])
    e0 = first / np.linalg.norm(first)
    e1 = second - (second @ e0) * e0
    e1 /= np.linalg.norm(e1)
    return np.stack([e0, e1, np.cross(e0, e1)]) @ N


def samples_of(planes: np.ndarray, levels, limits, bits: int) -> np.ndarray:
    """10.6: the samples of planes that are mixed to colours."""
    low, high = levels
    samples = np.clip(np.rint(planes + low + 128 * (high - low) / 255), *limits)
    return samples.astype(np.uint8 if bits <= 8 else np.uint16)


def tile_pixels(tile: Tile, step: float, tune: str, image: dict) -> np.ndarray:
    """Pixels of a decoded tile, (h, w, planes)."""
    planes = np.stack([restored(tile, step, tune, p) for p in range(tile.planes)], axis=2)
    if tile.planes == 3:
        planes = planes @ colour_rows(tile.colour)
    return samples_of(planes, image["levels"], image["limits"], image["bits"])


# --- 14 the residual -------------------------------------------------------------------------


def colour_integers(stored: bytes) -> list[list[int]]:
    """What planes give to R, G and B, in 1/16384; row = plane."""

    def normal(v):
        length = math.isqrt(sum(x * x for x in v) << 20)
        return [(x << 24) // length for x in v]

    def cross(a, b):
        return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]

    c = [x - 256 if x > 127 else x for x in stored]
    first, second = c[:3], c[3:]
    if not any(first) or not any(cross(second, first)):
        e0, e1 = USUAL
    else:
        e0, dot = normal(first), sum(x * y for x, y in zip(first, second, strict=True))
        square = sum(x * x for x in first)
        e1 = normal([square * y - dot * x for x, y in zip(first, second, strict=True)])
    e2 = [x >> 14 for x in cross(e0, e1)]
    return [[sum(e[k] * INVERSE[k][c] for k in range(3)) >> 14 for c in range(3)]
            for e in (e0, e1, e2)]  # fmt: skip


def rendered(tile: Tile, step: float, tune: str, image: dict) -> list:
    """The rendition of a tile, [channel in coding order][row][column], in 1/16 of a level."""
    weights = PERCEPTUAL if tune == "perceptual" else [64] * 64
    steps = [math.floor(Fraction(step) * 256 * 64 / weight) for weight in weights]
    limit = 1 << 30
    planes = []
    for p in range(tile.planes):
        plane = zeros(-(-tile.height // 32) * 32, -(-tile.width // 32) * 32)
        for Y, X, s, _ in tile.blocks[min(p, 1)]:
            r = 1 << s
            n = 8 * r
            C = COSINE[s]
            block = zeros(n, n)
            small = [0] * 64
            for z, (a, b) in enumerate(ZIGZAG):
                for i in range(r):
                    for j in range(r):
                        value = tile.V[p][z][Y + i][X + j]
                        if z == i == j == 0:
                            value -= MEAN_OFFSET << s
                        if tile.used[0][p] == 0:
                            value = 0
                        value = clamp(value * steps[z], -limit, limit)
                        block[a * r + i][b * r + j] = small[z] = value
            c = tile.classes[Y][X]
            if p == 0 and s == 0 and c > 0:
                B = tile.basis.components[c - 1].tolist()
                for z, (a, b) in enumerate(ZIGZAG):
                    if z > 0:
                        total = sum(small[k] * B[k - 1][z - 1] for k in range(1, 64))
                        block[a][b] = clamp((total + 16384) >> 15, -limit, limit)
            half = [[(sum(row[v] * C[v][j] for v in range(n)) + 512) >> 10 for j in range(n)]
                    for row in block]  # fmt: skip
            y, x = 8 * (Y - MARGIN), 8 * (X - MARGIN)
            for i in range(n):
                for j in range(n):
                    total = (sum(C[u][i] * half[u][j] for u in range(n)) + 512) >> 10
                    plane[y + i][x + j] = clamp(total, -limit, limit)
        planes.append(plane)
    (low, high), (least, most) = image["levels"], image["limits"]
    middle = 16 * low + 2048 * (high - low) // 255
    matrix = [[16384]] if tile.planes == 1 else colour_integers(tile.colour)
    out = []
    for c in CHANNELS[tile.planes]:
        out.append(zeros(tile.height, tile.width))
        for y in range(tile.height):
            for x in range(tile.width):
                total = sum(planes[p][y][x] * matrix[p][c] for p in range(tile.planes))
                value = middle + ((total + (1 << 17)) >> 18)
                out[-1][y][x] = clamp(value, 16 * least, 16 * most)
    return out


def residual_level(x: int) -> int:
    """14: one of 64 levels."""
    n = 0
    while x >> n >= 8:
        n += 1
    return min(4 * n + (x >> n), 63)


def near(difference: int, k: int, half: int) -> int:
    return clamp((difference >> (k + 2)) + half, 0, 2 * half - 1)


class Residual(Coder):
    """The samples of a tile, from its rendition and the string of its residual."""

    def __init__(self, rendition: list, limits, max_error: int):
        self.rendition, self.max_error = rendition, max_error
        self.least, self.most = limits
        self.shift = max((self.most - self.least).bit_length() - 12, 0)
        self.height, self.width = len(rendition[0]), len(rendition[0][0])
        self.samples: list[dict] = []
        self.errors: list[dict] = []

    def read(self, string: bytes) -> np.ndarray:
        self.start(string)
        for p in range(len(self.rendition)):
            self.read_channel(p)
        h, w, channels = self.height, self.width, CHANNELS[len(self.rendition)]
        out = np.zeros((h, w, len(channels)), int)
        for samples, c in zip(self.samples, channels, strict=True):
            out[:, :, c] = [[samples[y, x] for x in range(w)] for y in range(h)]
        return out

    def base(self, p: int, y: int, x: int) -> int:
        return self.rendition[p][clamp(y, 0, self.height - 1)][clamp(x, 0, self.width - 1)]

    def slot(self, place) -> int:
        """The number of a slot; new ones know nothing."""
        if place not in self.places:
            self.places[place] = len(self.p)
            self.p.append(1 << 21)
            self.count.append(0)
        return self.places[place]

    def decide(self, kind: int, step: int, level: int, contexts: list) -> int:
        slots = [self.slot((i, context, kind)) for i, context in enumerate(contexts)]
        a = self.mixers.setdefault((0, kind, step), [START] * 9)
        b = self.mixers.setdefault((1, kind, level), [START] * 9)
        x = [STRETCH[self.p[i] >> 10] * CONFIDENCE[self.count[i]] >> 8 for i in slots] + [256]
        dots = [clamp(sum(map(int.__mul__, x, w)) >> 16, -2047, 2047) for w in (a, b)]
        bit = self.bit(SQUASH[sum(dots) >> 1])
        for weights, dot in zip((a, b), dots, strict=True):
            error = ((bit << 16) - SQUASH[dot]) * RESIDUAL_LEARNING
            for i in range(9):
                weights[i] += (x[i] * error + (1 << 23)) >> 24
        for slot in slots:
            self._update(slot, bit, LIMIT)
        return bit

    def read_quotient(self, k: int, level: int, contexts: list) -> int:
        step = min(k, 15)
        negative = self.decide(0, step, level, contexts)
        n = 0
        while n < 20 and self.decide(1 + min(n, 11) + 12 * negative, step, level, contexts):
            n += 1
        row = (step, min(n, 3), negative)
        if n == 20:
            ones = 0
            while ones < 20 and self.direct(self.slot(("number", ones))):
                ones += 1
            n += (1 << ones) + self.plain(ones) - 1
        node = 1
        for i in range(k):
            if i < 3:
                bit = self.direct(self.slot(("digit", row, node)))
                node = 2 * node + bit
            else:
                bit = self.plain()
            n = 2 * n + bit
        return -n - 1 if negative else n

    def read_channel(self, p: int) -> None:
        h, w, base = self.height, self.width, self.base
        self.p, self.count, self.places, self.mixers = [], [], {}, {}
        S, E = {}, {}
        self.samples.append(S)
        self.errors.append(E)
        for y in range(-4, 0):
            for x in range(-4, w + 4):
                S[y, x] = (base(p, y, x) + 8) >> 4
        wrong = {}
        count = 4 + NEIGHBOURS[p] + 12 * p
        A = [[FLOOR * (i == j) for j in range(count)] for i in range(count)]
        B, weights, turn = [0] * count, [0] * count, 0
        least, most, q = self.least, self.most, 2 * self.max_error + 1
        for y in range(h):
            for x in range(-4, 0):
                S[y, x] = S[y - 1, 0]
                for i in range(6):
                    wrong[i, y, x] = wrong.get((i, y - 1, 0), 0)
            for x in range(w):
                W, N, NW, NE = S[y, x - 1], S[y - 1, x], S[y - 1, x - 1], S[y - 1, x + 1]
                WW, NN = S[y, x - 2], S[y - 2, x]
                R = base(p, y, x)
                m = (W + N) >> 1
                t = [(R - 16 * m) >> 4, (2 * R - base(p, y, x - 1) - base(p, y - 1, x)) >> 5,
                     (2 * R - base(p, y, x + 1) - base(p, y - 1, x + 1)) >> 5, W - N]  # fmt: skip
                t += [S[y + dy, x + dx] - m for dy, dx in OWN[: NEIGHBOURS[p]]]
                for other in self.samples[:p][::-1]:
                    around = (other[y, x - 1] + other[y - 1, x]) >> 1
                    t += [other[y, x - 1] - other[y - 1, x]]
                    t += [other[y + dy, x + dx] - around for dy, dx in OTHER]
                t = [clamp(value >> self.shift, -2047, 2047) for value in t]
                total = sum(map(int.__mul__, t, weights))
                g = [16 * m + (total << self.shift >> 12), 16 * (W + N - NW), 16 * (W + NE - N),
                     16 * (N + NE - S[y - 2, x + 1]), 16 * N, 16 * W]  # fmt: skip
                if p > 0:
                    other = self.samples[p - 1]
                    left, up = other[y, x] - other[y, x - 1], other[y, x] - other[y - 1, x]
                    both = left + up - (other[y, x] - other[y - 1, x - 1])
                    g[1:4] = 16 * (W + left), 16 * (N + up), 16 * (W + N - NW + both)
                if p == 2:
                    other = self.samples[0]
                    g[4] = 16 * (W + other[y, x] - other[y, x - 1])
                    g[5] = 16 * (N + other[y, x] - other[y - 1, x])
                g = [clamp(value, 16 * least, 16 * most) for value in g]
                total = blend = 0
                for i in range(6):

                    def miss(dy, dx, i=i, y=y, x=x):
                        return wrong.get((i, y + dy, x + dx), 0)

                    three = miss(0, -1) + miss(-1, 0) + miss(-1, 1)
                    three += (miss(0, -2) + miss(-1, -1) + miss(-2, 0)) >> 1
                    near_by = (three >> 2) + 1
                    weight = (1 << 34) // (near_by * (near_by + 40)) + 1
                    weight *= TRUST[p] if i == 0 else 1
                    total += weight
                    blend += weight * (g[i] - 16 * m)
                expected = 16 * W if W == N == NW == NE == WW == NN else 16 * m + blend // total
                expected = clamp(expected, 16 * least, 16 * most)
                nearest = (expected + 8) >> 4

                def missed(dy, dx, channel=E, y=y, x=x):
                    return channel.get((y + dy, x + dx), 0)

                eW, eN, eNW, eNE = missed(0, -1), missed(-1, 0), missed(-1, -1), missed(-1, 1)
                eWW = missed(0, -2)
                energy = 2 * (abs(eW) + abs(eN)) + abs(eNW) + abs(eNE) + abs(eWW)
                energy += abs(missed(-2, 0))
                one, two, third = 16 * (2 * N - NN) - expected, 16 * (2 * W - WW) - expected, eNW
                if p > 0:
                    other = self.errors[p - 1]
                    one, two = missed(0, 0, other), 0
                    third = one
                    energy += 2 * abs(one) + abs(missed(0, 1, other)) + abs(missed(1, 0, other))
                    if p == 2:
                        two = missed(0, 0, self.errors[0])
                        energy = (energy + 2 * abs(two)) * 4 // 7
                    else:
                        energy = energy * 2 // 3
                level, k = residual_level((energy >> 2) // q), 0
                while energy // q >> (k + 8):
                    k += 1
                step = min(k, 15)
                spread = sum(abs(value - expected) for value in g)
                contexts = [
                    (level, expected >> 1 & 7),
                    (step, near(16 * W - expected, k, 4), near(16 * N - expected, k, 4)),
                    tuple(min(residual_level(value) >> 2, 11) for value in (
                        (abs(eW) + abs(eWW)) >> 1, (abs(eN) + abs(eNE)) >> 1, abs(third))),
                    (step, near(R - expected, k, 8), near(16 * NE - expected, k, 4)),
                    (step, near(one, k, 8), near(two, k, 4)),
                    (step, near(eW, k, 8), near(eN, k, 4)),
                    (step, near(g[1] - expected, k, 8), near(g[2] - expected, k, 4)),
                    (residual_level(spread >> 2) >> 1, level >> 1),
                ]  # fmt: skip
                value = clamp(nearest + self.read_quotient(k, level, contexts) * q, least, most)
                S[y, x], E[y, x] = value, 16 * value - expected
                for i in range(6):
                    wrong[i, y, x] = abs(g[i] - 16 * value)
                target = clamp((value - m) >> self.shift, -2047, 2047)
                rate = (64 << 12) // ((energy >> 3) + 4)
                for i in range(count):
                    scaled = t[i] * rate >> 8
                    for j in range(i + 1):
                        A[i][j] += (scaled * t[j] >> 4) - (A[i][j] >> FORGET)
                    B[i] += (scaled * target >> 4) - (B[i] >> FORGET)
                for _ in range(2):
                    rest = B[turn] << 16
                    for j in range(count):
                        rest -= A[max(turn, j)][min(turn, j)] * weights[j]
                    found = weights[turn] + rest // (A[turn][turn] + FLOOR)
                    weights[turn] = clamp(found, -(4 << 16), 4 << 16)
                    turn = (turn + 1) % count
            for x in range(w, w + 4):
                S[y, x], E[y, x] = S[y, w - 1], E[y, w - 1]
                for i in range(6):
                    wrong[i, y, x] = wrong[i, y, w - 1]
        for y in range(h, h + 4):
            for x in range(-4, w + 4):
                S[y, x] = S[y - 1, x]


def decode(archive: bytes, basis: Basis):
    """Samples, (h, w) or (h, w, 3), of an archive, and its tiles."""
    top = read_archive(archive)
    if not basis.sha256.startswith(top["basis"]["sha256"][:HASH_DIGITS]):
        raise ValueError("the archive was made with another basis")
    image, edge = top["image"], top["tile"]
    height, width, planes = image["height"], image["width"], 3 if image["mode"] == "RGB" else 1
    pixels = np.zeros((height, width, planes), np.uint8 if image["bits"] <= 8 else np.uint16)
    corners = [(y, x) for y in range(0, height, edge) for x in range(0, width, edge)]
    tiles = []
    for number, (y, x) in enumerate(corners):
        h, w = min(edge, height - y), min(edge, width - x)
        tile = Tile(h, w, planes, basis, top["blocks"][number], top["passes"])
        count = len(LAYERS[top["passes"]])
        for strings in top["strings"][:count]:
            tile.read_layer(strings[number])
        if len(top["strings"]) > count:
            rendition = rendered(tile, top["step"], top["tune"], image)
            found = Residual(rendition, image["limits"], top["max_error"])
            pixels[y : y + h, x : x + w] = found.read(top["strings"][count][number])
        else:
            pixels[y : y + h, x : x + w] = tile_pixels(tile, top["step"], top["tune"], image)
        tiles.append(tile)
    return (pixels if planes == 3 else pixels[:, :, 0]), tiles


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        np.save(sys.argv[3], decode(file.read(), Basis(sys.argv[2]))[0])
