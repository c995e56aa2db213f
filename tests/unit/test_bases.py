"""Basis files and the tables made from them."""

import json
import shutil

import numpy as np
import pytest

import femto
from femto.basis import bases
from femto.coding import model


@pytest.fixture(scope="module")
def photo():
    return bases.load_basis()


def test_rotations_are_orthonormal(photo):
    assert photo.classes > 1
    for matrix in photo.backward:
        assert np.abs(matrix @ matrix.T - np.eye(64)).max() < 1e-5
        assert (matrix[0, 1:] == 0).all()
        assert (matrix[1:, 0] == 0).all()


def test_edges_are_what_a_unit_score_draws(photo):
    """A plain NumPy reference for the border lines."""
    from femto.coding.blocks import ZIGZAG, dct_matrix

    cosines = dct_matrix(8)
    for c in (0, photo.classes - 1):
        for k in (1, 7, 40):
            block = np.zeros((8, 8))
            block[ZIGZAG[:, 0], ZIGZAG[:, 1]] = photo.backward[c, k]
            pixels = cosines.T @ block @ cosines
            lines = [pixels[:, 0], pixels[:, 7], pixels[0], pixels[7]]
            assert np.abs(photo.learned.value.edges[c, k] / 1024 - lines).max() < 3e-3


def test_a_saved_basis_is_the_same_basis(photo, tmp_path):
    path = tmp_path / "copy.basis"
    assert bases.save_basis(photo, path) == photo.sha256
    again = bases.read_basis(path)
    assert again.sha256 == photo.sha256
    assert (again.state == photo.state).all()
    image = np.add.outer(np.arange(60), np.arange(60)).astype(np.uint8)
    assert femto.encode(image, basis=str(path)) == femto.encode(image)


def test_an_archive_finds_its_basis_beside_it(own_basis, tmp_path):
    own = bases.read_basis(own_basis)
    image = np.add.outer(np.arange(60), np.arange(60)).astype(np.uint8)
    archive = femto.encode(image, basis=str(own_basis))
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "a.laff.gz"
    path.write_bytes(archive)
    with pytest.raises(femto.LaffError, match="needs the basis 'own'"):
        femto.decode(path)
    (tmp_path / "out" / "basis").mkdir()
    shutil.copy(own_basis, tmp_path / "out" / "basis")
    assert np.abs(femto.decode(path).astype(int) - image).max() < 20
    assert femto.info(path)["basis"] == {"name": "own", "sha256": own.sha256[:16]}


def test_damaged_basis_files_are_refused(photo, tmp_path):
    path = tmp_path / "b.basis"
    bases.save_basis(photo, path)
    good = path.read_bytes()
    for at in range(0, len(good), len(good) // 23):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            assert bases.read_basis(path).sha256 == photo.sha256
        except femto.LaffError as error:
            assert "b.basis" in str(error)
            assert "\n" not in str(error)
    for content in (b"", b"PK", good[: len(good) // 2], b"x" * 100, bytes(bases.MAX_FILE + 1)):
        path.write_bytes(content)
        with pytest.raises(femto.LaffError, match=r"b\.basis: .* basis file"):
            bases.read_basis(path)
    with path.open("wb") as file:
        np.save(file, photo.means)
    with pytest.raises(femto.LaffError, match="not a whole basis file"):
        bases.read_basis(path)
    for arrays in (
        {"header": np.frombuffer(b"[1]", np.uint8)},
        {"header": np.frombuffer(b"{}", np.uint8)},
        {"header": np.zeros(65 << 20, np.uint8)},
    ):
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        path.with_suffix(".npz").replace(path)
        with pytest.raises(femto.LaffError, match="basis file"):
            bases.read_basis(path)
    with pytest.raises(femto.LaffError, match="no such basis"):
        bases.read_basis(tmp_path / "none.basis")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_a_basis_of_another_version_is_refused(photo, tmp_path, version):
    path = tmp_path / "b.npz"
    bases.save_basis(photo, path)
    with np.load(path) as npz:
        arrays = dict(npz)
    header = json.loads(arrays.pop("header").tobytes()) | {"version": version}
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    with pytest.raises(femto.LaffError, match=f"version {version!r} .*the femto that trained it$"):
        bases.read_basis(path)


def test_the_state_survives_packing():
    state = model.fresh_state()
    again = bases.unpack_state(bases.pack_state(state))
    assert (again == state).all()
