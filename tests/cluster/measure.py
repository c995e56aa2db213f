"""How long a cluster takes: bare hosts to ready, the second run, and what idle hosts take.

    python3 tests/cluster/measure.py [--workers 1 2 3] [--output docs/cluster.json]

Runs site.yml on fresh hosts of the lab (molecule/shared/engine), which share this machine's cores;
packages come from the lab's cache after the first time. Takes a while: nothing else should run.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

from lab import ENGINE, ROOT, Lab

# Sum of the memory of all processes of a host, shared pages divided by those who share them.
IDLE_MB = (
    "cat /proc/[0-9]*/smaps_rollup 2>/dev/null"
    " | awk '/^Pss:/ { kb += $2 } END { printf \"%d\", kb / 1024 }'"
)


def measure(lab: Lab, workers: int) -> dict:
    hosts = ["femto-master", *(f"femto-worker{i + 1}" for i in range(workers))]
    lab.remove_all()
    lab.create(*hosts)
    inventory = lab.folder / f"workers{workers}" / "hosts.yml"
    inventory.parent.mkdir()
    groups = {
        group: {"hosts": {name: {"ansible_host": name} for name in names}}
        for group, names in (("masters", hosts[:1]), ("workers", hosts[1:]))
    }
    inventory.write_text(json.dumps({"lab": {"children": groups}}))
    settings = ROOT / "molecule/inventory/group_vars"
    (inventory.parent / "group_vars").symlink_to(settings)
    load = os.getloadavg()[0]
    start = time.monotonic()
    lab.playbook("site.yml", inventories=[inventory])
    first = time.monotonic() - start
    lab.wait_alive(*hosts[1:])
    start = time.monotonic()
    again = lab.playbook("site.yml", inventories=[inventory])
    second = time.monotonic() - start
    assert {again.changed[host] for host in hosts} == {0}, again.changed
    time.sleep(30)
    return {
        "workers": workers,
        "bare_to_ready_minutes": round(first / 60, 1),
        "second_run_seconds": round(second),
        "second_run_changed": 0,
        "idle_mb": {host: int(lab.shell(host, IDLE_MB)) for host in hosts},
        "load_of_others_before": round(load, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=ROOT / "docs/cluster.json")
    options = parser.parse_args()
    engine = subprocess.run([ENGINE, "--prepare"], stdout=subprocess.PIPE, text=True, check=True)
    os.environ["LAB_ENGINE"] = engine.stdout.split()[-1]
    lab = Lab(Path(tempfile.mkdtemp(prefix="femto-lab-")))
    results = {
        "command": "python3 tests/cluster/measure.py",
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.machine(),
            "engine": os.environ["LAB_ENGINE"],
        },
        "hosts": "ubuntu:24.04 with systemd, all on this machine",
        "clusters": [],
    }
    try:
        for workers in options.workers:
            results["clusters"].append(measure(lab, workers))
            print(json.dumps(results["clusters"][-1]), flush=True)
    finally:
        lab.remove_all()
    options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
