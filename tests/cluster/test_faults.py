"""Faults in the middle of a job: it completes, and every picture has its one right archive."""

import pytest
from lab import CLUSTER, Job, compress_locally, crops, wait


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return crops(tmp_path_factory.mktemp("faults") / "in", 64)


@pytest.fixture(scope="module")
def expected(pictures):
    return compress_locally(pictures, pictures.parent / "local", "--no-report")


@pytest.fixture
def job(cluster, pictures, expected, request):
    cluster.wait_alive("femto-worker1", "femto-worker2")
    job = Job(cluster, request.function.__name__, pictures)
    try:
        job.wait_until_busy()
        yield job
    finally:
        job.stop()


def test_kill_9_of_a_worker(cluster, job, expected):
    before = cluster.shell("femto-worker1", "systemctl show -P NRestarts spark-worker")
    cluster.shell("femto-worker1", "systemctl kill --kill-whom=main --signal=KILL spark-worker")
    job.assert_busy()
    job.assert_completes(expected)
    cluster.wait_alive("femto-worker1", "femto-worker2")
    after = cluster.shell("femto-worker1", "systemctl show -P NRestarts spark-worker")
    assert int(after) == int(before) + 1


def test_kill_9_of_an_executor(cluster, job, expected):
    cluster.shell("femto-worker2", "pkill -KILL -f CoarseGrainedExecutorBackend")
    job.assert_busy()
    job.assert_completes(expected)


def test_power_cut_of_a_worker(cluster, job, expected):
    cluster.engine("kill", "--signal", "KILL", "femto-worker2")
    job.assert_busy()
    job.assert_completes(expected)
    cluster.boot("femto-worker2")
    cluster.wait_alive("femto-worker1", "femto-worker2")


def test_kill_9_of_the_master(cluster, job, expected):
    before = cluster.shell("femto-master", "systemctl show -P MainPID spark-master")
    cluster.shell("femto-master", "systemctl kill --kill-whom=main --signal=KILL spark-master")
    job.assert_busy()
    wait(lambda: cluster.alive() == ["femto-worker1", "femto-worker2"], 60, "the master stays away")
    assert cluster.shell("femto-master", "systemctl show -P MainPID spark-master") != before
    job.assert_completes(expected)


def test_a_worker_that_waits_while_its_master_recovers(cluster):
    """The master remembers the worker that was there before, and greets the new one as if it were
    that one, before the new one has registered."""
    cluster.shell("femto-master", "systemctl stop spark-master")
    cluster.shell("femto-worker1", "systemctl restart spark-worker")
    waits = (
        "journalctl _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID spark-worker) |"
        " grep --count 'Failed to connect to master'"
    )
    wait(lambda: int(cluster.shell("femto-worker1", waits, check=False)), 60, "it does not try")
    cluster.shell("femto-master", "systemctl start spark-master")
    cluster.wait_alive("femto-worker1", "femto-worker2")


def test_a_worker_cut_from_the_network_comes_back(cluster, job, expected):
    cluster.cut("femto-worker1")
    job.assert_busy()
    wait(lambda: cluster.alive() == ["femto-worker2"], 90, "the master does not miss the worker")
    job.assert_completes(expected)
    cluster.heal("femto-worker1")
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
            60,
            f"{host} does not go down",
        )
    cluster.boot(*CLUSTER)
    cluster.wait_alive("femto-worker1", "femto-worker2", seconds=120)
    for host, services in {
        "femto-master": "spark-master spark-history femto-firewall",
        "femto-worker1": "spark-worker femto-firewall",
        "femto-worker2": "spark-worker femto-firewall",
    }.items():
        cluster.shell(host, f"systemctl is-active {services}")
        assert cluster.shell(host, "systemctl --failed --no-legend") == ""
