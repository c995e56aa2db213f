"""The roles on one host, master and worker in one: check mode while it is bare, installation,
converge, every documented tag alone, check mode, verify."""

import contextlib
import re
from types import SimpleNamespace

import pytest
from lab import INVENTORY_SINGLE, KEEP, ROOT

CONVERGE = "molecule/default/converge.yml"
TAGS = [
    tag
    for role in ("scipy", "spark", "jupyter")
    for line in (ROOT / "roles" / role / "README.md").read_text().splitlines()
    if line.startswith("Tags: ")
    for tag in re.findall(r"`(\w+)`", line)
]


@pytest.fixture(scope="module")
def single(lab, node_image):
    """The tests share this host: the later ones need what the earlier ones did.

    Other processes wait for the image that it becomes when everything is installed on it, rather
    than make one of their own meanwhile.
    """
    with contextlib.ExitStack() as until_installed:
        until_installed.enter_context(node_image())
        found = KEEP and lab.exists("femto-single")
        if not found:
            lab.remove("femto-single")
            lab.molecule("create", "default")
        yield SimpleNamespace(found=found, is_installed=until_installed.close)
    if not KEEP:
        lab.remove("femto-single")


def test_check_mode_works_and_changes_nothing_on_a_bare_host(lab, single):
    if single.found:
        pytest.skip("the host was there before, and is not bare")

    def state():
        return lab.shell(
            "femto-single",
            "dpkg-query --show; ls -A /etc /opt /usr/local/bin /var/lib; "
            "cat /etc/passwd /etc/group; systemctl list-unit-files",
        )

    before = state()
    lab.playbook(CONVERGE, "--check", "--diff", inventories=[INVENTORY_SINGLE])
    assert state() == before


def test_installation_leaves_nothing_that_other_hosts_must_not_have(lab, single):
    lab.install("femto-single", INVENTORY_SINGLE)
    single.is_installed()
    if not single.found:
        left = "ls -d /etc/spark/secret /etc/spark/node.env /etc/jupyter/token 2> /dev/null"
        assert lab.shell("femto-single", left, check=False) == ""


def test_converge(lab, single):
    lab.molecule("converge", "default")


@pytest.mark.parametrize("tag", TAGS)
def test_every_documented_tag_runs_alone_and_changes_nothing_again(lab, single, tag):
    """All tags together are the role: this is the proof that it is idempotent, too."""
    environments = "ls -d /opt/femto/*/* && readlink /opt/femto/current"
    before = lab.shell("femto-single", environments)
    done = lab.playbook(CONVERGE, "--tags", tag, "--diff", inventories=[INVENTORY_SINGLE])
    assert done.changed == {"femto-single": 0}, done.stdout
    assert lab.shell("femto-single", environments) == before


def test_check_mode_is_honest_where_nothing_is_to_do(lab, single):
    done = lab.playbook(CONVERGE, "--check", "--diff", inventories=[INVENTORY_SINGLE])
    assert done.changed == {"femto-single": 0}, done.stdout


def test_verify(lab, single):
    lab.molecule("verify", "default")
