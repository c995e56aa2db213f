"""Examine one node of the cluster; prints JSON: what is wrong here, and facts to compare.

    python3 doctor.py OPTIONS        (OPTIONS is JSON; the doctor's tasks know its names)

Runs as root with the system's Python and changes nothing.
"""

import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

NUMBERS = (
    "controller_time",
    "daemon_memory_mb",
    "least_system_mb",
    "master_port",
    "max_skew_seconds",
    "min_disk_mb",
    "worker_ui_port",
)


class Doctor:
    def __init__(self, options: dict):
        self.options = options
        for name in NUMBERS:
            options[name] = float(options[name])
        options["firewall"] = str(options["firewall"]).lower() == "true"
        self.problems: list[str] = []
        self.facts: dict = {}
        self.conf = Path("/etc/spark")

    def wrong(self, what: str, remedy: str) -> None:
        self.problems.append(f"{what}: {remedy}")

    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout.strip()

    def examine(self) -> None:
        if not self.conf.is_dir():
            self.wrong("femto is not installed here", "run site.yml")
            return
        self.clock()
        self.environment()
        self.secret()
        self.names()
        self.disks()
        self.memory()
        self.firewall()
        reachable = self.master()
        for service in self.options["services"]:
            self.service(service)
        if "spark-worker" in self.options["services"]:
            self.worker(reachable)

    def clock(self) -> None:
        skew = time.time() - self.options["controller_time"]
        # The command itself takes a moment to arrive, which makes a host seem to be ahead.
        if abs(skew) > self.options["max_skew_seconds"]:
            ahead = "ahead of" if skew > 0 else "behind"
            self.wrong(
                f"the clock is {abs(skew):.0f} s {ahead} the controller's",
                "switch on a time service: apt-get install systemd-timesyncd",
            )

    def environment(self) -> None:
        home = Path(self.options["home"])
        current = Path(os.path.realpath(home)).parent
        self.facts["environment"] = current.name
        python = self.options["python"]
        if not (home / "bin" / "spark-class").is_file():
            self.wrong(f"there is no Spark in {home}", "run site.yml")
        else:
            found = re.search(
                r"^__version__[^=]*= *[\"']([^\"']*)",
                (home / "version.py").read_text(),
                re.MULTILINE,
            )
            self.facts["Spark"] = found.group(1) if found else "?"
        version = self.run(python, "-V") if os.access(python, os.X_OK) else ""
        if version:
            self.facts["Python"] = ".".join(version.split()[-1].split(".")[:2])
        else:
            self.wrong(f"{python} does not run", "run site.yml; it builds what is missing")
        java = Path(self.options["java"], "bin/java")
        if not os.access(java, os.X_OK):
            self.wrong(f"there is no Java in {java.parent.parent}", "run site.yml")

    def secret(self) -> None:
        try:
            secret = (self.conf / "secret").read_text().strip()
            defaults = (self.conf / "spark-defaults.conf").read_text()
        except OSError as error:
            self.wrong(f"{error.filename} cannot be read ({error.strerror})", "run site.yml")
            return
        used = re.search(r"^spark\.authenticate\.secret (.*)$", defaults, re.MULTILINE)
        if used is None or used.group(1).strip() != secret:
            self.wrong(
                "/etc/spark/spark-defaults.conf has another secret than /etc/spark/secret",
                "run site.yml, which writes the cluster's secret again",
            )
        # Only good to compare, and only in this run.
        used_secret = secret if used is None else used.group(1).strip()
        nonce = self.options["nonce"].encode()
        self.facts["secret"] = hmac.new(nonce, used_secret.encode(), hashlib.sha256).hexdigest()
        for name, most in (("secret", 0o600), ("spark-defaults.conf", 0o640)):
            mode = (self.conf / name).stat().st_mode & 0o777
            if mode & ~most:
                self.wrong(
                    f"/etc/spark/{name} has mode {mode:04o}: others may read the secret",
                    "run site.yml, and change the secret if others had access",
                )

    def names(self) -> None:
        name = socket.gethostname()
        try:
            socket.getaddrinfo(name, None)
        except OSError:
            self.wrong(
                f"this host's own name, {name}, has no address",
                f"add the line '127.0.1.1 {name}' to /etc/hosts",
            )
        address = self.options["address"]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family) as mine:
                mine.bind((address, 0))
        except OSError:
            self.wrong(
                f"spark_address {address} is no address of this host",
                "correct it in the inventory, then run site.yml",
            )

    def disks(self) -> None:
        seen = set()
        wanted = self.options["min_disk_mb"]
        for path in ("/", "/tmp", "/etc", "/opt", *self.options["paths"]):
            try:
                device = os.stat(path).st_dev
                status = os.statvfs(path)
            except OSError:
                continue
            if device in seen:
                continue
            seen.add(device)
            free = shutil.disk_usage(path).free >> 20
            if free < wanted and path != "/tmp":
                self.wrong(
                    f"the disk of {path} is full: {free} MB free, {wanted:.0f} wanted",
                    f"see what fills it with: du -xh {path} | sort -h | tail",
                )
            if status.f_files and status.f_favail < status.f_files // 100:
                self.wrong(f"the disk of {path} has no inodes left", "remove small files there")

    def memory(self) -> None:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total, available = kilobytes["MemTotal"] >> 10, kilobytes["MemAvailable"] >> 10
        daemons = self.options["daemon_memory_mb"] * len(self.options["services"])
        if "spark-worker" not in self.options["services"]:
            offered = 0
        else:
            unit = self.run("systemctl", "show", "--property=Environment", "spark-worker")
            found = re.search(r"SPARK_WORKER_MEMORY=(\d+)m", unit)
            offered = int(found.group(1)) if found else 0
        needed = offered + daemons + self.options["least_system_mb"]
        if needed > total:
            self.wrong(
                f"too little memory: {total} MB, but executors ({offered}), daemons ({daemons:g}) "
                f"and the system may take {needed:.0f}",
                "lower spark_worker_memory_mb or take a larger host, then run site.yml",
            )
        elif available < min(256, total // 20):
            self.wrong(
                f"memory is used up: {available} MB of {total} are available",
                "see what takes it with: ps -eo rss,args --sort=-rss | head",
            )
        executor = self.options["executor_memory"].lower()
        found = re.fullmatch(r"(\d+)([mg])b?", executor)
        if found and offered and int(found[1]) * (1024 if found[2] == "g" else 1) > offered:
            self.wrong(
                f"too little memory: an executor takes {executor}, the worker offers {offered} MB",
                "lower spark_executor_memory or take a larger host, then run site.yml",
            )

    def firewall(self) -> None:
        if not self.options["firewall"]:
            return
        if "chain input" not in self.run("nft", "list", "table", "inet", "femto"):
            self.wrong("the firewall's rules are not loaded", "systemctl restart femto-firewall")

    def master(self) -> bool:
        host, port = self.options["master"], int(self.options["master_port"])
        try:
            socket.create_connection((host, port), timeout=5).close()
            return True
        except ConnectionRefusedError:
            self.wrong(
                f"the master is unreachable: nothing listens on {host}:{port}",
                "run start.yml; if it stays away: journalctl -u spark-master on the master's host",
            )
        except OSError as error:
            self.wrong(
                f"the master is unreachable: {host}:{port} does not answer ({error})",
                "check the network between the nodes and your provider's firewall, run site.yml",
            )
        return False

    def service(self, name: str) -> None:
        state = self.run("systemctl", "is-active", name)
        if state != "active":
            last = self.run("journalctl", f"--unit={name}", "--lines=40", "--output=cat")
            lines = [x for x in last.splitlines() if re.search(r"ERROR|Exception|Failed|failed", x)]
            why = f" ({lines[-1].strip()[:200]})" if lines else ""
            self.wrong(f"{name} is {state or 'not there'}{why}", "run start.yml, or site.yml")
            return
        if self.run("systemctl", "is-enabled", name) != "enabled":
            self.wrong(f"{name} does not start with the host", "run site.yml")
        pid = self.run("systemctl", "show", "--property=MainPID", "--value", name)
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return
        homes = [x[11:].decode() for x in environment if x.startswith(b"SPARK_HOME=")]
        if homes and os.path.realpath(homes[0]) != os.path.realpath(self.options["home"]):
            self.wrong(
                f"{name} runs from {Path(homes[0]).parent.name}, not from the active environment "
                f"{self.facts.get('environment')}",
                "run upgrade.yml",
            )

    def worker(self, reachable: bool) -> None:
        address, port = self.options["address"], int(self.options["worker_ui_port"])
        if self.run("systemctl", "is-active", "spark-worker") != "active" or not reachable:
            return
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/json/", timeout=5) as answer:
                state = json.load(answer)
        except (OSError, ValueError):
            self.wrong(f"the worker does not answer at {address}:{port}", "run start.yml")
            return
        if state.get("masterurl"):
            return
        try:
            log = Path(self.options["log"], "worker.log").read_text(errors="replace")[-20000:]
        except OSError:
            log = ""
        if re.search(r"Sasl|[Aa]uthentication|AuthEngine|challenge|[Ss]ecret", log):
            self.wrong("the master refuses this worker: wrong secret", "run site.yml")
        else:
            self.wrong("the worker is not registered with the master", "run start.yml")


def main() -> None:
    doctor = Doctor(json.loads(sys.argv[1]))
    doctor.examine()
    print(json.dumps({"problems": doctor.problems, "facts": doctor.facts}))


main()
