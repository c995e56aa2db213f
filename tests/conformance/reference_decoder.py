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

import numpy as np

MARGIN = 8
LAYER_ENDS = [1, 3, 6, 10, 15, 21, 36, 64]
DECISION_KIND = [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7]

# --- 1 container -----------------------------------------------------------------------------


def read_archive(data: bytes) -> dict:
    """Parse an archive and check it; blocks and strings are bytes in the result."""
    top = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    if top["format"] != "laff" or top["version"] != 1:
        raise ValueError("not an archive of version 1")
    image, basis = top["image"], top["basis"]
    head = {key: top[key] for key in ("format", "version", "metadata", "step", "tile")}
    head["image"] = {
        key: image[key] for key in ("width", "height", "mode", "bits", "source", "icc")
    }
    head["basis"] = {key: basis[key] for key in ("name", "sha256")}
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if zlib.crc32(text) != top["crc"]:
        raise ValueError("the header's checksum is wrong")
    width, height = image["width"], image["height"]
    if not (1 <= width <= 1 << 20 and 1 <= height <= 1 << 20 and width * height <= 1 << 32):
        raise ValueError("the size is outside of the limits")
    if image["mode"] not in ("L", "RGB") or image["bits"] not in (8, 16):
        raise ValueError("the mode or the depth is unknown")
    if not 16 <= top["tile"] <= 2048 or not 1e-3 <= top["step"] <= 1e6:
        raise ValueError("the tile or the step is outside of the limits")
    if len(top["strings"]) > len(LAYER_ENDS):
        raise ValueError("too many layers")

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


# --- 11 the basis file -----------------------------------------------------------------------


class Basis:
    """The arrays of a basis file that a decoder needs."""

    def __init__(self, path):
        with np.load(path, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != "laff-basis" or header["version"] != 1:
            raise ValueError("not a basis file of version 1")
        digest = hashlib.sha256(b"laff-basis 1")
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
        self.state = [
            arrays[name].tolist()
            for name in ("state_odds", "state_counts", "state_weights", "state_apms")
        ]
        self.edges = self._edges()

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

    def rotations(self):
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
    "context0": (84, 16, 3, 8),
    "context1": (84, 16, 3, 8),
    "context2": (16, 16, 8, 8, 3, 8),
    "context3": (84, 24, 3, 8),
    "context4": (3, 8, 16, 12, 3, 8),
    "context5": (16, 8, 8, 8, 3, 8),
    "context6": (84, 12, 12, 3, 8),
    "context7": (3, 3, 3, 3, 3, 3, 8, 3, 8),
    "sign0": (3, 84, 24),
    "sign1": (3, 24, 3, 3, 3),
    "sign2": (3, 84, 3, 3),
    "sign3": (3, 84, 3, 3),
    "sign4": (3, 84, 3, 3, 3),
    "sign5": (3, 24, 3, 3, 3),
    "zone0": (3, 3, 64, 24),
    "zone1": (3, 64, 4, 4, 4),
    "zone2": (3, 3, 24, 16, 8),
    "zone3": (3, 3, 8, 12, 16),
    "zone4": (3, 64, 24),
    "golomb": (2, 64),
    "class0": (32, 33),
    "class1": (32, 33),
    "class2": (32, 33),
    "split0": (2, 2, 4, 4, 4, 4),
    "split1": (2, 2, 4, 4, 4, 4),
    "split2": (2, 2, 4, 4, 4, 4),
}
WEIGHT_ARRAYS = {
    "level": (3, 8, 24, 9),
    "group": (3, 8, 84, 9),
    "sign_level": (3, 24, 7),
    "sign_group": (3, 84, 7),
    "zone_level": (3, 24, 6),
    "zone": (3, 64, 6),
    "class": (2, 32, 4),
    "split": (2, 2, 4),
}
MAP_ARRAYS = {name: (*shape[:-1], 33) for name, shape in WEIGHT_ARRAYS.items()}


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


SLOTS, WEIGHTS, MAPS = Places(SLOT_ARRAYS), Places(WEIGHT_ARRAYS), Places(MAP_ARRAYS)

# --- 5 the coder -----------------------------------------------------------------------------


class Coder:
    """The range decoder of the current string and the adaptive state of a tile."""

    def __init__(self, basis):
        odds, counts, weights, maps = basis.state
        self.p = [
            SQUASH[16 * o] << 6 if count else 1 << 21 for o, count in zip(odds, counts, strict=True)
        ]
        self.count = list(counts)
        self.weights = [8 * w for w in weights]
        self.maps = list(maps)
        assert (len(odds), len(weights), len(maps)) == (SLOTS.total, WEIGHTS.total, MAPS.total)

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

    def direct(self, slot, limit=255):
        bit = self.bit(clamp(self.p[slot] >> 6, 4, 65532))
        self._update(slot, bit, limit)
        return bit

    def mixed(self, slots, first, second, first_map=None):
        """A mixed bit; `first` and `second`: (name, index…) of both weights and maps, except
        that the first map may have an index of its own."""
        weights, maps = self.weights, self.maps
        x = [STRETCH[self.p[i] >> 10] * CONFIDENCE[self.count[i]] >> 8 for i in slots] + [256]
        a, b = WEIGHTS(*first), WEIGHTS(*second)
        dot_a = clamp(sum(x[i] * weights[a + i] for i in range(len(x))) >> 16, -2047, 2047)
        dot_b = clamp(sum(x[i] * weights[b + i] for i in range(len(x))) >> 16, -2047, 2047)
        dot = (dot_a + dot_b) >> 1
        place, part = (dot + 2048) >> 7, (dot + 2048) & 127
        alpha, beta = MAPS(*(first_map or first)) + place, MAPS(*second) + place
        refined = (maps[alpha] + maps[beta]) * (128 - part)
        refined += (maps[alpha + 1] + maps[beta + 1]) * part
        bit = self.bit(clamp((2 * SQUASH[dot] + (refined >> 7)) >> 2, 4, 65532))
        for at, dot in ((a, dot_a), (b, dot_b)):
            error = ((bit << 16) - SQUASH[dot]) * 14
            for i in range(len(x)):
                weights[at + i] += (x[i] * error + (1 << 23)) >> 24
        for at in (alpha, beta):
            at += part >= 64
            maps[at] += ((65535 if bit else 0) - maps[at]) >> 6
        for slot in slots:
            self._update(slot, bit, 255)
        return bit

    def golomb(self, row):
        at, n = SLOTS("golomb", row), 0
        while n < 30 and self.direct(at + n, 30):
            n += 1
        if n == 0:
            return 0
        f = self.direct(at + 32 + n, 30)
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
    """The integers of one tile; `events` counts what occurred in the strings."""

    def __init__(self, height, width, planes, basis, block_string, strings):
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
        self.events = Counter()

        self.coder = Coder(basis)
        self.coder.start(block_string)
        self.read_blocks()
        self.blocks = [self.list_blocks(kind) for kind in range(2)]
        first = 0
        for string, last in zip(strings, LAYER_ENDS, strict=False):
            self.coder.start(string)
            for z in range(first, last):
                for p in range(planes):
                    if z < self.used[p]:
                        for block in self.blocks[min(p, 1)]:
                            self.read_zone(p, z, *block)
            first = last

    def inside(self, y, x):
        return y < self.last_row and x < self.last_column

    def superblocks(self):
        for y in range(MARGIN, self.last_row, 4):
            for x in range(MARGIN, self.last_column, 4):
                yield y, x

    # 6 the block string

    def read_blocks(self):
        self.used = [min(self.coder.plain(7), 64) for _ in range(self.planes)]
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
        basis, coder = self.basis, self.coder
        r, h, kind = 1 << s, (1 << s) >> 1, min(p, 1)
        c = self.classes[Y][X] if p == 0 and s == 0 else 0
        w = 3 if c > 0 else s
        means = basis.means[c if s == 0 else basis.classes - 1 + s][kind]
        self.mean, self.seen = means[z], sum(means[1 if s == 0 else 0 : z])
        E = self.E[p]
        self.near_energy = E[Y + h][X - 1] + E[Y - 1][X + h] + E[Y + h][X + r] + E[Y + r][X + h]
        around = sums(self.near_energy >> 2)
        quiet = min(self.silence[p][Y][X], 7)

        flagged = False
        if z > 0:
            g = self.zone_features(p, z, Y, X, s, before)
            expected = self.product(g, basis.zone_weights[p][w][z]) << 2 * s >> 8
            flagged = expected < 110
            if flagged:
                self.events["flag"] += 1
                if not self.read_flag(p, z, s, g, level(expected), around, quiet):
                    self.events["empty zone"] += 1
                    self.silence[p][Y][X] += 1
                    return

        in_zone = 0
        for sub in range(r * r):
            i, j = sub >> s, sub & (r - 1)
            y, x = Y + i, X + j
            dc = z == 0 and sub == 0
            q = group(s, z, sub)
            u, v = ZIGZAG[z][0] * r + i, ZIGZAG[z][1] * r + j
            key = {
                0: 64 * c + z,
                1: 64 * basis.classes + 4 * z + sub,
                2: 64 * basis.classes + 112 + 16 * z + sub,
            }[s]
            has_key = s == 0 or z < 28
            f, prediction = None, 0
            if has_key:
                f = self.signed_features(p, z, Y, X, s, c, before, i, j)
                prediction = self.product(f, basis.sign_weights[p][key]) >> 12
            pi = min(abs(prediction), 1 << 20)
            sure = level(2 * pi)

            g = self.magnitude_features(p, z, Y, X, s, before, i, j)
            g[26] = 0 if dc else pi >> 2
            m = level(self.product(g, basis.weights[p][w][q]) >> 8)
            known = flagged and sub == r * r - 1 and in_zone == 0
            size = self.read_magnitude(p, z, s, q, dc, g, m, sure, around, quiet, known)

            negative = 0
            if size > 0:
                if has_key:
                    sigma = 12 + (sure >> 1) if prediction > 0 else 11 - (sure >> 1)
                    negative = self.read_sign(
                        p, q, f, sure, 0 if dc else sigma, size, Y, X, s, u, v
                    )
                else:
                    self.events["plain sign"] += 1
                    negative = coder.plain()

            value = -size if negative else size
            if dc:
                value += (prediction + 32) >> 6
                for yy in range(Y, Y + r):
                    for xx in range(X, X + r):
                        self.D[p][yy][xx] = wrap((value << 6) >> s)
            else:
                in_zone += size
            self.M[p][z][y][x] = min(size, 255)
            self.V[p][z][y][x] = wrap(value)
            if value != 0 and has_key:
                self.draw_lines(value, p, z, Y, X, s, c, u, v)

        if z > 0:
            self.silence[p][Y][X] = 0 if in_zone > 0 else self.silence[p][Y][X] + 1
        if in_zone > 0:
            total = self.total[p][Y][X] + min(in_zone, 1 << 20)
            self.total[p][Y][X] = total = min(total, 1 << 26)
            for y in range(Y, Y + r):
                for x in range(X, X + r):
                    self.S[p][z][y][x] = min((in_zone << 4) >> 2 * s, 65535)
                    self.E[p][y][x] = (total << 4) >> 2 * s

    @staticmethod
    def product(features, weights):
        return sum(a * b for a, b in zip(features, weights, strict=True))

    def read_flag(self, p, z, s, g, m, around, quiet):
        if m < 5:
            self.events["direct flag"] += 1
            return self.coder.direct(SLOTS("zone4", p, z, 4 * m + min(around >> 2, 3)))

        def k(x):
            return min((x + 7) >> 4, 3)

        o = g[11] + g[12] + g[13] + g[14] if p == 0 else g[15] + g[16] + 3 * g[17] + g[18]
        slots = [
            SLOTS("zone0", p, s, z, m),
            SLOTS("zone1", p, z, k(g[0]), k(g[1]), k(g[6] + g[7])),
            SLOTS("zone2", p, s, m, around, quiet),
            SLOTS("zone3", p, s, band(z), m >> 1, sums(o << s)),
            SLOTS("zone4", p, z, level(g[19] << (3 + s))),
        ]
        return self.coder.mixed(slots, ("zone_level", p, m), ("zone", p, z))

    def read_magnitude(self, p, z, s, q, dc, g, m, sure, around, quiet, known):
        own = sums(2 * (g[10] + g[11]) + g[12] + g[13] + g[14] + g[15] + g[16])
        beside = sums(2 * (g[0] + g[1]) + g[2] + g[3])
        beyond = sums(g[6] + g[7] + g[8] + g[9] + g[17] + g[18])
        if p == 0:
            other = sums(2 * (g[4] + g[5]) + g[2] + g[3])
        else:
            other = sums(4 * g[19] + g[20] + 6 * g[21] + g[22])
        shape = level(16 * g[24])
        across = g[21] if p == 2 else g[19]
        near = [
            min((g[0] + 7) >> 4, 2),
            min((g[1] + 7) >> 4, 2),
            min(g[10] >> 4, 2),
            min(g[11] >> 4, 2),
            min((across + 7) >> 4, 2),
        ]
        n = 0
        if known:
            self.events["known one"] += 1
            n = 1
        while n < 20:
            t = DECISION_KIND[n]
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
        self.events["golomb of a mean" if dc else "golomb"] += 1
        return n + self.coder.golomb(int(dc))

    def read_sign(self, p, q, f, sure, sigma, size, Y, X, s, u, v):
        def V(du, dv):
            return self.score(self.V, p, Y, X, s, u + du, v + dv)

        self.events["predicted sign"] += 1
        big = min(size, 3) - 1
        slots = [
            SLOTS("sign0", p, q, sigma),
            SLOTS("sign1", p, sigma, sg(f[12]), sg(f[13]), big),
            SLOTS("sign2", p, q, sg(f[8]), sg(f[9])),
            SLOTS("sign3", p, q, sg(f[12]), sg(f[13])),
            SLOTS("sign4", p, q, sg(V(-1, 0)), sg(V(0, -1)), sg(f[8])),
            SLOTS("sign5", p, sigma, sg(V(-2, 0)), sg(V(0, -2)), big),
        ]
        first, second = ("sign_level", p, sure), ("sign_group", p, q)
        return self.coder.mixed(slots, first, second, first_map=("sign_level", p, sigma))

    # 8 features

    @staticmethod
    def score(array, p, Y, X, s, u, v):
        """Entry of a neighbour in frequency, (u, v), of the block at (Y, X)."""
        r = 1 << s
        if not (0 <= u < 8 * r and 0 <= v < 8 * r) or (u == 0 and v == 0):
            return 0
        return array[p][ZONE_OF[u >> s, v >> s]][Y + (u & (r - 1))][X + (v & (r - 1))]

    def zone_level(self, p, z, y, x, da=0, db=0):
        """S of the zone (a + da, b + db)."""
        a, b = ZIGZAG[z]
        there = ZONE_OF.get((a + da, b + db))
        return 0 if there is None else self.S[p][there][y][x]

    def shape_feature(self, p, Y, X):
        return min(self.E[p][Y][X] * self.mean // (self.seen + 16), 65535)

    def zone_features(self, p, z, Y, X, s, before):
        def S(y, x, *shift):
            return self.zone_level(p, z, y, x, *shift)

        r, h = 1 << s, (1 << s) >> 1
        l, t, e, b = (Y + h, X - 1), (Y - 1, X + h), (Y + h, X + r), (Y + r, X + h)  # noqa: E741
        g = [0] * 22
        g[0] = S(*l)
        g[1] = S(*t)
        g[2] = S(Y - 1, X - 1)
        g[3] = S(Y - 1, X + r) if before else S(*t)
        g[4] = S(Y + h, X - 1 - r)
        g[5] = S(Y - 1 - r, X + h)
        g[6] = S(Y, X, -1, 0)
        g[7] = S(Y, X, 0, -1)
        g[8] = S(Y, X, -1, -1)
        g[9] = S(Y, X, -2, 0) + S(Y, X, 0, -2)
        g[10] = S(Y, X, -1, 1) + S(Y, X, 1, -1)
        g[11] = S(*l, -1, 0) + S(*l, 0, -1)
        g[12] = S(*t, -1, 0) + S(*t, 0, -1)
        g[13] = S(*e, -1, 0) + S(*e, 0, -1) + S(*e, -1, -1)
        g[14] = S(*b, -1, 0) + S(*b, 0, -1) + S(*b, -1, -1)
        if p > 0:
            far = r - 1
            g[15] = self.zone_level(0, z, Y, X) + self.zone_level(0, z, Y, X + far)
            g[15] += self.zone_level(0, z, Y + h, X + h) + self.zone_level(0, z, Y + far, X + far)
            g[16] = self.zone_level(0, z, Y + h, X + h, -1, 0)
            g[16] += self.zone_level(0, z, Y + h, X + h, 0, -1)
        if p == 2:
            g[17] = self.zone_level(1, z, Y, X)
            g[18] = self.zone_level(1, z, Y, X, -1, 0) + self.zone_level(1, z, Y, X, 0, -1)
        g[19] = self.shape_feature(p, Y, X)
        g[20] = 16
        g[21] = min(self.near_energy * self.mean // (4 * self.seen + 64), 65535)
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

        up, back, down, on = (-1, 0), (0, -1), (1, 0), (0, 1)
        l, t, e, b = (Y + i, X - 1), (Y - 1, X + j), (Y + i, X + r), (Y + r, X + j)  # noqa: E741
        g = [0] * 28
        if size[l[0]][l[1]] == s:
            g[0], g[6], g[7] = mu(0, -1), mu(0, -1, up, down), mu(0, -1, back, on)
        else:
            g[0], g[6], g[7] = S(*l), S(*l, *up), S(*l, *back)
        if size[t[0]][t[1]] == s:
            g[1], g[8], g[9] = mu(-1, 0), mu(-1, 0, up, down), mu(-1, 0, back, on)
        else:
            g[1], g[8], g[9] = S(*t), S(*t, *up), S(*t, *back)
        g[2] = mu(-1, -1) if size[Y - 1][X - 1] == s else S(Y - 1, X - 1)
        if not before:
            g[3] = g[1]
        else:
            g[3] = mu(-1, 1) if size[Y - 1][X + r] == s else S(Y - 1, X + r)
        g[4] = S(Y + i, X - 1 - r)
        g[5] = S(Y - 1 - r, X + j)
        shifts = [up, back, (-1, -1), (-2, 0), (0, -2), (-1, 1), (1, -1)]
        g[10:17] = [mu(0, 0, shift) for shift in shifts]
        if size[e[0]][e[1]] == s:
            g[17] = mu(0, 1, up, back)
        else:
            g[17] = S(*e, *up) + S(*e, *back)
        if size[b[0]][b[1]] == s:
            g[18] = mu(1, 0, up, back)
        else:
            g[18] = S(*b, *up) + S(*b, *back)
        if p > 0:
            if self.size[0][Y][X] == s:
                g[19] = mu(0, 0, plane=0)
                g[20] = mu(0, 0, up, back, down, on, plane=0)
            else:
                g[19] = self.zone_level(0, z, y, x)
                g[20] = self.zone_level(0, z, y, x, *up) + self.zone_level(0, z, y, x, *back)
        if p == 2:
            g[21] = mu(0, 0, plane=1)
            g[22] = mu(0, 0, up, back, down, on, plane=1)
        g[23] = 16
        g[24] = self.shape_feature(p, Y, X)
        g[25] = S(*l) + S(*t)
        g[27] = S(Y, X, *up) + S(Y, X, *back)
        return g

    def signed_features(self, p, z, Y, X, s, c, before, i, j):
        r = 1 << s
        n = 8 * r
        y, x = Y + i, X + j
        f = [0] * 14
        if z == 0 and i == 0 and j == 0:
            D, h = self.D[p], r >> 1
            f[8] = D[Y + h][X - 1] << s
            f[9] = D[Y - 1][X + h] << s
            f[10] = D[Y - 1][X - 1] << s
            f[11] = D[Y - 1][X + r] << s if before else f[9]
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
        if p > 0 and self.size[0][Y][X] == s and self.classes[Y][X] == 0:
            f[12] = 64 * self.V[0][z][y][x]
        if p == 2:
            f[13] = 64 * self.V[1][z][y][x]
        return f

    def draw_lines(self, value, p, z, Y, X, s, c, u, v):
        r = 1 << s
        n = 8 * r
        if s == 0:
            added = [[w * value for w in side] for side in self.basis.edges[c][z]]
        else:
            C = COSINE[s]
            added = [
                [w * (end * value) >> 10 for w in along]
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


def tile_pixels(tile: Tile, step: float, bits: int) -> np.ndarray:
    """Pixels of a decoded tile, (h, w, planes)."""
    rotations = tile.basis.rotations()
    shape = (-(-tile.height // 32) * 32, -(-tile.width // 32) * 32)
    planes = []
    for p in range(tile.planes):
        scores = np.array(tile.V[p]) * float(step)
        plane = np.zeros(shape)
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
            plane[y : y + n, x : x + n] = dct(n).T @ block @ dct(n)
        planes.append(plane[: tile.height, : tile.width])
    if tile.planes == 3:
        o, p, q = planes
        planes = [
            o / 3**0.5 + p / 2**0.5 - q / 6**0.5,
            o / 3**0.5 + 2 * q / 6**0.5,
            o / 3**0.5 - p / 2**0.5 - q / 6**0.5,
        ]
    pixels = np.rint(np.stack(planes, axis=2) + 2 ** (bits - 1))
    return np.clip(pixels, 0, 2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)


def decode(archive: bytes, basis_path, layers: int | None = None):
    """Pixels, (h, w) or (h, w, 3), and the tiles of an archive, from its first `layers` layers."""
    top = read_archive(archive)
    basis = Basis(basis_path)
    if basis.sha256 != top["basis"]["sha256"]:
        raise ValueError("the archive was made with another basis")
    image, edge = top["image"], top["tile"]
    height, width, planes = image["height"], image["width"], 3 if image["mode"] == "RGB" else 1
    pixels = np.zeros((height, width, planes), np.uint8 if image["bits"] == 8 else np.uint16)
    corners = [(y, x) for y in range(0, height, edge) for x in range(0, width, edge)]
    tiles = []
    for number, (y, x) in enumerate(corners):
        strings = [strings[number] for strings in top["strings"][:layers]]
        h, w = min(edge, height - y), min(edge, width - x)
        tile = Tile(h, w, planes, basis, top["blocks"][number], strings)
        pixels[y : y + h, x : x + w] = tile_pixels(tile, top["step"], image["bits"])
        tiles.append(tile)
    return (pixels if planes == 3 else pixels[:, :, 0]), tiles


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        np.save(sys.argv[3], decode(file.read(), sys.argv[2])[0])
