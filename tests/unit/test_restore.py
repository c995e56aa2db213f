"""The decoder's restoration filter."""

import numpy as np
import pytest

from femto.basis.bases import load_basis
from femto.coding import restore
from femto.coding.blocks import CELL, Layout


def tile(height, width, planes=3, *, seed=0, amplitude=30.0):
    """A tile with edges, texture and block sizes of all kinds: planes, sizes, layout."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    out = [
        amplitude * np.sin((x * np.cos(p + seed) + y * np.sin(p + seed)) / 3)
        + amplitude * ((x // 7 + y // 5) % 2)
        + rng.normal(0, amplitude / 10, (height, width))
        for p in range(planes)
    ]
    layout = Layout(height, width, planes)
    sizes = layout.no_sizes()
    for kind in range(2):
        for row in range(0, layout.super_rows):
            for column in range(0, layout.super_columns):
                size = rng.integers(0, 3)
                cells = layout.origin + 4 * row * layout.stride + 4 * column
                for i in range(4):
                    sizes[kind, cells + i * layout.stride : cells + i * layout.stride + 4] = size
    return np.array(out, np.float32), sizes, layout


def random_table(seed=0) -> restore.Table:
    """Every class and every feature with a weight of its own."""
    rng = np.random.default_rng(seed)
    return restore.Table(
        *rng.integers(-200, 201, (2, restore.CLASSES, restore.FEATURES)).astype(np.int16)
    )


def reference(planes, sizes, layout, steps, table):
    """The filter as its module describes it, pixel by pixel, in double precision."""
    _, height, width = planes.shape
    group = restore.GROUP

    def at(p, y, x):
        return float(planes[p, min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    def tensor(p, y, x):
        gx, gy = at(p, y, x + 1) - at(p, y, x - 1), at(p, y + 1, x) - at(p, y - 1, x)
        second = abs(2 * at(p, y, x) - at(p, y, x - 1) - at(p, y, x + 1))
        second += abs(2 * at(p, y, x) - at(p, y - 1, x) - at(p, y + 1, x))
        return np.array([second, gx * gx, gy * gy, gx * gy])

    def pairs(p, y, x, taps, limits, step):
        for limit in limits:
            for dy, dx in taps:
                ends = [at(p, y + dy, x + dx), at(p, y - dy, x - dx)]
                yield sum(np.clip(np.array(ends) - at(p, y, x), -limit * step, limit * step))

    out = np.empty(planes.shape)
    rows, columns = -(-height // group), -(-width // group)
    for p in range(len(planes)):
        step, kind = steps[p], min(p, 1)
        sums = np.zeros((rows, columns, 4))
        for y in range(group * rows):
            for x in range(group * columns):
                sums[y // group, x // group] += tensor(p, y, x)
        padded = np.pad(sums, ((1, 1), (1, 1), (0, 0)), mode="edge")
        for y in range(height):
            for x in range(width):
                i, j = y // group, x // group
                activity, xx, yy, xy = padded[i : i + 3, j : j + 3].sum((0, 1))
                pixels = 9 * group * group
                level = np.sum(activity / pixels / step >= restore.ACTIVITIES)
                direction = 0
                floor = 1e-4 * step**2 * pixels
                coherence = np.hypot(xx - yy, 2 * xy) / (xx + yy + floor)
                if coherence > restore.COHERENCES[0]:
                    direction = 1 + round(np.arctan2(2 * xy, xx - yy) / (np.pi / 4)) % 8
                    direction += 8 * (coherence > restore.COHERENCES[1])
                cell = layout.origin + y // CELL * layout.stride + x // CELL
                side = CELL << sizes[kind, cell]
                near = [min(v % side, side - 1 - v % side, restore.FAR) for v in (y, x)]
                place = near[0] * (restore.FAR + 1) + near[1]
                features = list(pairs(p, y, x, restore.TAPS, restore.LIMITS, step))
                row = (level * restore.DIRECTIONS + direction) * restore.PLACES + place
                weights = table[kind][row] / restore.WEIGHT_ONE
                out[p, y, x] = at(p, y, x) + np.dot(weights, features)
    return out


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (40, 71)])
@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("scale", [1, 257])
def test_the_kernel_does_what_the_description_says(shape, planes, scale):
    decoded, sizes, layout = tile(*shape, planes, seed=sum(shape), amplitude=30.0 * scale)
    steps = [20.0 * scale, 24.0 * scale, 26.0 * scale][:planes]
    table = random_table()
    got = restore.restore(decoded, sizes, layout, steps, table)
    assert got.dtype == np.float32
    assert got.shape == decoded.shape
    expected = reference(decoded, sizes, layout, steps, table)
    wrong = np.abs(got - expected) > 1e-3 * scale
    # Rounding decides the class of a pixel that lies exactly between two.
    assert wrong.mean() < 0.005
    if decoded[0].size > 1:
        assert np.abs(expected - decoded).mean() > 0.1 * scale


def test_a_flat_tile_stays_as_it_is():
    layout = Layout(50, 70, 3)
    sizes = layout.no_sizes()
    sizes[:] = 1
    planes = np.full((3, 50, 70), 37.25, np.float32)
    for table in (random_table(), load_basis("photo").restoration):
        assert (restore.restore(planes, sizes, layout, [9, 10, 11], table) == planes).all()


def test_equal_input_gives_equal_output_and_is_not_changed():
    planes, sizes, layout = tile(61, 77)
    kept = planes.copy()
    first = restore.restore(planes, sizes, layout, [15, 18, 18], load_basis("photo").restoration)
    again = restore.restore(planes, sizes, layout, [15, 18, 18], load_basis("photo").restoration)
    assert first.tobytes() == again.tobytes()
    assert (planes == kept).all()
    assert not (first == planes).all()


def test_a_tile_of_16_bits_is_filtered_as_one_of_8():
    """A power of two keeps float32 exact, so scaled input gives scaled output to the bit."""
    planes, sizes, layout = tile(45, 64)
    table = load_basis("photo").restoration
    small = restore.restore(planes, sizes, layout, [12, 14, 14], table)
    large = restore.restore(planes * 256, sizes, layout, [3072, 3584, 3584], table)
    assert (large == small * 256).all()


def test_a_colour_tile_has_the_luma_of_the_grey_one():
    planes, sizes, layout = tile(33, 40)
    table = random_table()
    grey = restore.restore(planes[:1], sizes, Layout(33, 40, 1), [12], table)
    assert (restore.restore(planes, sizes, layout, [12, 14, 14], table)[0] == grey[0]).all()


def quantised(seed: int, step: float, size: int, shape=(96, 128)):
    """An original tile, and what block-wise quantisation of its scores leaves of it."""
    from femto.coding.blocks import dct_matrix

    planes, sizes, layout = tile(*shape, 1, seed=seed)
    n = CELL << size
    sizes[:] = size
    matrix = dct_matrix(n)
    blocks = planes[0].reshape(shape[0] // n, n, shape[1] // n, n).transpose(0, 2, 1, 3)
    scores = np.rint(matrix @ blocks @ matrix.T / step) * step
    decoded = (matrix.T @ scores @ matrix).transpose(0, 2, 1, 3).reshape(1, *shape)
    return planes, decoded.astype(np.float32), sizes, layout, [step]


def learn(samples) -> restore.Table:
    equations = restore.no_equations()
    for sample in samples:
        restore.gather(equations, *sample)
    return restore.solve(equations, restore.no_weights())


def test_training_lowers_the_error_of_other_tiles_and_repeats_itself():
    samples = [quantised(seed, 20.0 + 5 * (seed % 3), seed % 2) for seed in range(8)]
    table = learn(samples)
    original, decoded, sizes, layout, steps = quantised(20, 25.0, 0)
    restored = restore.restore(decoded, sizes, layout, steps, table)
    assert ((restored - original) ** 2).mean() < 0.95 * ((decoded - original) ** 2).mean()
    again = learn(samples)
    assert all((a == b).all() for a, b in zip(table, again, strict=True))


def test_what_is_known_stays_as_far_as_nothing_else_is_seen():
    known = random_table()
    nothing = restore.solve(restore.no_equations(), known, trusted=1000)
    assert all((a == b).all() for a, b in zip(nothing, known, strict=True))
    equations = restore.no_equations()
    for seed in range(2):
        restore.gather(equations, *quantised(seed, 20.0, 0))
    zero = restore.no_weights()
    free, held = (restore.solve(equations, zero, trusted).luma for trusted in (0, 1e6))
    # Most classes saw nothing and have the weights of all together.
    assert np.median(np.abs(held)) < 0.2 * np.median(np.abs(free))


def test_weights_are_the_same_for_turned_pictures():
    """Training sees every picture transposed and mirrored too, so filtering a transposed tile
    is transposing the filtered one, up to rounding."""
    table = learn([quantised(seed, 20.0, seed % 2) for seed in range(4)])
    _, decoded, sizes, layout, steps = quantised(9, 20.0, 0, (64, 96))
    there = restore.restore(decoded, sizes, layout, steps, table)
    turned = Layout(96, 64, 1)
    sizes = turned.no_sizes()
    sizes[:] = 0
    swapped = np.ascontiguousarray(decoded.transpose(0, 2, 1))
    back = restore.restore(swapped, sizes, turned, steps, table).transpose(0, 2, 1)
    assert (np.abs(there - back) > 0.05).mean() < 0.01
    mirrored = np.ascontiguousarray(decoded[:, :, ::-1])
    back = restore.restore(mirrored, _all_small(layout), layout, steps, table)[:, :, ::-1]
    assert (np.abs(there - back) > 0.05).mean() < 0.01


def _all_small(layout):
    sizes = layout.no_sizes()
    sizes[:] = 0
    return sizes


def test_the_shipped_table_is_small_and_fits():
    table = load_basis("photo").restoration
    assert [t.shape for t in table] == [(restore.CLASSES, restore.FEATURES)] * 2
    assert all(t.dtype == np.int16 for t in table)
