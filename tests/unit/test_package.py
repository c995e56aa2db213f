"""The package as such: what importing it costs."""

import json
import os
import re
import subprocess
import sys

import pytest

import femto


def run(code: str, **environment) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("FEMTO_CACHE", "XDG_CACHE_HOME")}
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


def test_nothing_is_loaded_or_compiled_at_import(repository):
    code = (
        "import sys\n"
        "from femto import codec\n"
        "from femto.basis import bases\n"
        "from femto.coding import blocks, classes, contexts, entropy, kernels\n"
        "from femto.coding import partition, signatures\n"
        "assert len(signatures.KERNELS) > 10\n"
        "print(len(kernels._ROADS), sorted({'numba', 'llvmlite'} & set(sys.modules)))\n"
    )
    assert run(code, PYTHONPATH=str(repository / "femto_job")).strip() == "0 []"


def test_features_stays_a_function(repository):
    code = "import femto, femto.learning.feature_map; print(callable(femto.features))"
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
