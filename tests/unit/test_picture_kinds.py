"""What becomes of each kind of file (picture_kinds.py), and that docs/PICTURES.md says so."""

import re

import numpy as np
import picture_kinds
import pytest
import tifffile
from picture_kinds import KINDS, Kind

from femto import LaffError
from femto.pictures import open_page, probe


def _id(kind: Kind) -> str:
    return f"{kind.family}: {kind.name}"


@pytest.mark.parametrize("kind", KINDS, ids=_id)
def test_what_becomes_of_it(kind, tmp_path):
    path = tmp_path / f"some{kind.suffix}"
    path.write_bytes(kind.make())
    if kind.refused is not None:
        with (
            pytest.raises(LaffError, match=kind.refused) as caught,
            open_page(path, **kind.options) as reader,
        ):
            reader[:, :]
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert ";" in str(caught.value), "a refusal names a remedy"
        return
    infos = probe(path, **kind.options)
    assert [info.error for info in infos] == [None] * len(kind.planes)
    assert tuple(i.label for i in infos) == (kind.labels or (None,) * len(infos))
    for number, right in enumerate(kind.planes):
        with open_page(path, number, **kind.options) as reader:
            pixels = reader[:, :]
            info = reader.info
            window = reader[3:40, 5:60]
        np.testing.assert_array_equal(window, pixels[3:40, 5:60])
        with open_page(path, number, place=infos[number].place, **kind.options) as reader:
            np.testing.assert_array_equal(reader[:, :], pixels)
            assert reader.info == info
        assert pixels.shape == reader.shape
        assert pixels.dtype == reader.dtype
        if right is not None:
            assert pixels.shape == right.shape
            assert np.abs(pixels.astype(int) - right).max() <= kind.tolerance
        if number == 0:
            notes = "; ".join(info.notes)
            assert re.search(kind.notes, notes) if kind.notes else not notes, notes
        if kind.mapping:
            mapping = info.mapping
            original = tifffile.imread(path)
            assert mapping["type"] == original.dtype.name
            again = pixels * mapping["slope"] + mapping["intercept"]
            # Half a level, and what the type itself rounds.
            allowed = abs(mapping["slope"]) / 2 + 1e-6 if abs(mapping["slope"]) != 1 else 0
            assert np.abs(again - original.astype(np.float64)).max() <= allowed
        else:
            assert info.mapping is None or "float" in info.mapping["type"]


def test_every_file_that_was_found_is_a_kind():
    made = {kind.make.__self__.name for kind in KINDS if hasattr(kind.make, "__self__")}
    files = {path.name for path in picture_kinds.FOUND.iterdir()} - {"right.npz"}
    # These two are about levels, not about reading; their tests are those of the codec.
    assert files - made == {"control_photo_8bit.tif", "u16_photon_counts.tif"}


def test_the_table_in_the_documentation_is_made_from_these_kinds():
    assert picture_kinds.table() in picture_kinds.PICTURES_MD.read_text(), (
        "stale: run python3 tests/unit/picture_kinds.py"
    )


def test_stacks_do_not_open_other_files(tmp_path, monkeypatch):
    """OME-TIFF may name further files, and a hostile one any file of the machine."""
    opened = []
    original = tifffile.TiffFile.__init__

    def watched(self, file, *args, **options):
        opened.append(file)
        original(self, file, *args, **options)

    tifffile.imwrite(tmp_path / "b.ome.tif", np.zeros((2, 9, 9), np.uint8), ome=True)
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        'OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder='
        '"XYZCT" Type="uint8" SizeX="9" SizeY="9" SizeZ="2" SizeC="1" SizeT="1">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1">'
        '<UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData><TiffData IFD="0" FirstZ="1" '
        'PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels></Image>'
        "</OME>"
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((9, 9), np.uint8), description=xml, metadata=None)
    monkeypatch.setattr(tifffile.TiffFile, "__init__", watched)
    (info,) = probe(path)
    assert info.error is None
    assert [file.name for file in opened] == [str(path)]
