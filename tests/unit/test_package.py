"""The package as such: what importing it costs, and where compiled code is kept."""

import json
import os
import re
import subprocess
import sys
import zipfile

import pytest

import femto


def run(code: str, **environment) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_in_nothing_heavy(repository):
    code = "import sys, femto; print(sorted({'numba', 'numpy', 'scipy', 'PIL'} & set(sys.modules)))"
    assert run(code, PYTHONPATH=str(repository / "femto_job")).strip() == "[]"


@pytest.mark.parametrize("program", ["compress", "decompressor", "restore", "train"])
def test_help_is_told_without_the_compiler(repository, program):
    """Nor is anything written for it, such as a folder for compiled code by root."""
    code = (
        f"import sys, {program}\n"
        f"sys.argv = ['{program}.py', '--help']\n"
        "try:\n"
        f"    {program}.main()\n"
        "except SystemExit:\n"
        "    print('numba' in sys.modules)\n"
    )
    assert run(code, PYTHONPATH=str(repository / "femto_job")).splitlines()[-1] == "False"


def test_nothing_compiles_at_import(repository):
    code = (
        "from femto import codec, contexts, entropy, kstrings, partition, bases, blocks, classes\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "found = [f for m in (contexts, entropy, kstrings, partition, bases, blocks, classes)\n"
        "         for f in vars(m).values() if isinstance(f, Dispatcher)]\n"
        "assert len(found) > 20\n"
        "print(sum(len(f.signatures) for f in found))\n"
    )
    assert run(code, PYTHONPATH=str(repository / "femto_job")).strip() == "0"


def test_features_stays_a_function(repository):
    code = "import femto, femto.feature_map, femto.feature_table; print(callable(femto.features))"
    assert run(code, PYTHONPATH=str(repository / "femto_job")).strip() == "True"


PUBLIC = {
    "Archive", "Features", "LaffError", "decode", "decode_bands", "decode_layers", "encode",
    "features", "info", "parse", "truncate",
}  # fmt: skip


def test_dir_and_help_show_what_users_need(repository):
    code = (
        "import json, pydoc, femto, femto.sklearn\n"
        "text = pydoc.render_doc(femto, renderer=pydoc.plaintext)\n"
        "print(json.dumps([dir(femto), text]))"
    )
    names, text = json.loads(run(code, PYTHONPATH=str(repository / "femto_job")))
    assert set(names) == PUBLIC | {"__version__"}
    sections = dict(re.findall(r"^([A-Z]+)\n((?:    .*\n|\n)+)", text, re.MULTILINE))
    functions = re.findall(r"^    (\w+)\(", sections["FUNCTIONS"], re.MULTILINE)
    classes = re.findall(r"^    class (\w+)\(", sections["CLASSES"], re.MULTILINE)
    assert set(functions) | set(classes) == PUBLIC
    assert "DATA" not in sections
    for name in functions:
        assert getattr(femto, name).__doc__.strip()
    with pytest.raises(AttributeError, match="'femto' has no attribute 'encod'"):
        femto.encod  # noqa: B018


CALL = """
import numpy as np
from femto import entropy
entropy.update_slot(np.zeros(1, np.int32), 0, 1, 255)
print(sum(entropy.update_slot.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("home", [True, False])
def test_compiled_code_is_cached_from_a_zip(repository, tmp_path, home):
    """A zip is how Spark brings the package to its workers; some have no home."""
    archive = tmp_path / "femto.zip"
    package = repository / "femto_job" / "femto"
    with zipfile.ZipFile(archive, "w") as z:
        for path in sorted(package.rglob("*")):
            if path.suffix in (".py", ".basis"):
                z.write(path, path.relative_to(package.parent))
    place = {"HOME": str(tmp_path)} if home else {"HOME": "/nonexistent", "TMPDIR": str(tmp_path)}
    assert run(CALL, PYTHONPATH=str(archive), **place).strip() == "0"
    assert run(CALL, PYTHONPATH=str(archive), **place).strip() == "1"
    # An equal copy elsewhere need not be compiled again.
    copy = archive.rename(tmp_path / "copy.zip")
    assert run(CALL, PYTHONPATH=str(copy), **place).strip() == "1"


def test_processes_that_compile_at_the_same_time_do_not_mix(repository, tmp_path):
    """Two that have read the list of files before either wrote it save what they compiled."""
    code = (
        "from pathlib import Path\n"
        "from unittest import mock\n"
        "import femto.jit as j\n"
        "caches = [j._Cache(run) for run in [lambda: 0] * 2]\n"
        "with mock.patch.object(j._Files, '_load_index', lambda self: {}):\n"
        "    for number, cache in enumerate(caches):\n"
        "        cache._cache_file.save(('types', number), number)\n"
        "print(caches[0]._cache_file.load(('types', 1)), len(list(Path(j._FOLDER).glob('*.nbc'))))"
    )
    place = {"PYTHONPATH": str(repository / "femto_job"), "NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(code, **place).strip() == "1 2"


def test_a_cache_folder_of_others_is_not_used(repository, tmp_path):
    """Cached code is executed: a folder that anyone may write to must be passed over."""
    trap = tmp_path / ".cache" / "femto"
    trap.mkdir(parents=True)
    trap.chmod(0o777)
    code = (
        "import os; from pathlib import Path; import femto.jit as j\n"
        f"print(j._private_folder(Path({str(trap)!r})))"
    )
    assert run(code, PYTHONPATH=str(repository / "femto_job")).strip() == "False"
