"""Drives the hosts of the lab: commands on them, playbooks, faults, and jobs to disturb."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "molecule/shared/engine"
INVENTORY = ROOT / "molecule/inventory"
INVENTORY_SINGLE = ROOT / "molecule/inventory-single"
# Whether hosts that are there are taken over, and left running at the end.
KEEP = bool(os.environ.get("LAB_KEEP"))
NETWORK = "femto-lab"
# A node on which all is installed, and nothing configured: with a digest of what it was made of as
# its tag.
NODE_IMAGE = "localhost/femto-lab-node"
# What is waited for comes, on a machine however busy, or never.
HANG = 900
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
    "femto-bare1": 41,
    "femto-bare2": 42,
    "femto-bare3": 43,
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
        # What the playbook of `running_playbook` writes.
        self.log = folder / "playbook.log"
        self.commands: list[list] = []
        self.outputs: list[str] = []

    # Hosts

    def engine(self, *arguments, check: bool = True, **options) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [ENGINE, *map(str, arguments)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=3600,
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

    def remove(self, *hosts: str) -> None:
        for host in hosts:
            self.engine("rm", "--force", "--volumes", host, check=False)

    def remove_all(self) -> None:
        """All hosts and their network; images stay."""
        self.remove(*NUMBERS)
        self.engine("network", "rm", NETWORK, check=False)
        for scenario in ("cluster", "default"):
            self.molecule("reset", scenario)

    # The image from which hosts start that need not be bare

    def base_image(self) -> str:
        """The name of the bare hosts' image."""
        base = os.environ.get("LAB_BASE", "ubuntu:24.04").replace(":", "-")
        return f"localhost/femto-lab:{base}"

    def node_image(self) -> str:
        """Its name, whether it is there or not."""
        base = self.engine("image", "inspect", "--format", "{{.Id}}", self.base_image())
        digest = hashlib.sha256(base.stdout.encode())
        for path in sorted(_sources()):
            digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
        return f"{NODE_IMAGE}:{digest.hexdigest()[:16]}"

    def has_node_image(self) -> bool:
        return self.engine("image", "inspect", self.node_image(), check=False).returncode == 0

    def install(self, host: str, inventory: Path) -> None:
        """Install what a node needs on a bare host, and make it the image if there is none."""
        tags = "scipy,spark_install"
        self.playbook("playbooks/cluster.yml", "--tags", tags, inventories=[inventory])
        if self.has_node_image():
            return
        name = self.node_image()
        images = self.engine("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        for old in images:
            if old.startswith(f"{NODE_IMAGE}:"):
                # One from which a host still runs stays, for the next time.
                self.engine("rmi", old, check=False)
        # Every host has a name of its own.
        self.shell(host, ": > /etc/machine-id; sync")
        self.engine("commit", host, name)

    def boot(self, *hosts: str) -> None:
        """Switch hosts on, and wait until they have booted."""
        for host in hosts:
            self.engine("start", host)
        for host in hosts:
            wait(
                lambda h=host: (
                    self.shell(h, "systemctl is-system-running", check=False).strip()
                    in {"running", "degraded"}
                ),
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
            timeout=3600,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT | (environment or {}),
        )
        self.commands.append(done.args)
        self.outputs.append(done.stdout)
        assert not ok or done.returncode == 0, done.stdout[-6000:]
        return Playbook(done.args, done.returncode, done.stdout)

    @contextlib.contextmanager
    def running_playbook(self, path: str, *arguments: str, inventories=()):
        """Run a playbook; at the end of the block it is waited for, and has to have gone well."""
        command = ["ansible-playbook"]
        for inventory in inventories or [INVENTORY]:
            command += ["-i", str(inventory)]
        with self.log.open("w") as output:
            running = subprocess.Popen(
                [*command, ROOT / path, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | ENVIRONMENT,
            )
        try:
            yield running
            assert running.wait(timeout=3600) == 0, self.log.read_text()[-6000:]
        finally:
            running.kill()
            running.wait()
            self.outputs.append(self.log.read_text())

    def molecule(self, action: str, scenario: str, *, environment=None) -> str:
        """Run one action of Molecule; its output. Fails the test if the action fails."""
        done = subprocess.run(
            ["molecule", action, "--scenario-name", scenario],
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=3600,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT | (environment or {}),
        )
        self.commands.append(done.args)
        self.outputs.append(done.stdout)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def build(self) -> None:
        """The cluster, from hosts on which everything is installed."""
        self.molecule("create", "cluster", environment={"LAB_IMAGE": self.node_image()})
        self.molecule("converge", "cluster")

    # Spark

    def _ask(self, path: str, host: str, port: int) -> dict:
        with urllib.request.urlopen(f"http://{ADDRESS[host]}:{port}{path}", timeout=60) as answer:
            return json.load(answer)

    def page(self, path: str, host: str = "femto-master", port: int = 8080) -> dict:
        """A JSON page, asked for from this machine, whose address is admitted. A service that has
        just started may not answer yet, or with a page that is not JSON: it is asked again."""
        end = time.monotonic() + HANG
        while True:
            try:
                return self._ask(path, host, port)
            except (OSError, ValueError, http.client.HTTPException):
                if time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def alive(self) -> list[str]:
        """The names of the workers that the master calls ALIVE; none if there is no master."""
        try:
            page = self._ask("/json/", "femto-master", 8080)
        except (OSError, ValueError, http.client.HTTPException):
            return []
        if page["status"] != "ALIVE":
            return []
        names = {address: host for host, address in ADDRESS.items()}
        return sorted(names[w["host"]] for w in page["workers"] if w["state"] == "ALIVE")

    def wait_alive(self, *hosts: str) -> None:
        wait(
            lambda: self.alive() == sorted(hosts), lambda: f"alive are {self.alive()}, not {hosts}"
        )

    def applications(self) -> dict[str, str]:
        """Applications that the history server lists as ended, id -> name; new ones come late."""
        listed = self.page("/api/v1/applications?status=completed", port=18080)
        return {application["id"]: application["name"] for application in listed}

    def secret(self) -> str:
        return self.shell("femto-master", "cat /etc/spark/secret").strip()


# Run on a worker: wait until an executor other than $1 is at a task, and stop the Python processes
# that do its tasks, in the middle of what they do. Writes which executor it is.
HOLD = r"""
while [ "$SECONDS" -lt 600 ]; do
    for executor in $(pgrep -f 'Coarse[G]rainedExecutorBackend'); do
        # Numbers come back when a host has restarted, times do not.
        identity=$executor-$(cut -d' ' -f22 /proc/$executor/stat) || continue
        [ "$identity" != "$1" ] || continue
        daemon=$(pgrep -P "$executor" -f 'pyspark[.]daemon') || continue
        [ -n "$(pgrep -P $daemon)" ] || continue
        kill -STOP $daemon
        if tasks=$(pgrep -P $daemon) && kill -STOP $tasks; then
            echo "$identity"
            exit
        fi
        kill -CONT $daemon
    done
    sleep 0.05
done
exit 1
"""
# Run on the master: stop the job that reads folder $1 as soon as it has written an archive; until
# it goes on, it feeds no more pictures to the executors.
PAUSE = r"""
until compgen -G "$1/out/*.laff.gz" > /dev/null; do
    [ "$SECONDS" -lt 600 ] || exit 1
    sleep 0.05
done
kill -STOP $(ps -eo pid=,comm=,args= |
    awk -v folder="$1/in" '$2 ~ /^python/ && index($0, folder) { print $1 }')
"""
GO_ON = "pkill -CONT -f 'pyspark[.]daemon'"


class Job:
    """femto-compress on the master, of many small pictures, running in the background.

    It is held from its first archive on: on each of the `workers` a task is stopped in the middle,
    so that the job is not over before it was disturbed, however long that takes. A worker that is
    released finishes its task and goes on with others. After a fault `hold_again` waits until its
    executor, a new one, is at work again, and stops that.
    """

    def __init__(self, lab: Lab, name: str, pictures: Path, workers: Iterable[str], *options: str):
        self.lab = lab
        self.pictures = sorted(p.name for p in pictures.iterdir())
        self.folder = f"/var/lib/spark/jobs/{name}"
        self.executors = dict.fromkeys(workers, "none")
        lab.shell("femto-master", f"rm -rf {self.folder}; mkdir -p {self.folder}")
        lab.engine("cp", pictures, f"femto-master:{self.folder}/in")
        lab.shell("femto-master", f"chown -R spark: {self.folder}")
        self.process = lab.start_shell(
            "femto-master",
            f"femto-compress --no-report --input {self.folder}/in "
            f"--output {self.folder}/out {' '.join(options)}",
        )
        try:
            self._wait("femto-master", self._start("femto-master", PAUSE, self.folder))
            holding = self._start_holding(*workers)
            lab.shell("femto-master", f"pkill -CONT -f 'python.*{self.folder}/in'")
            self._wait_held(holding)
            self.assert_busy()
        except BaseException:
            self.stop()
            raise

    def _start(self, host: str, script: str, argument: str) -> subprocess.Popen:
        return self.lab.start_shell(host, f"set -- {shlex.quote(argument)}\n{script}")

    def _wait(self, host: str, shell: subprocess.Popen) -> str:
        """What the script wrote."""
        wait(lambda: shell.poll() is not None or not self.running(), f"{host}: no end")
        assert self.running(), f"it is over: {self.process.communicate()[0]}"
        said = shell.communicate()[0]
        assert shell.returncode == 0, f"{host} does not get to work: {said}"
        return said.strip()

    def _start_holding(self, *workers: str) -> dict[str, subprocess.Popen]:
        return {w: self._start(w, HOLD, self.executors.get(w, "none")) for w in workers}

    def _wait_held(self, holding: dict[str, subprocess.Popen]) -> None:
        for worker, shell in holding.items():
            self.executors[worker] = self._wait(worker, shell)

    def hold_again(self, *workers: str) -> None:
        """Wait until new executors of these workers are at a task, and stop that."""
        self._wait_held(self._start_holding(*workers))
        self.assert_busy()

    def release(self, *workers: str) -> None:
        """Let these workers go on; all, if none is named."""
        for worker in workers or self.executors:
            self.lab.shell(worker, GO_ON, check=False)

    def finish_on(self, worker: str, playbook: subprocess.Popen) -> None:
        """Wait until the playbook drains the worker, and let it finish its task."""
        wait(
            lambda: worker not in self.lab.alive() or playbook.poll() is not None,
            f"{worker} is not drained",
        )
        self.release(worker)

    def done(self) -> int:
        """How many archives there are."""
        listed = self.lab.shell("femto-master", f"ls {self.folder}/out", check=False)
        return sum(name.endswith(".laff.gz") for name in listed.split("\n"))

    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End a job that a failed test has left, which would keep the next one from its cores."""
        if self.running():
            self.lab.shell("femto-master", "pkill -KILL -f femto_job/compress.py", check=False)
            self.process.kill()
        self.release()
        self.process.wait()

    def assert_busy(self) -> None:
        assert self.running(), self.process.communicate()[0]
        assert self.done() < len(self.pictures)

    def assert_completes(self, expected: dict[str, bytes]) -> None:
        """Released, the job ends well, and every picture has its one archive, the same as made
        locally."""
        self.release()
        output = self.process.communicate(timeout=HANG)[0]
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


def _sources() -> Iterable[Path]:
    """What a node is made of: roles, pins, femto, the lab itself."""
    for name in ("ansible.cfg", "pyproject.toml", "setup.py", "backend.py"):
        yield ROOT / name
    yield from ROOT.glob("requirements*.txt")
    for name in ("roles", "plugins", "playbooks", "femto_job", "molecule/shared"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def wait(condition, message) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, message() if callable(message) else message
        time.sleep(0.5)
