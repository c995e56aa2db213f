"""Each role alone, on one host: check mode while it is bare, converge, idempotence, verify."""

import pytest
from lab import KEEP, SCIPY_IMAGE

pytestmark = pytest.mark.usefixtures("single")


@pytest.fixture(scope="module")
def single(lab):
    """The scenarios share this host: the later ones need what the earlier ones install."""
    if not (KEEP and lab.exists("femto-single")):
        lab.molecule("create", "scipy")
    yield
    if not KEEP:
        lab.engine("rm", "--force", "--volumes", "femto-single")


@pytest.mark.parametrize("scenario", ["scipy", "spark", "jupyter"])
def test_check_mode_works_and_changes_nothing_on_a_bare_host(lab, scenario):
    def installed():
        return lab.shell(
            "femto-single",
            "dpkg-query --show; ls -A /etc /opt /usr/local/bin /var/lib; "
            "cat /etc/passwd /etc/group; systemctl list-unit-files",
        )

    before = installed()
    lab.molecule("check", scenario)
    assert installed() == before


@pytest.mark.parametrize("action", ["converge", "idempotence", "verify"])
def test_scipy(lab, action):
    lab.molecule(action, "scipy")
    if action == "verify":
        # Only to save a later test the minutes that this one took.
        lab.engine("commit", "femto-single", SCIPY_IMAGE)


@pytest.mark.parametrize("action", ["converge", "idempotence", "verify"])
def test_spark(lab, action):
    lab.molecule(action, "spark")


@pytest.mark.parametrize("action", ["converge", "idempotence", "verify"])
def test_jupyter(lab, action):
    lab.molecule(action, "jupyter")
