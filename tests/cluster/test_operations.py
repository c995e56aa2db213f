"""Life of a cluster: stop, start, scale, remove, upgrade, roll back, doctor, teardown."""

import re
import shutil
from pathlib import Path

import pytest
from lab import ADDRESS, CLUSTER, INVENTORY, ROOT, wait


def processes(cluster, *hosts) -> dict[str, str]:
    """Process numbers of the services, which change with every restart."""
    return {
        host: cluster.shell(
            host, "systemctl show -P MainPID spark-master spark-worker spark-history"
        )
        for host in hosts
    }


def test_stop_and_start(cluster, jobs):
    # A job that another file has left at work is Spark on the master, too.
    jobs.stop()
    try:
        cluster.playbook("playbooks/stop.yml")
        for host in CLUSTER:
            running = cluster.shell(host, "ps -eo args")
            assert "org.apache.spark" not in running
            assert "jupyter-lab" not in running
    finally:
        cluster.playbook("playbooks/start.yml")
    cluster.wait_alive("femto-worker1", "femto-worker2")
    assert "jupyter-lab" in cluster.shell("femto-master", "ps -eo args")


def test_scale_and_remove_a_worker_during_a_job(cluster, job, tmp_path):
    inventory = tmp_path / "third_worker.yml"
    inventory.write_text("workers: {hosts: {femto-worker3: {}}}\n")
    larger = [INVENTORY, inventory]
    before = processes(cluster, *CLUSTER)
    cluster.remove("femto-worker3")
    try:
        cluster.create("femto-worker3", image=cluster.node_image())
        cluster.playbook("playbooks/scale.yml", inventories=larger)
        cluster.wait_alive("femto-worker1", "femto-worker2", "femto-worker3")
        again = cluster.playbook("playbooks/scale.yml", inventories=larger)
        assert set(again.changed.values()) == {0}
        # The job that runs makes use of it.
        job.hold_again("femto-worker3")

        with cluster.running_playbook(
            "playbooks/remove-worker.yml", "-e", "spark_remove=femto-worker3", inventories=larger
        ) as playbook:
            job.finish_on("femto-worker3", playbook)
        # It is a stranger again.
        left = cluster.shell(
            "femto-worker3",
            "systemctl is-active spark-worker; ls /etc/spark/secret 2> /dev/null; "
            f"timeout 5 bash -c '< /dev/tcp/{ADDRESS['femto-master']}/7077' && echo open",
            check=False,
        )
        assert left in {"inactive\n", "failed\n"}
    finally:
        cluster.remove("femto-worker3")
    job.assert_busy()
    cluster.wait_alive("femto-worker1", "femto-worker2")
    assert processes(cluster, *CLUSTER) == before


def test_reboot_of_a_worker_that_needs_it_during_a_job(cluster, job, jobs):
    boot = "systemctl show -P InvocationID spark-worker"
    before, others = cluster.shell("femto-worker2", boot), processes(cluster, *CLUSTER[:2])
    cluster.shell(
        "femto-worker2", "echo libc6 > /run/reboot-required.pkgs; touch /run/reboot-required"
    )
    with cluster.running_playbook("playbooks/reboot.yml") as running:
        job.finish_on("femto-worker2", running)
        # A container that reboots ends; the machine around it is what starts it again.
        state = ("inspect", "--format", "{{.State.Running}}", "femto-worker2")
        wait(
            lambda: running.poll() is not None or "false" in cluster.engine(*state).stdout,
            "femto-worker2 does not go down",
        )
        cluster.engine("start", "femto-worker2")
    assert "femto-worker2: needs a restart: libc6" in cluster.outputs[-1]
    assert cluster.outputs[-1].count("needs no restart") == 2
    cluster.wait_alive(*CLUSTER[1:])
    assert cluster.shell("femto-worker2", boot) != before
    assert processes(cluster, *CLUSTER[:2]) == others
    job.assert_busy()
    jobs.complete()


def active(cluster) -> str:
    """The environment that is active on all hosts."""
    (name,) = {
        cluster.shell(host, "basename $(readlink /opt/femto/current)").strip() for host in CLUSTER
    }
    return name


def upgrade(cluster, jobs, *arguments: str) -> None:
    """Run upgrade.yml; a job, which is held, finishes a task on each worker that is drained, is not
    over before both have been, and loses nothing."""
    job = jobs.held()
    first, second = CLUSTER[1:]
    with cluster.running_playbook("playbooks/upgrade.yml", *arguments) as playbook:
        job.finish_on(first, playbook)
        assert playbook.poll() is None
        # Further tasks come only when the second one's is done, too.
        job.finish_on(second, playbook)
        job.hold_again(first)
    job.assert_busy()
    cluster.wait_alive(first, second)
    jobs.complete()


def another_femto(folder: Path, line: str) -> None:
    """Write a checkout of femto whose Spark job has one line more, and nothing kept beside it."""
    for name in (
        *("femto_job", "setup.py", "backend.py", "pyproject.toml", "requirements.txt"),
        *("README.md", "LICENSE"),
    ):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    with (folder / "femto_job/femto/job/report.py").open("a") as file:
        file.write(f"\n{line}\n")


def test_upgrade_of_femto_alone_stops_nothing(cluster, job, tmp_path):
    old, packages = active(cluster), "readlink -f /opt/femto/current/packages"
    shared = {host: cluster.shell(host, packages) for host in CLUSTER}
    before = processes(cluster, *CLUSTER)
    # Another version of the job, on the packages of before.
    another_femto(tmp_path, "IS_NEW = True")
    cluster.playbook("playbooks/upgrade.yml", "-e", f"scipy_source={tmp_path}")
    job.assert_busy()
    assert processes(cluster, *CLUSTER) == before
    new = active(cluster)
    assert new != old
    for host in CLUSTER:
        cluster.shell(
            host, "/opt/femto/current/bin/python -c 'from femto.job import report; report.IS_NEW'"
        )
        assert cluster.shell(host, packages) == shared[host]


def test_upgrade_to_another_spark_waits_for_the_job(cluster, job):
    old = active(cluster)
    before = processes(cluster, *CLUSTER)
    # Of the environment with another Spark nothing is there but what is looked at.
    planted = "/opt/femto/packages/spark4 /opt/femto/envs/spark4"
    plant = f"""
set -e
cd /opt/femto
mkdir -p packages/spark4/pyspark envs/spark4
sed 's/^__version__.*/__version__: str = "4.0.0"/' envs/{old}/spark/version.py > packages/spark4/pyspark/version.py
ln -s ../../packages/spark4 envs/spark4/packages
ln -s packages/pyspark envs/spark4/spark
touch packages/spark4/.complete envs/spark4/.complete
"""  # noqa: E501
    try:
        for host in CLUSTER:
            cluster.shell(host, plant)
        done = cluster.playbook("playbooks/upgrade.yml", "-e", "scipy_environment=spark4", ok=False)
        assert done.returncode != 0
        told = " ".join(done.stdout.split())
        assert re.search(r"femto-master: Spark would go from [\d.]+ to 4\.0\.0 while", told), told
        assert active(cluster) == old
        assert processes(cluster, *CLUSTER) == before
        assert cluster.alive() == CLUSTER[1:]
        job.assert_busy()
    finally:
        for host in CLUSTER:
            cluster.shell(host, f"rm -rf {planted}")


@pytest.mark.slow
def test_upgrade_to_other_packages_and_roll_back_during_a_job(cluster, jobs):
    old = active(cluster)
    # Packages of another name, which are the same files: to build others takes minutes.
    for host in CLUSTER:
        cluster.shell(
            host,
            f"""
set -e
cd /opt/femto
packages=$(basename "$(readlink envs/{old}/packages)")
cp -al packages/$packages packages/$packages-other
cp -a envs/{old} envs/other
rm -f envs/other/.active envs/other/.left
ln -sfn ../../packages/$packages-other envs/other/packages
sed -i "s,/$packages/,/$packages-other/," envs/other/lib/python*/site-packages/femto.pth
echo other > envs/other/.complete
""",
        )
    upgrade(cluster, jobs, "-e", "scipy_environment=other")
    assert active(cluster) == "other"
    upgrade(cluster, jobs, "-e", f"scipy_environment={old}")
    assert active(cluster) == old


def test_the_controller_builds_femto_once_for_all_nodes_those_that_come_later_too(
    cluster, tmp_path
):
    another_femto(tmp_path, "IS_NEWER = True")
    arguments = ("site.yml", "--tags", "scipy_install", "-e", f"scipy_source={tmp_path}")
    before = set(cluster.shell("femto-master", "ls /opt/femto/envs").split())
    done = cluster.playbook(*arguments)
    assert min(done.changed[host] for host in CLUSTER) > 0
    (new,) = set(cluster.shell("femto-master", "ls /opt/femto/envs").split()) - before
    (built,) = (tmp_path / "build").glob("femto-*.tar")
    when = built.stat().st_mtime_ns
    # One that comes later, without a build; the others have what they are to have.
    cluster.shell("femto-worker2", f"rm -r /opt/femto/envs/{new}")
    later = cluster.playbook(*arguments)
    assert {host for host, number in later.changed.items() if number} == {"femto-worker2"}
    assert built.stat().st_mtime_ns == when
    for host in CLUSTER:
        cluster.shell(host, f"/opt/femto/envs/{new}/bin/femto --version")


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
