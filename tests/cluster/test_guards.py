"""What keeps others out: the secret, the firewall, file modes, and silence about the secret."""

import re
import shlex
import urllib.error
import urllib.request

import pytest
from lab import ADDRESS, CLUSTER, HANG, wait

# A client of the cluster with its own settings instead of the node's: no secret, or a wrong one.
CLIENT = r"""
umask 077
mkdir -p /tmp/client-{name} && cd /tmp/client-{name} &&
cat > conf <<'CONF'
{settings}
spark.driver.port 7100
spark.blockManager.port 7140
spark.port.maxRetries 31
CONF
cat > client.py <<'PYTHON'
from pyspark import SparkContext
print("the sum is", SparkContext().parallelize(range(10)).sum())
PYTHON
chown -R spark: .
. /etc/spark/node.env
exec setpriv --reuid=spark --regid=spark --clear-groups env \
    HOME=/tmp/client-{name} SPARK_CONF_DIR=/tmp/client-{name} SPARK_LOCAL_IP=$SPARK_LOCAL_IP \
    JAVA_HOME=$(sed -n 's/^JAVA_HOME=//p' /etc/spark/spark-env.sh) \
    PYSPARK_PYTHON=/opt/femto/current/bin/python timeout 800 \
    /opt/femto/current/spark/bin/spark-submit --properties-file conf --master $MASTER client.py 2>&1
"""
# A job of one picture on the master, whose events the history server reads.
JOB = """
set -e
mkdir -p /var/lib/spark/jobs/one/in
cd /var/lib/spark/jobs/one
/opt/femto/current/bin/python -c 'from PIL import Image; Image.new("L", (64, 64)).save("in/a.png")'
chown -R spark: .
femto-compress --no-report --input "$PWD/in" --output "$PWD/out"
rm -r "$PWD"
"""
ENCRYPTED = "spark.authenticate true\nspark.network.crypto.enabled true\nspark.network.crypto.saslFallback false\nspark.network.crypto.cipher AES/GCM/NoPadding\n"  # noqa: E501


@pytest.fixture(scope="module", autouse=True)
def clients(cluster):
    """Spark gives up on a master only after a minute: all clients try at the same time, while the
    first tests look elsewhere."""
    settings = {
        "none": "spark.executor.memory 600m",
        "wrong": ENCRYPTED + "spark.authenticate.secret not-the-secret",
        "right": ENCRYPTED
        + f"spark.authenticate.secret {cluster.secret()}\nspark.executor.memory 600m",
    }
    yield {
        name: cluster.start_shell("femto-worker1", CLIENT.format(name=name, settings=lines))
        for name, lines in settings.items()
    }
    cluster.shell("femto-worker1", "pkill -f /tmp/client-[a-z]; rm -rf /tmp/client-*", check=False)


@pytest.fixture(scope="module")
def stranger(cluster):
    """A host of the same network that is in no inventory of the cluster."""
    if not cluster.exists("femto-stranger"):
        cluster.create("femto-stranger")
    return cluster


def listening(cluster, host: str) -> set[int]:
    """The TCP ports on which the host listens for others."""
    lines = cluster.shell(host, "ss --no-header --listening --tcp --numeric").splitlines()
    sockets = [line.split()[3] for line in lines]
    return {int(s.rpartition(":")[2]) for s in sockets if not re.match(r"127[.]|\[::1\]", s)}


def open_ports(cluster, source: str, target: str, ports) -> set[int]:
    """The ports of the target host to which the source can connect."""
    script = f"""
import concurrent.futures, socket
def connects(port):
    try:
        socket.create_connection(("{ADDRESS[target]}", port), timeout=2).close()
        return port
    except OSError:
        return None
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    print(*[p for p in pool.map(connects, {sorted(ports)}) if p])
"""
    return {int(p) for p in cluster.shell(source, f"python3 -c '{script}'").split()}


def test_the_secret_is_in_files_of_the_owner_alone(cluster):
    secret = cluster.secret()
    assert re.fullmatch("[A-Za-z0-9]{64}", secret)
    for host in CLUSTER:
        assert cluster.shell(host, "cat /etc/spark/secret").strip() == secret
        assert cluster.shell(host, "stat -c '%a %U' /etc/spark/secret") == "600 root\n"
        found = cluster.shell(
            host,
            "grep -rlF --devices=skip --file=/etc/spark/secret /etc /var/lib /var/log /usr/local "
            "/root /home /run /tmp /opt/femto/envs/*/*.txt || true",
        ).split()
        assert "/etc/spark/secret" in found
        modes = cluster.shell(host, f"stat -c '%a %U %G %n' {shlex.join(found)}").splitlines()
        for mode, user, group, path in map(str.split, modes):
            assert mode in {"600", "640", "400", "440"}, path
            assert (user, group) in {
                ("root", "root"),
                ("root", "spark"),
                ("spark", "spark"),
                ("root", "jupyter"),
            }, path
        units = cluster.shell(host, "systemctl cat 'spark-*'; systemctl show 'spark-*'")
        assert "spark-class" in units
        assert secret not in units
        assert secret not in cluster.shell(host, "journalctl --no-pager --output=cat")
        # An account without rights reads none of it.
        assert secret not in cluster.shell(
            host, "setpriv --reuid=nobody --clear-groups cat /etc/spark/* 2>&1", check=False
        )


def test_ansible_and_the_web_pages_do_not_tell_the_secret(cluster):
    secret = cluster.secret()
    if not any("-vvv" in " ".join(map(str, done)) for done in cluster.commands):
        cluster.playbook("site.yml", "--diff", "-vvv")
    for output in cluster.outputs:
        assert secret not in output
    if not cluster.applications():
        cluster.shell("femto-master", JOB)
    wait(cluster.applications, "the history server lists no job")
    application = next(iter(cluster.applications()))
    page = str(cluster.page(f"/api/v1/applications/{application}/environment", port=18080))
    assert "spark.authenticate.secret" in page
    assert secret not in page


def test_one_page_of_the_master_cannot_kill_a_worker(cluster):
    request = urllib.request.Request(
        f"http://{ADDRESS['femto-master']}:8080/workers/kill/",
        data=b"host=" + ADDRESS["femto-worker1"].encode(),
    )
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=60)
    assert cluster.alive() == ["femto-worker1", "femto-worker2"]


def test_only_a_client_with_the_secret_is_served(clients):
    said = {name: client.communicate(timeout=HANG)[0] for name, client in clients.items()}
    assert "the sum is 45" in said["right"], said["right"]
    for name in ("none", "wrong"):
        assert clients[name].returncode != 0
        assert "the sum is 45" not in said[name]
        assert re.search(
            "Sasl|authenticat|AuthEngine|All masters are unresponsive|Could not connect|challenge",
            said[name],
            re.IGNORECASE,
        ), said[name]


def test_strangers_find_every_port_closed(stranger, job):
    for host in CLUSTER:
        ports = listening(stranger, host)
        assert ports, f"nothing listens on {host}"
        if host == "femto-master":
            # The page of the job that runs.
            assert 4040 in ports
        usual = {22, 4040, 6066, 7077, 7078, 7100, 7140, 8080, 8081, 18080}
        assert open_ports(stranger, "femto-stranger", host, ports | usual) == set()
    # The same probe finds them from where they are allowed: a node, and an admin's address.
    wait(
        lambda: 7077 in open_ports(stranger, "femto-worker1", "femto-master", [7077, 8080, 18080]),
        "the probe finds no open port",
    )
    assert not open_ports(stranger, "femto-worker1", "femto-master", [8080, 18080, 4040])
    for port in (8080, 4040, 18080):
        urllib.request.urlopen(f"http://{ADDRESS['femto-master']}:{port}/", timeout=60).close()
    for host in CLUSTER[1:]:
        urllib.request.urlopen(f"http://{ADDRESS[host]}:8081/", timeout=60).close()


def test_no_process_of_a_job_shows_the_secret(cluster, job):
    secret = cluster.secret()
    for host in CLUSTER:
        names = cluster.shell(host, "ps -eo args")
        assert "org.apache.spark.deploy" in names
        assert ("CoarseGrainedExecutorBackend" in names) == (host != "femto-master")
        assert secret not in names
