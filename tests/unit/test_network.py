"""spark_network: which address the nodes of a cluster have among themselves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ansible")

ROOT = Path(__file__).resolve().parents[2]
# Host -> its addresses, that of the default route first.
HOSTS = {
    "master": ["203.0.113.1", "10.9.1.1", "10.0.0.2"],
    "one": ["203.0.113.2", "10.0.0.130", "10.0.0.3"],
    "two": ["203.0.113.3", "10.0.0.129"],
    "lost": ["203.0.113.4", "10.0.1.3"],
    "told": ["203.0.113.5", "10.0.0.7", "192.168.0.5"],
}
# A case: spark_network, and the address of each.
CASES = {
    "": ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "192.168.0.5"],
    "10.0.0.0/25": ["10.0.0.2", "10.0.0.3", "", "", "192.168.0.5"],
    "10.0.0.128/25": ["", "10.0.0.130", "10.0.0.129", "", "192.168.0.5"],
    "10.0.0.0/8": ["10.9.1.1", "10.0.0.130", "10.0.0.129", "10.0.1.3", "192.168.0.5"],
    "203.0.113.3/32": ["", "", "203.0.113.3", "", "192.168.0.5"],
    "0.0.0.0/0": ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "192.168.0.5"],
}
FACTS = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "service_mgr": "systemd",
    "architecture": "x86_64",
    "memtotal_mb": 9000,
}


def test_the_network_picks_each_node_s_address(tmp_path):
    tasks = [
        {
            "ansible.builtin.set_fact": FACTS
            | {
                "all_ipv4_addresses": "{{ _addresses }}",
                "default_ipv4": {"address": "{{ _addresses[0] }}"},
                "cacheable": True,
            }
        },
        # Brings the role's variables; what it does changes nothing.
        {
            "ansible.builtin.include_role": {
                "name": "spark", "tasks_from": "preflight_inventory", "public": True,
            },
        },
    ]  # fmt: skip
    told = {
        "own": "{{ spark_address }}",
        "its": "{{ _spark_its_address }}",
        "master": "{{ _spark_master_address }}",
        "wrong": "{{ _spark_wrong_host }}",
    }
    for number, network in enumerate(CASES):
        # Each host tells of itself, and of the one before it.
        variables = {
            "spark_network": network,
            "_spark_node": "{{ _hosts[_hosts.index(inventory_hostname) - 1] }}",
            "_told": told,
        }
        line = f"CASE {number} {{{{ inventory_hostname }}}} {{{{ _told | to_json }}}}"
        tasks.append({"ansible.builtin.debug": {"msg": line}, "vars": variables})
    play = tmp_path / "play.yml"
    names = list(HOSTS)
    play.write_text(
        json.dumps(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "connection": "local",
                    "vars": {"_hosts": names},
                    "tasks": tasks,
                }
            ]
        )
    )
    hosts = {name: {"_addresses": some} for name, some in HOSTS.items()}
    hosts["told"]["spark_address"] = "192.168.0.5"
    inventory = {
        "masters": {"hosts": {"master": hosts.pop("master")}},
        "workers": {"hosts": hosts},
    }
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", tmp_path / "hosts.yml", play),
        ],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"NO_COLOR": "1", "ANSIBLE_FORKS": "1"},
    )
    assert done.returncode == 0, done.stdout
    found = {}
    for text in re.findall(r'"msg": ("CASE .*")', done.stdout):
        _, number, host, said = json.loads(text).split(" ", 3)
        found[int(number), host] = json.loads(said)
    assert len(found) == len(CASES) * len(HOSTS), done.stdout
    for number, (network, addresses) in enumerate(CASES.items()):
        for k, (host, address) in enumerate(zip(names, addresses, strict=True)):
            said = found[number, host]
            assert said["own"] == address, (network, host)
            assert said["its"] == addresses[k - 1], (network, host)
            missing = [w for w in said["wrong"] if "is in spark_network, " + network in w]
            assert len(missing) == (not address), (network, host, said["wrong"])
            assert len(said["wrong"]) == len(missing)
        # Where it has none there it cannot become a cluster; that was told.
        assert said["master"] == (addresses[0] or HOSTS["master"][0])
