"""compress.yml: real pictures and links among them, through a connection that is lost meanwhile."""

import csv
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from lab import ADDRESS, ENVIRONMENT, INVENTORY, ROOT, archives, compress_locally, wait

# On the master, where a link among the pictures leads that its account could follow.
OUTSIDE = "/srv/outside"
# Whether they are read shows in their time of access, which is therefore old: systems do not note
# every access anew.
LOOK = f"cd {OUTSIDE} && stat -c '%n %U:%G %a %Y' . && stat -c '%n %U:%G %a %s %Y %X' *.png"
UNITS = "systemctl list-units --all --plain --no-legend 'femto-compress-*'"


@pytest.fixture(scope="module")
def compressed(cluster, tmp_path_factory):
    """What two runs of the same command did: the first was killed when the job had begun."""
    folder = tmp_path_factory.mktemp("compress")
    pictures = folder / "in"
    pictures.mkdir()
    for path in (ROOT / "samples").iterdir():
        if path.suffix != ".md":
            shutil.copy2(path, pictures)
    (pictures / "inner.png").symlink_to("chest-xray.png")
    links = ("public", "private", "above")
    for name in ("public", "private"):
        (pictures / f"{name}.png").symlink_to(f"{OUTSIDE}/{name}.png")
    (pictures / "above.png").symlink_to("../" * 12 + f"{OUTSIDE[1:]}/public.png")
    cluster.shell("femto-master", f"mkdir -p {OUTSIDE}")
    for name, mode in (("public", 644), ("private", 600)):
        path = f"{OUTSIDE}/{name}.png"
        cluster.engine("cp", ROOT / "samples/chest-xray.png", f"femto-master:{path}")
        cluster.shell("femto-master", f"chown root: {path} && chmod {mode} {path}")
    # Whatever tar this machine has is not used: macOS has another.
    (folder / "bin").mkdir()
    (folder / "bin/tar").write_text("#!/bin/sh\nexit 1\n")
    (folder / "bin/tar").chmod(0o755)
    environment = {"PATH": f"{folder / 'bin'}:{ENVIRONMENT['PATH']}"}
    command = (
        "playbooks/compress.yml",
        *("-e", f"spark_compress_input={pictures}"),
        *("-e", f"spark_compress_output={folder / 'archives'}"),
        *("-e", "spark_compress_options='--cut-above 0.1'"),
    )
    cluster.shell("femto-master", f"touch -a -d '3 days ago' {OUTSIDE}/*.png")
    before = cluster.applications()
    outside = cluster.shell("femto-master", LOOK)
    first = subprocess.Popen(
        ["ansible-playbook", "-i", INVENTORY, *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | ENVIRONMENT | environment,
    )
    try:
        wait(lambda: cluster.shell("femto-master", UNITS), "the job does not start")
    finally:
        first.kill()
        first.wait()
    unit = cluster.shell("femto-master", UNITS).split()[0]
    show = f"systemctl show -P InvocationID {unit}"
    invocation = cluster.shell("femto-master", show)
    second = cluster.playbook(*command, environment=environment, ok=False)
    wait(lambda: len(cluster.applications()) > len(before), "the job has no history")
    yield SimpleNamespace(
        archives=folder / "archives",
        pictures=pictures,
        links=links,
        outside=(outside, cluster.shell("femto-master", LOOK)),
        unit=unit,
        invocation=invocation,
        second=second,
        applications=cluster.applications().keys() - before.keys(),
    )
    cluster.shell("femto-master", f"rm -r {OUTSIDE} /var/lib/spark/jobs/*")


def test_all_workers_make_the_same_archives_as_one_process(cluster, compressed, tmp_path):
    links = {f"{name}.png" for name in compressed.links}
    shutil.copytree(compressed.pictures, tmp_path / "in", ignore=lambda *_: links)
    assert archives(compressed.archives) == compress_locally(tmp_path / "in", tmp_path / "local")
    assert (compressed.archives / "report.html").is_file()
    (application,) = compressed.applications
    executors = cluster.page(f"/api/v1/applications/{application}/allexecutors", port=18080)
    tasks = {
        re.sub(":.*", "", e["hostPort"]): e["completedTasks"]
        for e in executors
        if e["id"] != "driver"
    }
    assert set(tasks) == {ADDRESS["femto-worker1"], ADDRESS["femto-worker2"]}
    assert min(tasks.values()) > 0, tasks


def test_the_same_command_goes_on_with_a_job_that_was_left(cluster, compressed):
    assert "this one goes on with it" in " ".join(compressed.second.stdout.split())
    # One start is all there was, and nothing of it is left but what failed.
    starts = cluster.shell(
        "femto-master",
        f"journalctl --output=cat --output-fields=INVOCATION_ID --unit={compressed.unit}",
    )
    assert set(starts.split()) == {compressed.invocation.strip()}
    assert cluster.shell("femto-master", UNITS) == ""
    left = "ls -d /var/tmp/femto-* /tmp/femto-* 2> /dev/null || true"
    assert cluster.shell("femto-master", left) == ""
    assert not [p.name for p in compressed.archives.iterdir() if p.name.startswith(".")]


def test_links_among_the_pictures_give_nothing_away(compressed):
    before, after = compressed.outside
    assert after == before
    assert compressed.second.returncode != 0
    assert "some pictures were not compressed" in compressed.second.stdout
    with (compressed.archives / "report.csv").open(newline="") as file:
        rows = {row["picture"]: row["status"] for row in csv.DictReader(file)}
    assert {name for name, status in rows.items() if status == "failed"} == {
        f"{name}.png" for name in compressed.links
    }
    assert rows["inner.png"] == "done"
