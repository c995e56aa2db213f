"""The roles as a collection, femto.cluster: built, installed without a network, found by name."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("ansible")


def ansible(command: str, *arguments, folder: Path) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name(command), *arguments],
        cwd=folder,
        env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": f"{folder}/installed", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(repository, tmp_path_factory):
    """A folder with the collection's archive."""
    folder = tmp_path_factory.mktemp("collection")
    ansible(
        "ansible-galaxy", "collection", "build", "--output-path", folder, repository, folder=folder
    )
    return folder


def test_it_holds_what_the_roles_need_and_nothing_else(folder):
    (archive,) = folder.glob("femto-cluster-*.tar.gz")
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    assert {
        "femto_job/femto/codec.py",
        "notebooks",
        "playbooks/upgrade.yml",
        "plugins/modules/femto_environment.py",
        "requirements.txt",
        "roles/jupyter/files/locks/3.12.txt",
        "roles/scipy/files/locks/3.12.txt",
        "samples",
    } <= names
    assert {name.split("/")[0] for name in names} == {
        *("FILES.json", "LICENSE", "MANIFEST.json", "README.md"),
        *("backend.py", "femto_job", "meta", "notebooks", "playbooks", "plugins"),
        *("pyproject.toml", "requirements.txt", "roles", "samples", "setup.py"),
    }
    assert not any("__pycache__" in name or "_library" in name for name in names)


@pytest.mark.parametrize("source", ["archive", "folder"])
def test_roles_and_playbooks_are_found_by_name(repository, folder, source):
    what = repository if source == "folder" else next(folder.glob("femto-cluster-*.tar.gz"))
    install = ("collection", "install", "--offline", "--force", "-p", folder / "installed")
    ansible("ansible-galaxy", *install, what, folder=folder)
    roles = ("femto.cluster.scipy", "femto.cluster.spark", "femto.cluster.jupyter")
    play = folder / "play.yml"
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]))
    check = ("-i", "localhost,", "--syntax-check")
    ansible("ansible-playbook", *check, play, folder=folder)
    ansible("ansible-playbook", *check, "femto.cluster.upgrade", folder=folder)
    tasks = ansible("ansible-playbook", "-i", "localhost,", "--list-tasks", play, folder=folder)
    for role in roles:
        assert f"{role} : " in tasks
