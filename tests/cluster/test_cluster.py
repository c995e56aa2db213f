"""site.yml from bare hosts, and compress.yml on real pictures."""

import os
import re

from lab import ADDRESS, CLUSTER, ROOT, archives, compress_locally, wait


def test_verify(cluster):
    cluster.molecule("verify", "cluster")


def test_the_second_run_changes_nothing(cluster):
    # All that Ansible can tell, for the test that no secret is in it.
    done = cluster.playbook("site.yml", "--diff", "-vvv")
    assert {host: done.changed[host] for host in CLUSTER} == dict.fromkeys(CLUSTER, 0)


def test_compress_uses_both_workers_and_makes_the_same_archives(cluster, tmp_path):
    before = cluster.applications()
    cluster.playbook(
        "playbooks/compress.yml",
        "-e",
        f"spark_compress_input={ROOT / 'samples'}",
        "-e",
        f"spark_compress_output={tmp_path / 'archives'}",
        "-e",
        "spark_compress_options='--cut-above 0.1'",
    )
    expected = compress_locally(ROOT / "samples", tmp_path / "local")
    assert len(expected) == len([p for p in os.listdir(ROOT / "samples") if p != "README.md"])
    assert archives(tmp_path / "archives") == expected
    assert (tmp_path / "archives" / "report.html").is_file()
    wait(lambda: len(cluster.applications()) > len(before), "the job has no history")
    (application,) = cluster.applications().keys() - before.keys()
    executors = cluster.page(f"/api/v1/applications/{application}/allexecutors", port=18080)
    tasks = {
        re.sub(":.*", "", e["hostPort"]): e["completedTasks"]
        for e in executors
        if e["id"] != "driver"
    }
    assert set(tasks) == {ADDRESS["femto-worker1"], ADDRESS["femto-worker2"]}
    assert min(tasks.values()) > 0, tasks
