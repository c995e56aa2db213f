"""The whole road on every system, and on three bare hosts: site.yml twice, then compress.yml."""

import pytest
from lab import INVENTORY, KEEP, ROOT, archives, compress_locally

SYSTEMS = ["ubuntu:22.04", "ubuntu:24.04", "ubuntu:26.04", "debian:12", "debian:13"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return compress_locally(ROOT / "samples", tmp_path_factory.mktemp("local"), "--no-report")


def walk(lab, folder, expected, hosts: list[str], base: str) -> None:
    """site.yml on bare hosts, of which the first is the master, again, and a job."""
    master, *workers = hosts
    inventory = folder / "inventory"
    inventory.mkdir()
    (inventory / "hosts.yml").write_text(
        "lab:\n  children:\n"
        f"    masters: {{hosts: {{{master}: {{ansible_host: {master}}}}}}}\n"
        "    workers: {hosts: {"
        + ", ".join(f"{host}: {{ansible_host: {host}}}" for host in workers or [master])
        + "}}\n"
    )
    (inventory / "group_vars").symlink_to(INVENTORY / "group_vars")
    lab.remove(*hosts)
    environment = {"LAB_HOSTS": " ".join(hosts), "LAB_BASE": base}
    lab.playbook("molecule/shared/create.yml", environment=environment)
    try:
        lab.playbook("site.yml", inventories=[inventory])
        second = lab.playbook("site.yml", inventories=[inventory])
        assert {host: second.changed[host] for host in hosts} == dict.fromkeys(hosts, 0)
        lab.playbook(
            "playbooks/compress.yml",
            *("-e", f"spark_compress_input={ROOT / 'samples'}"),
            *("-e", f"spark_compress_output={folder / 'archives'}"),
            inventories=[inventory],
        )
        assert archives(folder / "archives") == expected
    finally:
        if not KEEP:
            lab.remove(*hosts)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_whole_road(lab, tmp_path, expected, system):
    walk(lab, tmp_path, expected, ["femto-" + system.replace(":", "-").replace(".", "-")], system)


def test_three_bare_hosts_at_once(lab, tmp_path, expected):
    hosts = ["femto-bare1", "femto-bare2", "femto-bare3"]
    walk(lab, tmp_path, expected, hosts, "ubuntu:24.04")
