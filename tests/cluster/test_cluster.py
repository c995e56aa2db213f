"""site.yml."""

import json

from lab import CLUSTER

# A driver: what its tasks run on, and what of a compiler they find.
TASKS = """
import json
from femto_spark import session

def look(number):
    import importlib.util, platform, time
    import femto_spark, femto, numpy
    from femto.coding import kernels
    picture = numpy.arange(6400, dtype=numpy.uint16).reshape(80, 80)
    femto.decode(femto.encode(picture))
    time.sleep(1)  # no executor does the work of others
    compilers = [n for n in ("numba", "llvmlite") if importlib.util.find_spec(n)]
    return platform.node(), kernels.road().name, femto.__file__, compilers

context = session.start("roads", overwrite_conf={"spark.eventLog.enabled": "false"})
print(json.dumps(context.parallelize(range(12), 12).map(look).collect()))
"""


def test_verify(cluster):
    cluster.molecule("verify", "cluster")


def test_the_second_run_changes_nothing(cluster):
    # All that Ansible can tell, for the test that no secret is in it.
    done = cluster.playbook("site.yml", "--diff", "-vvv")
    assert {host: done.changed[host] for host in CLUSTER} == dict.fromkeys(CLUSTER, 0)


def test_tasks_run_what_the_driver_sent_and_nothing_is_compiled(cluster):
    said = cluster.shell(
        "femto-master",
        f"""
set -e
cat > /tmp/tasks.py <<'PROGRAM'
{TASKS}
PROGRAM
setpriv --reuid=spark --regid=spark --init-groups bash -c '
. /etc/profile.d/femto.sh
cd /tmp && spark-submit tasks.py'
rm /tmp/tasks.py
""",
    )
    found = json.loads(said)
    assert {host for host, *_ in found} == set(CLUSTER[1:])
    assert {road for _, road, *_ in found} == {"library"}
    assert all(path.startswith("/var/lib/spark/cache/femto/code-") for *_, path, _ in found), found
    assert not any(compilers for *_, compilers in found)
    for host in CLUSTER:
        cluster.shell(host, "! command -v cc gcc clang ld")
        # Neither objects of the compiler's nor libraries but those that were sent.
        made = "find /var/lib /root /tmp -name '*.o' -o -name 'linux-*.so'"
        assert all("/code-" in path for path in cluster.shell(host, made).splitlines())
