"""Which files are pictures, what their archives are called, how work is cut."""

import os
import tempfile
from pathlib import Path

import pytest

from femto.codec import tile_grid
from femto.files import folder
from femto.job import plan
from femto.job.catalog import Catalog
from femto.job.plan import Picture, Source
from femto.job.records import Records, append_record


def sized(name: str, pixels: int) -> Picture:
    return Picture(Source(name, 1, 1), 0, 1, pixels, 1, 3, 8, name + plan.SUFFIX, name)


@pytest.fixture
def bases(tmp_path):
    """A function: the base of every file's archives, from their names, the bases of earlier runs,
    archives of pictures that are gone, and the pages (numbers and labels) of some files."""

    def bases(*names, kept=(), taken=(), pages=()):
        with Records(Path(tempfile.mkdtemp(dir=tmp_path))) as records:
            for archive in taken:
                append_record(
                    records.output, {"archive": archive, "input": "/in", "picture": "gone"}
                )
            records.merge()
            with Catalog(records, "/in") as catalog:
                for number, name in enumerate(names, 1):
                    catalog.append(Source(name, 1, 1))
                    catalog.add_new(number, dict(kept).get(name))
                    found = dict(pages).get(name, [(0, None)])
                    catalog.add_pages(number, [{"page": p, "label": label} for p, label in found])
                catalog.name_archives()
                given = list(catalog.pages())
        return {source.name: named["base"] for _, source, _, named in given}

    return bases


def test_a_picture_keeps_its_stem(bases):
    assert bases("a.png", "b c.tif", "sub/ä.jpg") == {
        "a.png": "a",
        "b c.tif": "b c",
        "sub/ä.jpg": "sub/ä",
    }


def test_equal_stems_keep_their_full_names(bases):
    names = bases("a.png", "a.tif", "sub/a.png", "b.png")
    assert names == {"a.png": "a.png", "a.tif": "a.tif", "sub/a.png": "sub/a", "b.png": "b"}


@pytest.mark.parametrize("other", ["A.tif", "A\u0308.tif"])
def test_stems_that_some_file_systems_take_for_one_do_not_meet(bases, other):
    mine = "a.png" if other == "A.tif" else "\u00e4.png"
    assert bases(mine, other) == {mine: mine, other: other}


def test_a_name_once_given_stays_when_a_rival_is_added(bases):
    assert bases("a.png", "a.tif", kept={"a.png": "a"}) == {"a.png": "a", "a.tif": "a.tif"}
    assert bases("a.png", "a.tif", kept={"a.png": "a.png", "a.tif": "a.tif"})["a.png"] == "a.png"
    # and when its rivals are gone
    assert bases("a.png", kept={"a.png": "a.png"}) == {"a.png": "a.png"}


def test_the_archive_of_a_picture_that_is_gone_is_not_taken(bases):
    assert bases("a.tif", taken=["a.laff.gz"]) == {"a.tif": "a.tif"}


def test_a_full_name_pushes_away_a_stem_that_equals_it(bases):
    names = bases("a.png", "a.tif", "a.tif.png")
    assert len(set(names.values())) == 3
    assert names["a.tif.png"] == "a.tif.png"


def test_pages_get_numbers_and_do_not_meet_other_files(bases):
    pages = {"scan.tif": [(0, None), (1, None)]}
    names = bases("scan.tif", "scan.page-0002.png", pages=pages)
    archives = [plan.archive_name(names["scan.tif"], p, 2) for p in (0, 1)]
    archives.append(plan.archive_name(names["scan.page-0002.png"], 0, 1))
    assert len(set(archives)) == 3
    assert plan.archive_name("scan", 1, 3) == "scan.page-0002.laff.gz"


def test_naming_does_not_depend_on_the_order_of_the_files(bases):
    files = ["a.tif.png", "a.png", "a.tif", "b.png", "B.PNG"]
    assert bases(*files) == bases(*reversed(files))


def test_find(tmp_path):
    for name in ("b.PNG", "a.tif", ".hidden.png", "notes.txt", "sub/c.jpg", "out/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    flat = folder.find(tmp_path, {".png", ".tif", ".jpg"}, recursive=False)
    assert [s.name for s in flat.sources] == ["a.tif", "b.PNG"]
    assert flat.left_out.files.first == ["notes.txt"]
    assert [name for name, _ in flat.failed] == ["empty.png", "gone.png", "pipe.png"]
    deep = folder.find(tmp_path, {".png", ".tif", ".jpg"}, recursive=True, skip=tmp_path / "out")
    assert [s.name for s in deep.sources] == ["a.tif", "b.PNG", "sub/c.jpg"]


def test_what_is_left_out_is_counted_by_kind(tmp_path):
    names = ("a.png", "b.TXT", "c.txt", "README", "sub/d.xml", "sub/deep/e.png", ".cache/f.txt")
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "seen.png").write_bytes(b"x")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "sub" / "loop").symlink_to(tmp_path / "in")
    flat = folder.find(tmp_path / "in", {".png"}, recursive=False).left_out
    assert flat.kinds == {".txt": 2, "no extension": 1}
    assert (flat.linked.first, flat.folders.first) == (["linked"], ["sub"])
    found = folder.find(tmp_path / "in", {".png"}, recursive=True)
    deep = found.left_out
    assert [s.name for s in found.sources] == ["a.png", "sub/deep/e.png"]
    assert deep.kinds == {".txt": 2, "no extension": 1, ".xml": 1}
    assert (deep.linked.first, deep.folders.count) == (["linked", "sub/loop"], 0)
    # The output folder is not left out, it is the job's own.
    own = folder.find(tmp_path / "in", {".png"}, recursive=False, skip=tmp_path / "in" / "sub")
    assert not own.left_out.folders


def test_of_what_is_left_out_few_names_are_kept():
    left_out = folder.LeftOut()
    for i in range(20_000):
        left_out.add_file(f"{i}.{i}")
    assert len(left_out.files.first) == folder.LISTED
    assert len(left_out.kinds) == folder.KINDS + 1
    assert sum(left_out.kinds.values()) == left_out.files.count == 20_000


def test_largest_first_and_small_ones_together():
    pictures = [sized(f"small{i}", 4_000) for i in range(5_000)]
    pictures += [sized("large", 3_000_000), sized("larger", 5_000_000)]
    pictures.sort(key=lambda p: (-p.pixels, p.archive))
    groups = list(plan.group(iter(pictures), sum(p.cost for p in pictures), cores=4))
    assert [p.source.name for p in groups[0]] == ["larger"]
    assert [p.source.name for p in groups[1]] == ["large"]
    assert len(groups) < 200
    assert sum(map(len, groups)) == len(pictures)
    assert max(sum(p.cost for p in g) for g in groups[2:]) <= plan.TASK_PIXELS


def test_what_is_cut_follows_the_cores():
    one = 12_000_000
    assert one > plan.cut_limit(one, 8, None)
    assert one <= plan.cut_limit(100 * one, 8, None)
    assert plan.cut_limit(100 * one, 8, 0.5) == 500_000
    assert plan.cut_limit(10, 8, None) == plan.MIN_CUT_PIXELS


def test_tiles_are_grouped_along_their_rows():
    tiles = tile_grid(5000, 9000)
    groups = plan.group_tiles(tiles, cores=2)
    assert [t for g in groups for t in g] == tiles
    for group in groups:
        assert len({t.y for t in group}) == 1
        assert sum(t.height * t.width for t in group) <= max(plan.TASK_PIXELS, 1 << 20)


def test_where_strips_are_decoded_whole_a_row_of_tiles_is_one_task():
    tiles = tile_grid(3000, 60_000)
    strips, blocks = (64, 60_000), (512, 512)
    groups = plan.group_tiles(tiles, 2, strips)
    assert [t for g in groups for t in g] == tiles
    assert len(groups) == len({t.y for t in tiles}) == 3
    # With more cores than rows, a row is shared by as few of them as keeps all busy.
    groups = plan.group_tiles(tiles, 8, strips)
    assert [t for g in groups for t in g] == tiles
    assert len(groups) == 9 and all(len({t.y for t in g}) == 1 for g in groups)
    assert plan.group_tiles(tiles, 2, blocks) == plan.group_tiles(tiles, 2)
    assert max(map(len, plan.group_tiles(tiles, 2))) > 1


def test_names_fit_on_a_line():
    assert plan.printable("a b ü.png") == "a b ü.png"
    assert "\n" not in plan.printable("a\nb")
    assert plan.printable(os.fsdecode(b"\xff.png")).isprintable()
