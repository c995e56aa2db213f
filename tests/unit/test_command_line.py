"""The command `femto`: help, verbs, completion, exit statuses."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import femto
from femto import __main__ as command
from femto.cli import options
from femto.cli.completion import script_of
from femto.container import BELIEVED_PIXELS

HEAVY = {"numpy", "numba", "PIL", "pyspark", "femto.codec", "femto.container", "femto.pictures"}


def run(*words: str, **more) -> subprocess.CompletedProcess:
    """`python -m femto` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "femto", *words], capture_output=True, text=True, **more
    )


@pytest.fixture
def path(repository, monkeypatch):
    """Processes find the femto of this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(repository / "femto_job"))


@pytest.fixture
def archive(tmp_path):
    """An archive of several layers."""
    random = np.random.default_rng(1)
    pixels = np.add.outer(np.arange(90), 2 * np.arange(120)) % 256 + random.normal(0, 9, (90, 120))
    path = tmp_path / "photo.laff.gz"
    path.write_bytes(femto.encode(pixels.clip(0, 255).astype(np.uint8), source="photo.png"))
    return path


@pytest.mark.parametrize("verb", [[], *([name] for name in command.VERBS)])
def test_help_imports_nothing_heavy(path, verb):
    code = (
        "import sys\n"
        "from femto.__main__ import main\n"
        "try:\n"
        f"    main([*{verb!r}, '--help'])\n"
        "except SystemExit as end:\n"
        f"    print(end.code, sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stdout.startswith(f"usage: {' '.join(['femto', *verb])} ")


def test_version_and_the_command_that_pip_installs(path, repository):
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"femto {femto.__version__}\n")
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    (entry,) = re.findall(r'^\[project\.scripts\]\nfemto = "(.*)"$', project, re.MULTILINE)
    module, _, name = entry.partition(":")
    assert getattr(sys.modules[module], name) is command.main


def test_the_limit_that_help_tells_is_that_of_the_container():
    assert options.MAX_PIXELS == BELIEVED_PIXELS


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "VERB"),
        (["compact"], "invalid choice: 'compact'"),
        (["compress", "--fast"], "--fast"),
        (["compress", "nowhere", "out"], "nowhere: no such folder"),
        (["compress", "--range", "2", "1"], "--range is two numbers"),
        (["decompress"], "ARCHIVE"),
        (["decompress", "photo.laff.gz", "--master", "local"], "--master goes with one folder"),
        (["verify"], "ARCHIVE"),
        (["verify", "photo.laff.gz", "--manifest"], "--manifest goes with folders"),
        (["verify", "photo.laff.gz", "--basis", "no.basis"], "there is no such file"),
        (["truncate", "photo.laff.gz", "-o", "x.laff.gz"], "--nbytes"),
        (["truncate", "photo.laff.gz", "-o", "photo.laff.gz", "--layers", "1"], "is there already"),
        (["truncate", "no.laff.gz", "-o", "x.laff.gz", "--layers", "1"], "no.laff.gz"),
        (["truncate", "photo.laff.gz", "-o", "no/x.laff.gz", "--layers", "1"], "cannot be written"),
        (["thumbnail", "photo.laff.gz"], "OUT"),
        (["thumbnail", "no.laff.gz", "x.png"], "no.laff.gz: cannot be read"),
        (["thumbnail", "photo.laff.gz", "x.png", "--size", "0"], "--size"),
        (["thumbnail", "photo.laff.gz", "photo.laff.gz"], "is there already"),
        (["thumbnail", "photo.laff.gz", "."], "is a folder"),
        (["thumbnail", "photo.laff.gz", "no/x.png"], "no/x.png: cannot be written"),
        (["features", "nowhere", "-o", "x.parquet"], "nowhere: no such folder"),
        (["train", "-o", "x.basis"], "name the folder"),
        (["compress"], "images: no such folder"),
        (["train", "nowhere", "-o", "x.basis"], "nowhere: no such folder"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_wrong_words_are_one_line_and_status_2(archive, monkeypatch, capsys, words, told):
    monkeypatch.chdir(archive.parent)
    try:
        status = command.main(words)
    except SystemExit as end:
        status = end.code
    error = capsys.readouterr().err
    assert status == 2 and told in error and len(error.splitlines()) == 1
    assert error.startswith("femto")
    assert [path.name for path in archive.parent.iterdir()] == ["photo.laff.gz"]


def test_decompress_and_info_are_the_decompressor(archive, monkeypatch, capsys):
    monkeypatch.chdir(archive.parent)
    assert command.main(["decompress", "photo.laff.gz", "-o", "out.png"]) == 0
    assert capsys.readouterr().out == "out.png\n"
    assert command.main(["info", "photo.laff.gz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["width"] == 120
    assert command.main(["info", "photo.laff.gz", "none.laff.gz"]) == 1
    said = capsys.readouterr()
    assert "120 x 90 pixels" in said.out and said.err.startswith("femto info: none.laff.gz: ")


def test_several_archives_are_handed_to_processes(archive, monkeypatch, capsys):
    monkeypatch.chdir(archive.parent)
    shutil.copy(archive, "second.laff.gz")
    assert command.main(["decompress", "photo.laff.gz", "second.laff.gz", "-o", "out"]) == 0
    assert capsys.readouterr().out == "out/photo.png\nout/second.png\n"


@pytest.mark.parametrize("kept", [{"layers": 2}, {"fraction": 0.5}, {"nbytes": 2000}])
def test_truncate_keeps_the_first_layers(archive, tmp_path, kept, capsys):
    shorter = tmp_path / "shorter.laff.gz"
    ((name, value),) = kept.items()
    words = ["truncate", str(archive), "-o", str(shorter), f"--{name}", str(value)]
    assert command.main(words) == 0
    assert shorter.read_bytes() == femto.truncate(archive, **kept)
    told = f"{len(shorter.read_bytes()):,} of {archive.stat().st_size:,} bytes"
    assert told in capsys.readouterr().out
    assert command.main([*words, "--overwrite"]) == 0


BASH = """
eval "$COMPLETION"
complete -p femto | grep -q -- "-F _femto" || exit 3
try() { COMP_WORDS=(femto "$@"); COMP_CWORD=$#; _femto; echo "${COMPREPLY[*]}"; }
try comp
try compress --str
try compress --effort ""
try decompress --format t
try --v
try compress pho
try completion ""
"""


def test_completion_in_bash(path):
    script = run("completion", "bash", check=True).stdout
    done = subprocess.run(
        ["bash", "-c", BASH],
        env=os.environ | {"COMPLETION": script},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "compress completion",
        "--strip-metadata --strict",
        "full fast",
        "tif",
        "--version",
        "",
        "bash zsh",
    ]


def test_completion_in_zsh(path, tmp_path):
    """A zsh with a terminal, keys pressed."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not here")
    (tmp_path / "femto.zsh").write_text(run("completion", "zsh", check=True).stdout)
    (tmp_path / "a picture.laff.gz").touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"TERM": "dumb"})
    shown = ""

    def until(text: str) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([terminal], [], [], 600)[0], shown
            shown += os.read(terminal, 1 << 16).decode()
        shown = ""

    try:
        os.write(terminal, b"PROMPT='rea''dy> '; autoload -U compinit; compinit -u -D\n")
        until("ready> ")
        os.write(terminal, b"source ./femto.zsh; echo load''ed=$?\n")
        until("loaded=0")
        for keys, completed in (
            ("femto trunc\t", "femto truncate "),
            ("femto compress --strip\t", "femto compress --strip-metadata "),
            ("femto compress --effort fu\t", "femto compress --effort full "),
            ("femto info a\t", "femto info a\\ picture.laff.gz "),
        ):
            os.write(terminal, keys.encode())
            until(completed)
            os.write(terminal, b"\x15\n")  # nothing of it is run
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_completion_knows_every_option():
    parser, verbs = command.command_line()
    script = script_of(parser, verbs)
    for verb, own in verbs.items():
        (line,) = re.findall(rf'^ +"{verb}"\) options="(.*)" ;;$', script, re.MULTILINE)
        told = re.findall(r"--[a-z][a-z-]+", own.format_help())
        assert set(told) <= set(line.split()), verb
