"""tests/README.md: every guarantee beside the test that proves it."""

import ast
import re

import pytest


@pytest.fixture(scope="module")
def tests(repository) -> dict[str, set[str]]:
    """File below tests/ -> its tests."""
    folder = repository / "tests"
    return {
        path.relative_to(folder).as_posix(): {
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
        for path in folder.rglob("test_*.py")
    }


@pytest.fixture(scope="module")
def named(repository) -> dict[str, set[str]]:
    """File -> the tests that the page names below the file's name."""
    text = (repository / "tests" / "README.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^(?=`\w+/test_\w+\.py`)", text, flags=re.MULTILINE)[1:]:
        name, names = section[1:].split("`", 1)
        assert name not in found, f"{name} comes twice"
        found[name] = set(re.findall(r"`(test_\w+)`", names))
    return found


def test_every_file_of_tests_is_named(tests, named):
    assert set(tests) - set(named) == set(), "say in tests/README.md what these guarantee"
    assert set(named) - set(tests) == set(), "these files are gone"
    assert [name for name, found in named.items() if not found] == []


def test_every_test_that_is_named_exists(tests, named):
    gone = {name: found - tests.get(name, set()) for name, found in named.items()}
    assert {name: found for name, found in gone.items() if found} == {}
