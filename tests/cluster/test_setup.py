"""spark_setup.sh that came alone to a bare host: what it refuses, and the whole road."""

import hashlib
import subprocess
import tarfile

import pytest
from lab import ADDRESS, KEEP, ROOT, wait

HOST = "femto-alone"


@pytest.fixture(scope="module")
def bare(lab):
    lab.remove(HOST)
    lab.create(HOST)
    lab.engine("cp", ROOT / "spark_setup.sh", f"{HOST}:/root/spark_setup.sh")
    yield lab
    if not KEEP:
        lab.remove(HOST)


@pytest.fixture(scope="module")
def release(bare, tmp_path_factory) -> str:
    """The checksum of a release, packed as GitHub does; it lies on the host as femto.tar.gz."""
    path = tmp_path_factory.mktemp("release") / "femto.tar.gz"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(path, "w:gz") as tar:
        for name in files.stdout.decode().split("\0")[:-1]:
            tar.add(ROOT / name, f"femto-1.0.0/{name}")
    bare.engine("cp", path, f"{HOST}:/root/femto.tar.gz")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def setup(lab, **variables: str) -> subprocess.CompletedProcess:
    given = " ".join(f"{name}={value}" for name, value in variables.items())
    return lab.engine(
        "exec", HOST, "bash", "-c", f"cd /root; {given} bash spark_setup.sh", check=False
    )


def test_nothing_is_fetched_without_a_release_and_its_checksum(bare):
    for variables in ({}, {"FEMTO_TAG": "v1.0.0"}, {"FEMTO_TAG": "v1.0.0", "FEMTO_SHA256": "12"}):
        done = setup(bare, **variables)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "FEMTO_TAG=v1.0.0 FEMTO_SHA256=" in line


def test_a_release_that_was_changed_is_not_unpacked(bare, release):
    wrong = hashlib.sha256(b"another").hexdigest()
    done = setup(bare, FEMTO_SOURCE="file:///root/femto.tar.gz", FEMTO_SHA256=wrong)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert f"has checksum {release}, not {wrong}" in line
    assert bare.shell(HOST, "ls -d /opt/femto /var/tmp/femto-* 2> /dev/null", check=False) == ""


@pytest.mark.slow
def test_the_founding_commands_on_a_bare_host(bare, release):
    done = setup(bare, FEMTO_SOURCE="file:///root/femto.tar.gz", FEMTO_SHA256=release)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    bare.shell(HOST, f"startmaster {ADDRESS[HOST]} && startslave spark://{ADDRESS[HOST]}:7077")
    alive = f"curl --silent http://{ADDRESS[HOST]}:8080/json/ | grep -c ALIVE"
    wait(lambda: int(bare.shell(HOST, alive, check=False) or 0) >= 2, "the worker is not alive")
    bare.shell(HOST, "mkdir -p /srv/out && chown spark: /srv/out")
    said = bare.shell(
        HOST, "femto-compress --input /opt/femto/source/samples --output /srv/out && ls /srv/out"
    )
    assert said.count(".laff.gz") == len(list((ROOT / "samples").iterdir())) - 1
    # Again, nothing is fetched, and nothing changes. Secrets that somebody wrote into the settings
    # are root's alone, whatever the editor made of the file.
    settings = "stat -c '%a %U %G' /etc/femto.yml"
    assert bare.shell(HOST, settings) == "600 root root\n"
    bare.shell(HOST, "chmod 644 /etc/femto.yml; echo 'spark_compress_keep: true' >> /etc/femto.yml")
    bare.shell(HOST, "rm /root/femto.tar.gz")
    again = setup(bare, FEMTO_SOURCE="file:///root/femto.tar.gz", FEMTO_SHA256=release)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-2000:]
    assert "changed=0" in again.stdout
    assert bare.shell(HOST, settings) == "600 root root\n"
    assert "spark_compress_keep: true" in bare.shell(HOST, "cat /etc/femto.yml")
