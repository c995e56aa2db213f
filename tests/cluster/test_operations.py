"""Life of a cluster: stop, start, scale, remove, upgrade, roll back, doctor, teardown."""

import contextlib

import pytest
from lab import ADDRESS, CLUSTER, INVENTORY, SCIPY_IMAGE, wait


@pytest.fixture(scope="module")
def larger(cluster, tmp_path_factory):
    """The inventory after a third worker was written into it."""
    inventory = tmp_path_factory.mktemp("inventory") / "third_worker.yml"
    inventory.write_text("workers: {hosts: {femto-worker3: {}}}\n")
    return [INVENTORY, inventory]


def processes(cluster, *hosts) -> dict[str, str]:
    """Process numbers of the services, which change with every restart."""
    return {
        host: cluster.shell(
            host, "systemctl show -P MainPID spark-master spark-worker spark-history"
        )
        for host in hosts
    }


def test_stop_and_start(cluster):
    cluster.playbook("playbooks/stop.yml")
    for host in CLUSTER:
        assert "java" not in cluster.shell(host, "ps -eo comm")
    assert "jupyter-lab" not in cluster.shell("femto-master", "ps -eo args")
    cluster.playbook("playbooks/start.yml")
    cluster.wait_alive("femto-worker1", "femto-worker2")
    assert "jupyter-lab" in cluster.shell("femto-master", "ps -eo args")


def test_scale_adds_a_worker_and_leaves_the_others_alone(cluster, larger):
    cluster.engine("rm", "--force", "--volumes", "femto-worker3", check=False)
    # Its environment may come from the test of role scipy; Spark and all else come now.
    found = cluster.engine("image", "inspect", SCIPY_IMAGE, check=False).returncode == 0
    cluster.create("femto-worker3", image=SCIPY_IMAGE if found else "")
    before = processes(cluster, *CLUSTER)
    cluster.playbook("playbooks/scale.yml", inventories=larger)
    cluster.wait_alive("femto-worker1", "femto-worker2", "femto-worker3")
    assert processes(cluster, *CLUSTER) == before
    again = cluster.playbook("playbooks/scale.yml", inventories=larger)
    assert set(again.changed.values()) == {0}


def test_remove_a_worker_during_a_job(cluster, larger, start_long_job, long_archives):
    cluster.wait_alive("femto-worker1", "femto-worker2", "femto-worker3")
    before = processes(cluster, *CLUSTER)
    job = start_long_job("remove")
    job.wait_until_busy()
    cluster.playbook(
        "playbooks/remove-worker.yml", "-e", "spark_remove=femto-worker3", inventories=larger
    )
    assert (
        cluster.shell(
            "femto-worker3",
            "systemctl is-active spark-worker; ls /etc/spark/secret 2>&1",
            check=False,
        ).splitlines()[0]
        != "active"
    )
    job.assert_completes(long_archives)
    cluster.wait_alive("femto-worker1", "femto-worker2")
    assert processes(cluster, *CLUSTER) == before
    # It is a stranger again.
    probe = f"timeout 3 bash -c '< /dev/tcp/{ADDRESS['femto-master']}/7077' && echo open"
    assert cluster.shell("femto-worker3", probe, check=False) == ""
    cluster.engine("rm", "--force", "--volumes", "femto-worker3")


def active(cluster) -> set[str]:
    return {
        cluster.shell(host, "basename $(readlink /opt/femto/current)").strip() for host in CLUSTER
    }


def test_upgrade_during_a_job_and_roll_back(cluster, start_long_job, long_archives):
    (old,) = active(cluster)
    log = cluster.folder / "upgrade.log"
    # One package more makes another environment.
    upgrade = cluster.start_playbook(
        "playbooks/upgrade.yml", "-e", '{"scipy_extra_packages": ["tabulate"]}', log=log
    )
    try:
        # Building takes minutes, in which nothing happens to the cluster; the job comes then.
        wait(
            lambda: "Drain and switch one worker" in log.read_text() or upgrade.poll() is not None,
            1200,
            "the new environment is not built",
        )
        job = start_long_job("upgrade")
        job.wait_until_busy(1)
        switched = active(cluster)
        assert switched != {old} or upgrade.poll() is None
        job.assert_completes(long_archives)
        assert upgrade.wait(timeout=600) == 0, log.read_text()[-4000:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            upgrade.kill()
    (new,) = active(cluster)
    assert new != old
    cluster.wait_alive("femto-worker1", "femto-worker2")
    for host in CLUSTER:
        cluster.shell(host, "/opt/femto/current/bin/python -c 'import tabulate'")
        # femto is the same in both: what was compiled is taken over.
        made = f"find /var/lib/spark/cache -name '*.nbc' -newer /opt/femto/envs/{new}/.complete"
        assert cluster.shell(host, made) == ""

    cluster.playbook("playbooks/upgrade.yml", "-e", f"scipy_environment={old}")
    assert active(cluster) == {old}
    cluster.wait_alive("femto-worker1", "femto-worker2")


# A fault: the host it is planted on, how to plant it, how to mend it, what the doctor says.
DROP_IN = "/run/systemd/system/spark-worker.service.d"
FAULTS = {
    "version mismatch": (
        "femto-worker1",
        "cd /opt/femto/current/spark && cp -a version.py /root/ && "
        "sed -i 's/^__version__.*/__version__: str = \"4.0.0\"/' version.py",
        "cp -a /root/version.py /opt/femto/current/spark/",
        "femto-worker1: version mismatch: Spark 4.0.0 here",
    ),
    "wrong secret": (
        "femto-worker2",
        "cd /etc/spark && cp -a secret spark-defaults.conf /root/ && "
        'sed -i "s/$(cat secret)/0123456789abcdef0123456789abcdef/" secret spark-defaults.conf',
        "cp -a /root/secret /root/spark-defaults.conf /etc/spark/",
        "femto-worker2: wrong secret",
    ),
    "name resolution": (
        "femto-worker1",
        "hostname no-such-name",
        "hostname femto-worker1",
        "femto-worker1: this host's own name, no-such-name, has no address",
    ),
    "full disk": (
        "femto-worker1",
        "mount -t tmpfs -o size=1m tmpfs /var/lib/spark/local",
        "umount /var/lib/spark/local",
        "femto-worker1: the disk of /var/lib/spark/local is full",
    ),
    "master unreachable": (
        "femto-worker2",
        "nft 'table inet planted { chain output { type filter hook output priority 0; "
        f"ip daddr {ADDRESS['femto-master']} drop; }}; }}'",
        "nft delete table inet planted",
        "femto-worker2: the master is unreachable",
    ),
    "too little memory": (
        "femto-worker1",
        f"mkdir -p {DROP_IN} && "
        f"printf '[Service]\\nEnvironment=SPARK_WORKER_MEMORY=9000000m\\n' > {DROP_IN}/x.conf "
        "&& systemctl daemon-reload",
        f"rm -r {DROP_IN} && systemctl daemon-reload",
        "femto-worker1: too little memory",
    ),
}


def test_doctor_finds_nothing_wrong_then_every_planted_fault(cluster):
    cluster.wait_alive("femto-worker1", "femto-worker2")
    assert "nothing is wrong" in cluster.playbook("playbooks/doctor.yml").stdout
    planted = []
    try:
        for host, plant, mend, _ in FAULTS.values():
            planted.append((host, mend))
            cluster.shell(host, plant)
        done = cluster.playbook("playbooks/doctor.yml", ok=False)
    finally:
        for host, mend in planted:
            cluster.shell(host, mend)
    assert done.returncode != 0
    # As YAML writes it, an apostrophe in quotes is two.
    told = " ".join(done.stdout.split()).replace("''", "'")
    for fault, (*_, said) in FAULTS.items():
        assert said in told, f"{fault} is not named:\n{done.stdout[-4000:]}"
    cluster.wait_alive("femto-worker1", "femto-worker2")
    assert "nothing is wrong" in cluster.playbook("playbooks/doctor.yml").stdout


def test_teardown_asks_and_then_removes_everything(cluster):
    refused = cluster.playbook("playbooks/teardown.yml", ok=False)
    assert refused.returncode != 0
    assert cluster.alive() == ["femto-worker1", "femto-worker2"]
    cluster.playbook("playbooks/teardown.yml", "-e", "spark_teardown_confirm=yes")
    for host in CLUSTER:
        left = cluster.shell(
            host,
            "ls -d /opt/femto /etc/spark /var/lib/spark /var/log/spark /etc/systemd/system/spark-* "
            "/usr/local/bin/*start* 2>/dev/null; getent passwd spark; pgrep -a java",
            check=False,
        )
        assert left == ""
