"""What keeps others out: file modes, and silence about the secret."""

import urllib.error
import urllib.request

import pytest
from lab import ADDRESS, CLUSTER


def test_the_secret_is_in_files_of_the_owner_alone(cluster):
    secret = cluster.secret()
    assert len(secret) >= 32
    for host in CLUSTER:
        assert cluster.shell(host, "cat /etc/spark/secret").strip() == secret
        assert cluster.shell(host, "stat -c '%a %U' /etc/spark/secret") == "600 root\n"
        found = cluster.shell(
            host,
            "grep -rlF --devices=skip --file=/etc/spark/secret /etc /var/lib /var/log /usr/local "
            "/root /home /run /tmp /opt/femto/envs/*/*.txt || true",
        ).split()
        assert "/etc/spark/secret" in found
        for path in found:
            mode, user, group = cluster.shell(host, f"stat -c '%a %U %G' {path}").split()
            assert mode in {"600", "640", "400", "440"}, path
            assert (user, group) in {("root", "root"), ("root", "spark"), ("spark", "spark")}, path
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
        urllib.request.urlopen(request, timeout=10)
    assert cluster.alive() == ["femto-worker1", "femto-worker2"]
