"""Which pictures a TIFF has: pages, planes of a stack, and what lies in trees of SubIFDs."""

import itertools
import math
import struct
from collections import Counter
from dataclasses import dataclass, replace

from ..errors import LaffError
from .common import MAX_PAGES, Source

# Series of tifffile whose planes have axes: its own files, OME-TIFF, ImageJ, MetaMorph.
_STACKS = frozenset(("shaped", "ome", "imagej", "stk"))
_UNKNOWN_AXES = frozenset("IQ")
_DNG_VERSION = 50706
# A sensor's pattern and linear RAW.
_RAW_PHOTOMETRIC = frozenset((32803, 34892))


@dataclass(frozen=True)
class Plane:
    """One picture of a TIFF, before its bands are chosen.

    page: tifffile's page that describes it; frame: its number among the planes that follow each
    other without a page of their own; label: by its axes, or None; split: whether its bands are
    channels of a stack, each a picture; notes: of what lies beside it and is not archived.
    """

    page: object
    frame: int = 0
    label: str | None = None
    split: bool = False
    notes: tuple[str, ...] = ()


def planes_of(source: Source, tif) -> list[Plane] | None:
    """The pictures of an open TIFF in their order; None if it is a camera's RAW file."""
    pages, offsets = [], set()
    for page in tif.pages:
        if page.offset in offsets:
            raise LaffError(f"{source.name}: its list of pages has no end; save it again")
        offsets.add(page.offset)
        if len(pages) >= MAX_PAGES:
            raise LaffError(f"{source.name}: more than {MAX_PAGES} pages; split the file")
        pages.append(page)
    if not pages:
        raise LaffError(f"{source.name}: has no page; the file is damaged: copy it again")
    trees = [_tree(page, offsets) for page in pages]
    if _DNG_VERSION in pages[0].tags or any(
        page.tags.valueof(262) in _RAW_PHOTOMETRIC for tree in trees for page in tree
    ):
        return None
    planes = _slide(tif, pages) or _stack(source, tif, trees) or _plain(trees)
    if len(planes) > MAX_PAGES:
        raise LaffError(f"{source.name}: more than {MAX_PAGES} pictures; split the file")
    return planes


def _tree(page, offsets: set[int]) -> list:
    """A page and the pages of its SubIFDs, as deep as they go."""
    found = [page]
    for parent in found:
        if not parent.subifds or len(found) > MAX_PAGES:
            continue
        try:
            children = list(parent.pages)
        except Exception:  # a damaged SubIFD: the page is as good as without
            continue
        for child in children:
            if child.offset not in offsets:
                offsets.add(child.offset)
                found.append(child)
    return found


def _size(page) -> int:
    return int(page.imagewidth) * int(page.imagelength)


def _is_mask(page) -> bool:
    return bool(page.is_mask) or page.tags.valueof(262) == 4


def _is_thumbnail(page) -> bool:
    """Marked as a smaller version, or a thumbnail as EXIF keeps it: JPEG beside the strips."""
    return bool(page.is_reduced) or (513 in page.tags and not page.dataoffsets)


def _plain(trees: list[list]) -> list[Plane]:
    """A picture for every page, thumbnails, pyramid levels and masks left out if there is more.

    Of a tree of SubIFDs the largest picture is the page: some writers keep a thumbnail above it.
    """
    chosen = []
    for tree in trees:
        pictures = [page for page in tree if not _is_mask(page)] or tree
        pictures = [page for page in pictures if not _is_thumbnail(page)] or pictures
        chosen.append(max(pictures, key=_size))
    kept = [i for i, page in enumerate(chosen) if not (_is_thumbnail(page) or _is_mask(page))]
    kept = kept or [i for i, page in enumerate(chosen) if not _is_mask(page)] or [0]
    left = set(range(len(chosen))).difference(kept)
    beside = [chosen[i] for i in sorted(left)]
    planes = []
    for i in kept:
        others = [page for page in trees[i] if page is not chosen[i]] + beside
        planes.append(Plane(chosen[i], notes=_left_out(others) + _layers(chosen[i])))
        beside = []
    return planes


def _slide(tif, pages: list) -> list[Plane] | None:
    """Of a microscope's slide the largest level of its pyramid, one or more focal planes of it;
    None if it is no slide. Their pages do not say that they are reduced versions."""
    if tif.is_ndpi:
        # Of the macro picture and the map the magnification is negative.
        power = [_magnification(page) for page in pages]
        largest = [page for page, it in zip(pages, power, strict=True) if it == max(power) > 0]
    elif tif.is_svs and pages[0].is_tiled:
        largest = [
            p for p in pages if p.is_tiled and not p.is_reduced and p.shape == pages[0].shape
        ]
    elif tif.is_philips and pages[0].is_tiled:
        largest = pages[:1]
    else:
        largest = pages[:1] if _is_pyramid(pages) else []
    if not largest:
        return None
    width = len(str(len(largest)))
    planes = [
        Plane(page, label=f"z{z:0{width}}" if len(largest) > 1 else None)
        for z, page in enumerate(largest, 1)
    ]
    others = len(pages) - len(largest)
    if others:
        what = "thumbnails or pyramid levels" if others > 1 else "thumbnail or pyramid level"
        planes[0] = replace(planes[0], notes=(f"{others} {what} not archived",))
    return planes


def _magnification(page) -> float:
    value = page.tags.valueof(65421)
    return float(value) if isinstance(value, int | float) else 0.0


def _is_pyramid(pages: list) -> bool:
    """Whether tiled pages are each the half or the quarter of the one before, at least twice."""
    if len(pages) < 3 or not all(page.is_tiled and not page.subifds for page in pages):
        return False
    kind = {(p.tilewidth, p.tilelength, p.samplesperpixel, str(p.bitspersample)) for p in pages}
    steps = [
        _halvings(large.imagewidth, small.imagewidth)
        & _halvings(large.imagelength, small.imagelength)
        for large, small in itertools.pairwise(pages)
    ]
    return len(kind) == 1 and all(steps)


def _halvings(large: int, small: int) -> set[int]:
    """Of 2 and 4, those by which one length may have become the other."""
    return {by for by in (2, 4) if small in (large // by, -(-large // by), round(large / by))}


def _left_out(pages: list) -> tuple[str, ...]:
    counts = Counter(
        "mask" if _is_mask(p) else "thumbnail or pyramid level" if _is_thumbnail(p) else "picture"
        for p in pages
    )
    plural = {"mask": "masks", "picture": "pictures in SubIFDs"}
    plural["thumbnail or pyramid level"] = "thumbnails or pyramid levels"
    singular = {"picture": "picture in a SubIFD"}
    return tuple(
        f"{n} {singular.get(kind, kind) if n == 1 else plural[kind]} not archived"
        for kind, n in sorted(counts.items())
    )


def _layers(page) -> tuple[str, ...]:
    """How many layers Photoshop keeps beside the picture (tag ImageSourceData)."""
    data = page.tags.valueof(37724)
    if not isinstance(data, bytes):
        return ()
    for key, order in ((b"8BIMLayr", ">"), (b"MIB8ryaL", "<"), (b"8BIMLr16", ">")):
        at = data.find(key)
        if at >= 0 and len(data) >= at + 14:
            count = abs(struct.unpack_from(order + "h", data, at + 12)[0])
            if count:
                return (
                    f"{count} layer{'s' if count > 1 else ''} not archived, but what they show",
                )
    return ()


def _stack(source: Source, tif, trees: list[list]) -> list[Plane] | None:
    """The planes of a file whose metadata name their axes; None if it is no such file."""
    pages = [tree[0] for tree in trees]
    if not (tif.is_shaped or tif.is_ome or tif.is_imagej or tif.is_stk):
        return None
    try:
        series = [s for s in tif.series if s.kind in _STACKS and s.keyframe is not None]
    except Exception:  # metadata that contradict each other: pages are pages
        series = []
    if not series:
        _check_imagej(source, tif, len(pages))
        return None
    trees_at = {page.offset: tree for page, tree in zip(pages, trees, strict=True)}
    order = {page.offset: number for number, page in enumerate(pages)}
    stacks = []
    for one in series:
        lead = _leading(one)
        if lead is None or one.keyframe.offset not in order:
            return None
        # A page may hold the channels as its bands.
        split = one.kind in ("ome", "imagej") and not {"C", "S"}.isdisjoint(lead[2])
        split = split and one.keyframe.tags.valueof(262) in (0, 1)
        if (split or math.prod(lead[1]) > 1) and not _is_thumbnail(one.keyframe):
            stacks.append((one, lead[0], lead[1], split))
    if not stacks:
        return None
    planes, used, missing = [], set(), 0
    for number, (one, axes, shape, split) in enumerate(stacks, 1):
        prefix = f"s{number:0{len(str(len(stacks)))}}" if len(stacks) > 1 else ""
        count, keyframe, listed = math.prod(shape), one.keyframe, list(one.pages)
        if count > MAX_PAGES:
            raise LaffError(f"{source.name}: more than {MAX_PAGES} pictures; split the file")
        under_one = len(listed) == 1 and count > 1
        if under_one and int(keyframe.compression) != 1:
            raise LaffError(
                f"{source.name}: keeps {count} compressed pictures under one page; save it as a "
                "multi-page TIFF"
            )
        if not under_one and len(listed) != count:
            return None
        for index in range(count):
            label = _label(axes, shape, index)
            page = keyframe if under_one else listed[index]
            if page is None:
                missing += 1
                continue
            if page.offset not in order:
                return None
            used.add(page.offset)
            tree = trees_at[page.offset]
            notes = _left_out(tree[1:]) if index == 0 or not under_one else ()
            frame = index if under_one else 0
            planes.append(Plane(tree[0], frame, prefix + (label or "") or None, split, notes))
        if under_one and len(stacks) == 1 and one.kind == "imagej":
            used.update(order)  # further pages describe the same planes
    rest = [tree for page, tree in zip(pages, trees, strict=True) if page.offset not in used]
    beside = [tree for tree in rest if _is_thumbnail(tree[0]) or _is_mask(tree[0])]
    planes += (
        _plain([tree for tree in rest if tree not in beside]) if len(rest) > len(beside) else []
    )
    planes.sort(key=lambda plane: order.get(plane.page.offset, len(order)))
    notes = _left_out([page for tree in beside for page in tree])
    if missing:
        notes += (f"{missing} planes are in other files or missing",)
    if planes:
        planes[0] = replace(planes[0], notes=planes[0].notes + notes)
    if len({plane.label for plane in planes}) < len(planes):
        planes = [replace(plane, label=None) for plane in planes]
    return planes or None


def _check_imagej(source: Source, tif, pages: int) -> None:
    """Refuse a stack of which most is not there: tifffile says nothing of it."""
    images = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
    if isinstance(images, int) and images > pages:
        raise LaffError(
            f"{source.name}: an ImageJ stack of {images} images that holds fewer, it is cut short "
            "or compressed; copy it again, or save it as a multi-page TIFF"
        )


def _leading(series) -> tuple[str, tuple[int, ...], str] | None:
    """The axes of a series that count its planes, their lengths, and the axes within a plane."""
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    size = math.prod(series.keyframe.shape)
    at, product = len(axes), 1
    while at > 0 and (product < size or not {"Y", "X"} <= set(axes[at:])):
        at -= 1
        product *= shape[at]
    if product != size:
        return None
    within = "".join(a for a, n in zip(axes[at:], shape[at:], strict=True) if n > 1)
    return axes[:at], tuple(map(int, shape[:at])), within


def _label(axes: str, shape: tuple[int, ...], index: int) -> str | None:
    """A plane's place on the axes that are longer than one, from 1: "t02z5"; None if unknown."""
    places = []
    for axis, length in zip(reversed(axes), reversed(shape), strict=True):
        index, place = divmod(index, length)
        if length > 1:
            places.append((axis, f"{axis.lower()}{place + 1:0{len(str(length))}}"))
    if all(axis in _UNKNOWN_AXES for axis, _ in places):
        return None
    return "".join(text for _, text in reversed(places))
