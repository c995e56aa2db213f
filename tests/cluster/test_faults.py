"""Faults in the middle of one job, each of which is made good; at the end it completes, and every
picture has its one right archive."""

from lab import CLUSTER, wait


def killed(cluster, host: str, service: str) -> None:
    """Kill the service's main process; systemd has started another one when this returns."""
    ask = f"systemctl show -P NRestarts {service}"
    before = int(cluster.shell(host, ask))
    cluster.shell(host, f"systemctl kill --kill-whom=main --signal=KILL {service}")
    wait(lambda: int(cluster.shell(host, ask)) == before + 1, f"{service} stays away")


def test_kill_9_of_a_worker(cluster, job):
    killed(cluster, "femto-worker1", "spark-worker")
    job.assert_busy()
    job.hold_again("femto-worker1")
    cluster.wait_alive("femto-worker1", "femto-worker2")


def test_kill_9_of_an_executor(cluster, job):
    # What worked for it ends when it finds it gone.
    cluster.shell(
        "femto-worker2",
        "pkill -KILL -f 'Coarse[G]rainedExecutorBackend'; pkill -CONT -f 'pyspark[.]daemon'",
    )
    job.assert_busy()
    job.hold_again("femto-worker2")


def test_kill_9_of_the_master(cluster, job):
    (application,) = cluster.page("/json/")["activeapps"]
    killed(cluster, "femto-master", "spark-master")
    cluster.wait_alive("femto-worker1", "femto-worker2")
    wait(
        lambda: [a["id"] for a in cluster.page("/json/")["activeapps"]] == [application["id"]],
        "the new master does not know the job",
    )
    # It can give the job a new executor.
    cluster.shell(
        "femto-worker1",
        "pkill -KILL -f 'Coarse[G]rainedExecutorBackend'; pkill -CONT -f 'pyspark[.]daemon'",
    )
    job.hold_again("femto-worker1")


def test_a_worker_cut_from_the_network_comes_back(cluster, job):
    cluster.cut("femto-worker1")
    try:
        wait(lambda: cluster.alive() == ["femto-worker2"], "the master does not miss the worker")
        job.assert_busy()
    finally:
        cluster.heal("femto-worker1")
    cluster.wait_alive("femto-worker1", "femto-worker2")
    job.hold_again("femto-worker1")


def test_power_cut_of_a_worker(cluster, job):
    cluster.engine("kill", "--signal", "KILL", "femto-worker2")
    try:
        wait(lambda: cluster.alive() == ["femto-worker1"], "the master does not miss the worker")
        job.assert_busy()
    finally:
        cluster.boot("femto-worker2")
    cluster.wait_alive("femto-worker1", "femto-worker2")
    job.hold_again("femto-worker2")


def test_the_job_has_lost_nothing(jobs):
    jobs.complete()


def test_a_worker_that_waits_while_its_master_recovers(cluster):
    """The master remembers the worker that was there before, and greets the new one as if it were
    that one, before the new one has registered."""
    cluster.shell("femto-master", "systemctl stop spark-master")
    try:
        cluster.shell("femto-worker1", "systemctl restart spark-worker")
        waits = (
            "journalctl _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID spark-worker) |"
            " grep --count 'Failed to connect to master'"
        )
        wait(lambda: int(cluster.shell("femto-worker1", waits, check=False)), "it does not try")
    finally:
        cluster.shell("femto-master", "systemctl start spark-master")
    cluster.wait_alive("femto-worker1", "femto-worker2")


def test_all_hosts_reboot(cluster):
    for host in CLUSTER:
        cluster.shell(host, "systemctl reboot", check=False)
    for host in CLUSTER:
        # A container that reboots ends; the machine around it is what starts it again.
        wait(
            lambda h=host: (
                cluster.engine("inspect", "--format", "{{.State.Running}}", h).stdout.strip()
                == "false"
            ),
            f"{host} does not go down",
        )
    cluster.boot(*CLUSTER)
    cluster.wait_alive("femto-worker1", "femto-worker2")
    for host, services in {
        "femto-master": "spark-master spark-history femto-firewall",
        "femto-worker1": "spark-worker femto-firewall",
        "femto-worker2": "spark-worker femto-firewall",
    }.items():
        said = cluster.shell(
            host, f"systemctl is-active {services} && systemctl --failed --no-legend"
        )
        assert set(said.split()) == {"active"}, said
