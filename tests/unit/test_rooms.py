"""The rooms of femto: which may know of which."""

import ast
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "femto_job" / name for name in ("femto", "femto_spark", "pyspark_laff")]
SHARED = {"errors", "files", "samples"}
"""What every room may know of."""
KNOWS = {
    "errors": set(),
    "files": {"errors"},
    "samples": {"errors"},
    "tiles": set(),
    "pictures": SHARED,
    "container": SHARED | {"tiles"},
    "build": SHARED | {"coding"},
    "coding": SHARED | {"build"},  # what is not compiled is, when it is first called
    "display": {"container", "errors", "samples"},
    "target": {"coding", "container", "errors", "samples"},
}
"""What the rooms below `codec` know of, each beside itself: none of what decodes or runs jobs."""


def modules_of(folders: list[Path]) -> dict[str, Path]:
    """All modules of packages, by their names."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path) -> set[str]:
    """The names that a module imports, also within functions and for checkers of types alone."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found |= {f"{base}.{name.name}" for name in node.names}
    return found


def arrows_of(folders: list[Path]) -> dict[str, set[str]]:
    """Which of its modules each module of packages imports."""
    modules = modules_of(folders)
    arrows = {}
    for module, path in modules.items():
        arrows[module] = set()
        for name in imports_of(module, path):
            while name and name not in modules:
                name = name.rpartition(".")[0]  # what a module has, not a module
            arrows[module] |= {name} - {"", module}
    return arrows


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn; none if there are no such."""
    done: set[str] = set()

    def search(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module not in done:
            for other in sorted(arrows[module]):
                if circle := search(other, [*way, module]):
                    return circle
            done.add(module)
        return []

    return next(filter(None, (search(module, []) for module in sorted(arrows))), [])


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.fixture(scope="module")
def arrows():
    return arrows_of(PACKAGES)


@pytest.mark.parametrize("folders", [PACKAGES, [ROOT / "bench"]], ids=["femto", "bench"])
def test_no_modules_import_each_other(folders):
    arrows = arrows_of(folders)
    assert len(arrows) > 10
    assert circle_in(arrows) == []


@pytest.mark.parametrize("line", ["from ..codec import decode", "import femto.codec",
                                  "def show():\n    from .. import codec",
                                  "if TYPE_CHECKING:\n    from ..codec import Info"])  # fmt: skip
def test_a_circle_is_seen(tmp_path, line):
    package = tmp_path / "femto"
    (package / "container").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "container" / "__init__.py").write_text("from .archive import Archive\n")
    archive = package / "container" / "archive.py"
    archive.write_text("import os\n\nfrom ..errors import LaffError\n")
    (package / "errors.py").write_text("class LaffError(ValueError): ...\n")
    (package / "codec.py").write_text("from . import container\n")
    assert circle_in(arrows_of([package])) == []
    archive.write_text(f"{line}\n")
    circle = circle_in(arrows_of([package]))
    assert set(circle) == {"femto.codec", "femto.container", "femto.container.archive"}


@pytest.mark.parametrize("room", KNOWS)
def test_a_room_knows_of_those_below_it_alone(arrows, room):
    own = [module for module in arrows if room_of(module) == room]
    assert own
    for module in own:
        strange = {o for o in arrows[module] if room_of(o) not in KNOWS[room] | {room}}
        assert not strange, module


def test_femto_does_without_spark():
    """Only the command line hands jobs over to it."""
    for module, path in modules_of(PACKAGES[:1]).items():
        heads = {name.split(".")[0] for name in imports_of(module, path)}
        spark = heads & {"femto_spark", "pyspark", "pyspark_laff"}
        assert not spark or room_of(module) == "cli", module


def test_nothing_that_users_do_not_need_is_beside_the_rooms():
    """What `help(femto)` lists: rooms, and what is documented."""
    modules = {p.stem for p in PACKAGES[0].glob("*.py")} - {"__init__", "__main__"}
    assert modules == {
        "build", "codec", "display", "errors", "imageio", "numcodecs", "pillow", "samples",
        "sklearn", "target", "tiles", "zarr",
    }  # fmt: skip
