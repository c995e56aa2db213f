"""site.yml."""

from lab import CLUSTER


def test_verify(cluster):
    cluster.molecule("verify", "cluster")


def test_the_second_run_changes_nothing(cluster):
    # All that Ansible can tell, for the test that no secret is in it.
    done = cluster.playbook("site.yml", "--diff", "-vvv")
    assert {host: done.changed[host] for host in CLUSTER} == dict.fromkeys(CLUSTER, 0)
