"""Which archives a folder has, and what their pictures are called."""

import os
from collections import Counter, defaultdict
from pathlib import Path

from ..files.folder import ARCHIVES, Found, LeftOut, find, folded


def find_archives(folder: Path, *, recursive: bool, skip: Path | None = None) -> Found:
    """The archives of a folder as `femto.files.folder.find` lists them. Raises OSError."""
    return find(folder, ARCHIVES, recursive=recursive, skip=skip)


def no_archives(left_out: LeftOut) -> str:
    """What is said of a folder without archives."""
    hint = left_out.hint("name a folder of .laff.gz or .laff files")
    return f"no archives in this folder: {hint}"


def stem(name: str) -> str:
    """An archive's name without .laff.gz or .laff."""
    for suffix in ARCHIVES:
        if name.lower().endswith(suffix) and len(os.path.basename(name)) > len(suffix):
            return name[: -len(suffix)]
    return name


def picture_names(archives: dict[str, str], suffix: str) -> dict[str, str]:
    """The name of every archive's picture below the output folder.

    `archives` are paths of archives, each with its place below the output folder, as `a/x.laff.gz`
    for a/x.png. Archives of one place from several folders keep as much of their folders' path as
    sets them apart; those of one folder (x.laff.gz and x.laff) keep their whole name but for the
    first, and become x.png and x.laff.png.
    """
    pictures = {path: stem(place) + suffix for path, place in archives.items()}
    for group in _alike(pictures):
        parents = {path: Path(os.path.abspath(path)).parent for path in group}
        if len(set(parents.values())) > 1:
            common = os.path.commonpath(list(parents.values()))
            for path, parent in parents.items():
                name = os.path.basename(pictures[path])
                pictures[path] = os.path.normpath(
                    os.path.join(os.path.relpath(parent, common), name)
                )
    for group in _alike(pictures):
        group.sort(key=lambda path: (not path.endswith(ARCHIVES[0]), path))
        for path in group[1:]:
            folder = os.path.dirname(pictures[path])
            pictures[path] = os.path.join(folder, os.path.basename(path) + suffix)
    return pictures


def _alike(pictures: dict[str, str]) -> list[list[str]]:
    """Groups of archives whose pictures some file system takes for one: case, composition."""
    counts = Counter(map(folded, pictures.values()))
    groups = defaultdict(list)
    if len(counts) < len(pictures):
        for path, name in pictures.items():
            if counts[folded(name)] > 1:
                groups[folded(name)].append(path)
    return list(groups.values())
