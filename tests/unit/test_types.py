"""The public interface as a typed program uses it.

mypy checks this file strictly (./test.sh): what `assert_type` names is what it infers, and a
mistake that it does not find leaves its `type: ignore` unused, which is an error too. Pytest runs
it: what is inferred is what comes.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import assert_type

import femto
from femto import pictures

IMAGE: NDArray[Any] = np.add.outer(np.arange(24), 2 * np.arange(40)).astype(np.uint8)


class Windows:
    """A picture that gives windows, as `femto.encode` takes it beside arrays."""

    shape = IMAGE.shape
    dtype = IMAGE.dtype

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        return IMAGE[window]


def test_archives_are_bytes_and_pictures_arrays(tmp_path: Path) -> None:
    archive = femto.encode(IMAGE, quality=75, metadata={"note": "a"}, threads=2)
    assert_type(archive, bytes)
    assert isinstance(archive, bytes)
    assert femto.encode(Windows(), quality=75, metadata={"note": "a"}) == archive
    path = tmp_path / "a.laff.gz"
    path.write_bytes(archive)
    pixels = femto.decode(path, region=(0, 8, 16, 16), layers=4)
    assert_type(pixels, NDArray[Any])
    assert pixels.shape == (16, 16)
    bands = femto.decode_bands(str(path))
    assert_type(bands, Iterator[tuple[int, NDArray[Any]]])
    assert [(y, band.shape) for y, band in bands] == [(0, IMAGE.shape)]
    arriving = femto.decode_layers(io.BytesIO(archive))
    assert_type(arriving, Iterator[NDArray[Any]])
    assert (list(arriving)[-1] == femto.decode(bytearray(archive))).all()
    shorter = femto.truncate(path, nbytes=300)
    assert_type(shorter, bytes)
    assert len(shorter) < len(archive)


def test_what_is_told_of_an_archive() -> None:
    archive = femto.encode(IMAGE, icc=b"", source="a.png")
    parsed = femto.parse(archive)
    assert_type(parsed, femto.Archive)
    assert isinstance(parsed, femto.Archive)
    assert_type(parsed.header.levels.high, int)
    assert parsed.header.levels.high == 255
    about = femto.info(parsed)
    assert_type(about["width"], int)
    assert_type(about["source"], str | None)
    assert_type(about["metadata"], dict[str, Any] | None)
    assert set(about) == set(type_of_info())
    for key, kind in type_of_info().items():
        assert isinstance(about[key], kind), key  # type: ignore[literal-required]


def type_of_info() -> dict[str, Any]:
    """The keys that `femto.info` is declared to have, and the class of each."""
    from typing import get_args, get_origin, get_type_hints

    from femto.codec import Info

    def plain(kind: Any) -> Any:
        kinds = get_args(kind) if type(None) in get_args(kind) else (kind,)
        return tuple(get_origin(k) or k for k in kinds)

    return {key: plain(kind) for key, kind in get_type_hints(Info).items()}


def test_features_of_an_archive(tmp_path: Path) -> None:
    archive = femto.encode(IMAGE)
    found = femto.features(archive, components=3)
    assert_type(found, femto.Features)
    assert isinstance(found, femto.Features)
    assert_type(found.vector(2, colour=True), NDArray[Any])
    pytest.importorskip("sklearn")
    from femto.sklearn import LaffFeatures

    transformer = LaffFeatures(components=3, grid=2, basis=None).fit([archive])
    assert_type(transformer, LaffFeatures)
    assert_type(transformer.transform([archive]), NDArray[Any])
    assert (transformer.transform([archive])[0] == found.vector(2)).all()


def test_picture_files_are_arrays_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    written = pictures.write_picture(path, IMAGE, width=40, height=24, mode="L", bits=8)
    assert_type(written, bool)
    assert written
    (page,) = pictures.probe(path)
    assert_type(page, pictures.PageInfo)
    assert (page.width, page.height, page.levels) == (40, 24, None)
    with pictures.open_page(path) as reader:
        assert_type(reader, pictures.PictureReader)
        assert_type(reader[4:8, 10:20], NDArray[Any])
        assert (reader[4:8, 10:20] == IMAGE[4:8, 10:20]).all()
        assert femto.encode(reader) == femto.encode(IMAGE)


def test_bad_input_raises_the_one_error(tmp_path: Path) -> None:
    with pytest.raises(femto.LaffError) as caught:
        femto.decode(tmp_path / "none.laff.gz")
    assert_type(caught.value, femto.LaffError)


if TYPE_CHECKING:
    femto.encode("photo.png")  # type: ignore[arg-type]
    femto.encode(IMAGE, qualty=75)  # type: ignore[call-arg]
    femto.encode(IMAGE, 75)  # type: ignore[call-arg]
    femto.encode(IMAGE, range=(0, 1, 2))  # type: ignore[arg-type]
    femto.decode(b"", layers="first")  # type: ignore[arg-type]
    femto.decode(b"", region=(0, 0))  # type: ignore[arg-type]
    femto.decode(7)  # type: ignore[arg-type]
    femto.decode_layers("photo.laff.gz")  # type: ignore[arg-type]
    femto.info(b"")["with"]  # type: ignore[typeddict-item]
    print(femto.parse(b"").version)  # type: ignore[attr-defined]
    femto.truncate(b"", nbytes=0.5)  # type: ignore[arg-type]
    femto.features(b"", component=3)  # type: ignore[call-arg]
    pictures.open_page(7)  # type: ignore[arg-type]
    print(femto.encod)  # type: ignore[attr-defined]
