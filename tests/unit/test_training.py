"""Learning a basis from a folder of pictures."""

import numpy as np
import pytest

import femto
from femto import __main__ as command
from femto import pictures
from femto.basis import bases, training
from femto.coding import classes


def picture(seed: int, shape=(192, 256, 3)) -> np.ndarray:
    """Stripes in a direction of the seed's own, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    wave = np.sin((x * np.cos(seed) + y * np.sin(seed)) / 4) * 60
    image = 128 + wave[..., None] * [1, 0.9, 0.7] + rng.normal(0, 4, shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    for seed in range(8):
        image = picture(seed)
        pictures.write_picture(
            folder / f"{seed}.png", image, width=256, height=192, mode="RGB", bits=8
        )
    (folder / "broken.png").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("not a picture either")
    return folder


def train(*words) -> int:
    """`femto train --from-scratch`: the exit status."""
    return command.main(["train", "--from-scratch", *map(str, words)])


@pytest.fixture(scope="module")
def trained(folder):
    path = folder / "stripes.basis"
    assert train(folder, "-o", path, "--classes", "4") == 0
    return path


def test_a_trained_basis_works_and_suits_its_pictures(trained):
    image = picture(3, (160, 160, 3))
    own = femto.encode(image, psnr=36, basis=str(trained))
    shipped = femto.encode(image, psnr=36)
    trained.with_name("a.laff.gz").write_bytes(own)
    decoded = femto.decode(trained.with_name("a.laff.gz"))
    error = ((decoded.astype(float) - image) ** 2).mean()
    assert 10 * np.log10(255**2 / error) == pytest.approx(36, abs=0.1)
    assert femto.info(own)["basis"]["name"] == "stripes"
    assert len(own) < len(shipped)


def test_pictures_are_cut_off_the_grid_of_jpeg():
    """Block edges that a JPEG left at multiples of 8 lie in the middle of ours."""
    y, x = np.mgrid[0:203, 0:301]
    cut = training.off_grid(((y // 8 + x // 8) % 2).astype(np.uint8))
    assert cut.shape == (192, 296)
    assert (np.diff(cut[0].astype(int)).nonzero()[0] % 8 == 3).all()
    assert (np.diff(cut[::-1, 0].astype(int)).nonzero()[0] % 8 == 3).all()


def test_the_same_pictures_give_the_same_basis(folder, trained):
    again = folder / "again" / "stripes.basis"
    again.parent.mkdir()
    assert train(folder, "-o", again, "--classes", "4") == 0
    assert bases.read_basis(again).sha256 == bases.read_basis(trained).sha256


def test_broken_pictures_are_left_out_and_named(folder, trained, capsys):
    assert train(folder, "-o", trained, "--classes", "1") == 0
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if line.startswith("left out:")]
    assert "broken.png" in err
    assert "notes.txt" not in err
    assert bases.read_basis(trained).classes == 1
    with pytest.raises(SystemExit):
        train(folder, "-o", "x.basis", "--classes", "99")


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_folders_without_pictures_are_told(what, tmp_path, capsys):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    assert train(folder, "-o", tmp_path / "b.basis") == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert str(folder) in captured.err


def test_components_have_the_place_of_their_dominant_frequency():
    components, levels, prices = training.train_classes([picture(1), picture(2)], 3, iterations=2)
    assert components.shape == (3, 63, 63)
    assert levels.shape == (4, 63)
    assert prices.shape == (4,)
    for rows in bases.orthonormal(components):
        assert np.abs(rows @ rows.T - np.eye(63)).max() < 1e-9
        # Most of a component's weight lies near its own frequency.
        assert np.mean(np.abs(rows).argmax(axis=1) == np.arange(63)) > 0.3


def test_block_cost_agrees_with_a_plain_sum():
    """The looked-up cost beside the same thing in NumPy."""
    rng = np.random.default_rng(5)
    x = (rng.laplace(0, 2, (20, 63)) / (1 + np.arange(63) / 8)).astype(np.float32)
    levels = classes.levels_of(2 / (1 + np.arange(63) / 8))
    got = classes.patch_costs(x, np.ones(20), levels)
    for row, cost in zip(x, got, strict=True):
        sizes = np.floor(np.abs(row) + np.float32(0.4)).astype(int)
        at = np.clip(levels + classes.ZERO_LEVEL, 0, classes.LEVELS - 1)
        ratio = (sizes.sum() + 0.5) / (classes.EXPECTED[at].sum() + 0.5)
        gain = int(np.clip(np.rint(4 * np.log2(ratio)), -14, 14))
        last = int(np.flatnonzero(sizes)[-1]) + 1 if sizes.any() else 0
        at = np.clip(levels + classes.ZERO_LEVEL + gain, 0, classes.LEVELS - 1)[:last]
        assert sizes.max() < classes.SIZES
        expected = ((np.abs(row) - sizes) ** 2).sum() + 0.1 * classes.BITS[at, sizes[:last]].sum()
        assert cost == pytest.approx(expected, rel=0.02)
