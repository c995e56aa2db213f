"""Drives the hosts of the lab: commands on them, playbooks, faults, and jobs to disturb."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "molecule/shared/engine"
INVENTORY = ROOT / "molecule/inventory"
# Whether hosts that are there are taken over, and left running at the end.
KEEP = bool(os.environ.get("LAB_KEEP"))
NETWORK = "femto-lab"
# A host on which role scipy has been run, and nothing else.
SCIPY_IMAGE = "localhost/femto-lab-scipy"
NUMBERS = {
    "femto-master": 11,
    "femto-worker1": 12,
    "femto-worker2": 13,
    "femto-worker3": 14,
    "femto-stranger": 15,
    "femto-single": 16,
    "femto-remote": 17,
    "femto-alone": 18,
    "femto-ubuntu-22-04": 22,
    "femto-ubuntu-24-04": 24,
    "femto-ubuntu-26-04": 26,
    "femto-debian-12": 32,
    "femto-debian-13": 33,
}
ADDRESS = {host: f"10.89.60.{number}" for host, number in NUMBERS.items()}
CLUSTER = ["femto-master", "femto-worker1", "femto-worker2"]
# Ansible, Molecule and this Python come from one environment, which need not be the active one.
ENVIRONMENT = {
    "PATH": f"{ENGINE.parent}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_NOCOLOR": "1",
    "PY_COLORS": "0",
    "NO_COLOR": "1",
}


class Playbook(subprocess.CompletedProcess):
    """A finished run: its output, and `changed`, hosts -> number of changed tasks."""

    @property
    def changed(self) -> dict[str, int]:
        return {h: int(n) for h, n in re.findall(r"(\S+)\s+: ok=\d+\s+changed=(\d+)", self.stdout)}


class Lab:
    def __init__(self, folder: Path):
        self.folder = folder
        self.commands: list[list] = []
        self.outputs: list[str] = []

    # Hosts

    def engine(self, *arguments, check: bool = True, **options) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [ENGINE, *map(str, arguments)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=600,
            **options,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def shell(self, host: str, script: str, *, check: bool = True) -> str:
        """What the script, run by root on the host, writes."""
        return self.engine("exec", host, "bash", "-c", script, check=check).stdout

    def start_shell(self, host: str, script: str) -> subprocess.Popen:
        return subprocess.Popen(
            [ENGINE, "exec", host, "bash", "-c", script],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def exists(self, host: str) -> bool:
        return self.engine("container", "inspect", host, check=False).returncode == 0

    def create(self, *hosts: str, image: str = "") -> None:
        environment = {"LAB_HOSTS": " ".join(hosts)} | ({"LAB_IMAGE": image} if image else {})
        self.playbook("molecule/shared/create.yml", environment=environment)

    def remove_all(self) -> None:
        for host in NUMBERS:
            self.engine("rm", "--force", "--volumes", host, check=False)
        self.engine("rmi", "--force", SCIPY_IMAGE, check=False)
        self.engine("network", "rm", NETWORK, check=False)
        for scenario in ("cluster", "scipy", "spark", "jupyter"):
            self.molecule("reset", scenario)

    def boot(self, *hosts: str) -> None:
        """Switch hosts on, and wait until they have booted."""
        for host in hosts:
            self.engine("start", host)
        for host in hosts:
            wait(
                lambda h=host: (
                    "running" in self.shell(h, "systemctl is-system-running", check=False)
                    or "degraded" in self.shell(h, "systemctl is-system-running", check=False)
                ),
                60,
                f"{host} does not boot",
            )

    def cut(self, host: str) -> None:
        """Pull the network plug."""
        self.engine("network", "disconnect", NETWORK, host)

    def heal(self, host: str) -> None:
        mac = (
            []
            if os.environ["LAB_ENGINE"] == "docker"
            else ["--mac-address", f"02:10:89:60:00:{NUMBERS[host]}"]
        )
        self.engine("network", "connect", "--ip", ADDRESS[host], *mac, NETWORK, host)

    # Ansible and Molecule

    def playbook(
        self, path: str, *arguments: str, inventories=(), environment=None, ok: bool = True
    ) -> Playbook:
        """Run a playbook of the repository; its output is kept in `outputs`."""
        command = ["ansible-playbook"]
        for inventory in inventories or [INVENTORY]:
            command += ["-i", str(inventory)]
        done = subprocess.run(
            [*command, str(ROOT / path), *arguments],
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=1500,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT | (environment or {}),
        )
        self.commands.append(done.args)
        self.outputs.append(done.stdout)
        assert not ok or done.returncode == 0, done.stdout[-6000:]
        return Playbook(done.args, done.returncode, done.stdout)

    def start_playbook(self, path: str, *arguments: str, log: Path) -> subprocess.Popen:
        with log.open("w") as output:
            return subprocess.Popen(
                ["ansible-playbook", "-i", INVENTORY, ROOT / path, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | ENVIRONMENT,
            )

    def molecule(self, action: str, scenario: str) -> str:
        """Run one action of Molecule; its output. Fails the test if the action fails."""
        done = subprocess.run(
            ["molecule", action, "--scenario-name", scenario],
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=1500,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
        )
        self.commands.append(done.args)
        self.outputs.append(done.stdout)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def build(self) -> None:
        """The cluster from bare hosts, and the host that is no part of it."""
        self.molecule("create", "cluster")
        self.molecule("converge", "cluster")

    # Spark

    def page(self, path: str, host: str = "femto-master", port: int = 8080) -> dict:
        """A JSON page, asked for from this machine, whose address is admitted."""
        with urllib.request.urlopen(f"http://{ADDRESS[host]}:{port}{path}", timeout=60) as answer:
            return json.load(answer)

    def alive(self) -> list[str]:
        """The names of the workers that the master calls ALIVE; none if there is no master."""
        try:
            page = self.page("/json/")
        except OSError:
            return []
        if page["status"] != "ALIVE":
            return []
        names = {address: host for host, address in ADDRESS.items()}
        return sorted(names[w["host"]] for w in page["workers"] if w["state"] == "ALIVE")

    def wait_alive(self, *hosts: str, seconds: int = 90) -> None:
        wait(
            lambda: self.alive() == sorted(hosts),
            seconds,
            lambda: f"alive are {self.alive()}, not {hosts}",
        )

    def applications(self) -> dict[str, str]:
        """Applications that the history server lists as ended, id -> name; new ones come late."""
        listed = self.page("/api/v1/applications?status=completed", port=18080)
        return {application["id"]: application["name"] for application in listed}

    def secret(self) -> str:
        return self.shell("femto-master", "cat /etc/spark/secret").strip()


class Job:
    """femto-compress on the master, of many small pictures, running in the background."""

    def __init__(self, lab: Lab, name: str, pictures: Path, *options: str):
        self.lab = lab
        self.pictures = sorted(p.name for p in pictures.iterdir())
        self.folder = f"/var/lib/spark/{name}"
        lab.shell("femto-master", f"rm -rf {self.folder}; mkdir -p {self.folder}")
        lab.engine("cp", pictures, f"femto-master:{self.folder}/in")
        lab.shell("femto-master", f"chown -R spark: {self.folder}")
        self.process = lab.start_shell(
            "femto-master",
            f"femto-compress --no-report --input {self.folder}/in "
            f"--output {self.folder}/out {' '.join(options)}",
        )

    def done(self) -> int:
        """How many archives there are."""
        return int(
            self.lab.shell(
                "femto-master",
                f"ls {self.folder}/out 2>/dev/null | grep -c '[.]laff[.]gz$'",
                check=False,
            )
            or 0
        )

    def running(self) -> bool:
        return self.process.poll() is None

    def wait_until_busy(self, archives: int = 4) -> None:
        """Wait until some pictures are done and others are not."""
        wait(
            lambda: self.done() >= archives or not self.running(), 240, "the job does not get going"
        )
        self.assert_busy()

    def stop(self) -> None:
        """End a job that a failed test has left, which would keep the next one from its cores."""
        if self.running():
            self.lab.shell("femto-master", "pkill -KILL -f femto_job/compress.py", check=False)
            self.process.kill()
        self.process.wait()

    def assert_busy(self) -> None:
        assert self.running(), self.process.communicate()[0]
        assert self.done() < len(self.pictures)

    def assert_completes(self, expected: dict[str, bytes], seconds: int = 300) -> None:
        """The job ends well, and every picture has its one archive, the same as made locally."""
        output = self.process.communicate(timeout=seconds)[0]
        assert self.process.returncode == 0, output[-4000:]
        target = self.lab.folder / Path(self.folder).name
        self.lab.engine("cp", f"femto-master:{self.folder}/out", target)
        assert archives(target) == expected
        self.lab.shell("femto-master", f"rm -rf {self.folder}")


def archives(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*.laff.gz")}


def crops(folder: Path, count: int, size: int = 512) -> Path:
    """Write `count` different crops of the photographs in samples/."""
    folder.mkdir()
    photos = [
        np.asarray(Image.open(p)) for p in sorted((ROOT / "samples").iterdir()) if p.suffix != ".md"
    ]
    random = np.random.default_rng(4)
    for i in range(count):
        photo = photos[i % len(photos)]
        height, width = photo.shape[:2]
        y, x = (int(random.integers(0, max(1, n - size))) for n in (height, width))
        Image.fromarray(photo[y : y + size, x : x + size]).save(folder / f"crop {i:03}.png")
    return folder


def compress_locally(pictures: Path, output: Path, *options: str) -> dict[str, bytes]:
    """The archives that one process makes of the folder, without a cluster."""
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "femto_job/compress.py",
            "--input",
            pictures,
            "--output",
            output,
            *options,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return archives(output)


def wait(condition, seconds: float, message) -> float:
    """Wait until the condition holds; the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, message() if callable(message) else message
        time.sleep(0.5)
    return time.monotonic() - start
