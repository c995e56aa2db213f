"""Parts of a picture: only the tiles that they touch are read."""

import numpy as np
import pytest
from test_codec import scene

import femto
from femto import codec, container
from femto.basis import bases
from femto.container import reading

HEIGHT, WIDTH, TILE = 200, 330, 96
"""Three rows of four tiles, the last ones smaller."""


def tiled(image: np.ndarray, **more) -> bytes:
    """An archive of tiles of 96 pixels."""
    height, width = image.shape[:2]
    basis = bases.load_basis()
    coded = codec.Tiles(
        codec.encode_tile(image[t.y : t.y + t.height, t.x : t.x + t.width], step=9.0)
        for t in codec.tile_grid(height, width, TILE)
    )
    blocks, layers = coded.strings()
    mode = "L" if image.ndim == 2 else "RGB"
    return container.write(
        codec.ImageHeader(width, height, mode, 8 * image.itemsize, **more),
        basis_name=basis.name,
        basis_sha256=basis.sha256,
        step=9.0,
        tile=TILE,
        blocks=blocks,
        layers=layers,
    )


@pytest.fixture(scope="module")
def archive() -> bytes:
    return tiled(scene(HEIGHT, WIDTH))


REGIONS = {
    (0, 0, HEIGHT, WIDTH): range(12),
    (0, 0, 1, 1): {0},
    (95, 95, 1, 1): {0},
    (95, 95, 2, 2): {0, 1, 4, 5},
    (96, 0, 96, 96): {4},
    (150, 100, 50, 230): {5, 6, 7, 9, 10, 11},
    (199, 329, 1, 1): {11},
    (10, 300, 180, 1): {3, 7},
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("how", [{}, {"layers": 2}, {"fraction": 0.5}, {"threads": 3}])
def test_a_region_is_what_the_whole_has_there(archive, region, how):
    y, x, height, width = region
    whole = femto.decode(archive, **how)
    found = femto.decode(archive, region=region, **how)
    assert (found == whole[y : y + height, x : x + width]).all()
    assert found.shape == (height, width, 3) and found.dtype == whole.dtype
    bands = list(femto.decode_bands(archive, region=np.array(region), **how))
    assert [at for at, _ in bands] == [0, *np.cumsum([len(b) for _, b in bands])[:-1]]
    assert (np.concatenate([band for _, band in bands]) == found).all()


def test_regions_of_grey_and_of_other_numbers():
    image = scene(HEIGHT, WIDTH, 1)
    mapping = {"type": "float32", "slope": 0.25, "intercept": -7.0}
    archive = tiled(image, mapping=mapping)
    whole, region = femto.decode(archive), np.s_[90:120, 7:300]
    found = femto.decode(archive, region=(90, 7, 30, 293))
    assert found.dtype == np.float32 and (found == whole[region]).all()
    found = femto.decode(archive, region=(90, 7, 30, 293), samples=True)
    assert found.dtype == np.uint8 and (found == femto.decode(archive, samples=True)[region]).all()


@pytest.mark.parametrize("region, numbers", REGIONS.items())
def test_only_tiles_that_it_touches_are_read(archive, region, numbers, monkeypatch):
    unsealed, decoded = [], []

    def unseal(text, crc, layer, tile, real=reading.unseal):
        unsealed.append((layer, tile))
        return real(text, crc, layer, tile)

    def decode_tile(parsed, index, real=codec.decode_tile, **more):
        decoded.append(index)
        return real(parsed, index, **more)

    monkeypatch.setattr(reading, "unseal", unseal)
    monkeypatch.setattr(codec, "decode_tile", decode_tile)
    femto.decode(archive, region=region)
    assert sorted(decoded) == sorted(numbers)
    layers = femto.parse(archive).layers
    del unsealed[len(numbers) * (len(layers) + 1) :]  # what parse read just now
    assert sorted(unsealed) == sorted((k, n) for k in range(-1, len(layers)) for n in numbers)


def test_of_a_parsed_archive_too(archive):
    parsed = codec.parse(archive)
    whole = femto.decode(parsed)
    assert (femto.decode(parsed, region=(50, 60, 70, 80)) == whole[50:120, 60:140]).all()


@pytest.mark.parametrize(
    "region",
    [
        (-1, 0, 5, 5),
        (0, -1, 5, 5),
        (0, 0, 0, 5),
        (0, 0, 5, 0),
        (0, 0, -5, 5),
        (HEIGHT, 0, 1, 1),
        (0, WIDTH, 1, 1),
        (HEIGHT - 4, 0, 5, 5),
        (0, WIDTH - 4, 5, 5),
        (0, 0, 1 << 70, 1),
        (0, 0, 5),
        (0, 0, 5, 5, 5),
        (0, 0, 5.0, 5),
        ("0", 0, 5, 5),
        5,
        "0,0,5,5",
    ],
)
def test_regions_that_are_none_are_refused(archive, region):
    for door in (femto.decode, lambda *a, **k: next(femto.decode_bands(*a, **k))):
        for given in (archive, codec.parse(archive)):
            with pytest.raises(femto.LaffError, match=r"region .* y, x, height and width") as told:
                door(given, region=region)
            assert "\n" not in str(told.value)
