"""Inventories that cannot become a cluster are refused with one clear line. Needs no hosts."""

import os
import re
import subprocess

import pytest
from lab import ENVIRONMENT, ROOT

GOOD = {"masters": ["m"], "workers": ["a", "b"]}


def preflight(folder, groups, *arguments) -> subprocess.CompletedProcess:
    lines = [line for group, hosts in groups.items() for line in (f"[{group}]", *hosts)]
    inventory = folder / "hosts.ini"
    inventory.write_text("\n".join(lines) + "\n")
    command = ["ansible-playbook", "-i", inventory, ROOT / "playbooks/preflight.yml", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | ENVIRONMENT,
    )


@pytest.mark.parametrize(
    ("groups", "arguments", "said"),
    [
        ({"masters": [], "workers": ["a"]}, [], "masters of the inventory is empty"),
        ({"workers": ["a"]}, [], "masters of the inventory is empty"),
        ({"masters": ["m", "n"], "workers": ["a"]}, [], r"has 2 hosts \(m, n\).*leave one"),
    ],
)
def test_a_wrong_inventory_is_refused_in_one_line(tmp_path, groups, arguments, said):
    done = preflight(tmp_path, groups, *arguments)
    assert done.returncode != 0
    messages = [line for line in done.stdout.splitlines() if re.search(said, line)]
    assert messages, done.stdout


def test_a_good_inventory_passes(tmp_path):
    done = preflight(tmp_path, GOOD)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_unknown_variables_of_the_role_are_told_and_no_more(tmp_path):
    """Another role of a shared inventory may have them."""
    done = preflight(tmp_path, GOOD, "-e", "spark_worker_core=1 spark_b=1 sparkle=1")
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "WARNING]: unknown variables spark_b, spark_worker_core: correct or remove them" in said
