"""A host as its owner has it: sshd on another port, an account with sudo, no other way in."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from lab import ADDRESS, INVENTORY, KEEP, Lab, wait

HOST, PORT, ACCOUNT = "femto-remote", 2222, "deploy"
TARGET = f"{ACCOUNT}@{ADDRESS[HOST]}"
SETUP = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq install --no-install-recommends openssh-server nftables > /dev/null
# Ubuntu's sshd is started by a socket, which reads the port from here too.
echo 'Port {PORT}' > /etc/ssh/sshd_config.d/port.conf
systemctl daemon-reload
systemctl restart ssh.socket 2> /dev/null || systemctl restart ssh
useradd --create-home --shell /bin/bash {ACCOUNT}
echo '{ACCOUNT} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{ACCOUNT}
install -d -m 700 -o {ACCOUNT} /home/{ACCOUNT}/.ssh
"""
KEYS = f" > /home/{ACCOUNT}/.ssh/authorized_keys"


class Remote:
    """The host, and the inventory and key with which it is reached over SSH alone."""

    def __init__(self, lab: Lab, folder: Path):
        self.lab, self.folder = lab, folder
        self.key = folder / "key"
        self.inventory = folder / "inventory"
        self.options = (
            f"-i {self.key} -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new "
            f"-o UserKnownHostsFile={folder / 'known_hosts'}"
        )

    def prepare(self) -> None:
        """A bare host with sshd, and an inventory for it."""
        assert shutil.which("ssh"), "no ssh here: install openssh-client"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.lab.remove(HOST)
        self.lab.create(HOST)
        self.lab.shell(HOST, SETUP + f"echo '{self.key.with_suffix('.pub').read_text()}'" + KEYS)
        self.inventory.mkdir()
        variables = {
            "ansible_connection": "ssh",
            "ansible_host": ADDRESS[HOST],
            "ansible_port": PORT,
            "ansible_user": ACCOUNT,
            "ansible_ssh_common_args": f'"{self.options}"',
        }
        lines = "\n".join(f"        {name}: {value}" for name, value in variables.items())
        (self.inventory / "hosts.yml").write_text(
            f"lab:\n  children:\n    masters:\n      hosts: {{{HOST}: }}\n"
            f"    workers:\n      hosts: {{{HOST}: }}\n  hosts:\n    {HOST}:\n{lines}\n"
        )
        (self.inventory / "group_vars").symlink_to(INVENTORY / "group_vars")

    def playbook(self, path: str, *arguments: str, ok: bool = True):
        return self.lab.playbook(path, *arguments, inventories=[self.inventory], ok=ok)

    def ssh(self, command: str) -> subprocess.CompletedProcess:
        """A connection of its own, not one that Ansible has left open."""
        options = "-o ControlPath=none -o BatchMode=yes -o ConnectTimeout=60"
        return subprocess.run(
            ["ssh", *f"{self.options} {options} -p {PORT}".split(), TARGET, command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def remote(lab, tmp_path_factory):
    remote = Remote(lab, tmp_path_factory.mktemp("ssh"))
    remote.prepare()
    yield remote
    subprocess.run(
        ["ssh", "-O", "exit", "-p", str(PORT), f"{ACCOUNT}@{ADDRESS[HOST]}"], check=False
    )
    if not KEEP:
        lab.remove(HOST)


# A job that waits for files: what happens between them happens while it runs.
JOB = """
echo "12:59:30 [#---] 1/2 pictures" >&2
until [ -e go ]; do sleep 0.1; done
echo "13:00:00 [##--] 2/2 pictures" >&2
until [ -e end ]; do sleep 0.1; done
echo "1 compressed, 1 failed"
exit 1
"""
WATCH = f"""
- hosts: masters
  become: true
  gather_facts: false
  tasks:
    - ansible.builtin.command:
        argv: [systemd-run, --unit=watched, --property=RemainAfterExit=yes,
               --property=User={ACCOUNT}, --property=WorkingDirectory=/home/{ACCOUNT},
               sh, -c, exec sh job > stdout 2> stderr]
    - femto_watch: {{unit: watched, folder: /home/{ACCOUNT}, account: {ACCOUNT}}}
      register: lab_watched
    - ansible.builtin.debug:
        msg: "it ended with {{{{ lab_watched.rc }}}}: {{{{ lab_watched.stdout }}}}"
"""
DROP = f"type filter hook input priority -10; tcp dport {PORT} drop;"
CUT = f"table inet cut {{ chain input {{ {DROP} }}; }}"


def connects(port: int) -> bool:
    try:
        socket.create_connection((ADDRESS[HOST], port), timeout=3).close()
    except OSError:
        return False
    return True


def test_the_firewall_leaves_the_way_in_open(remote):
    remote.lab.shell(HOST, "systemd-run --unit=listener python3 -m http.server 9999")
    wait(lambda: connects(9999), "nothing listens on the port to be closed")
    assert remote.ssh("sudo -n id -un").stdout == "root\n"
    remote.playbook("playbooks/cluster.yml", "--tags", "spark_firewall")
    assert not connects(9999)
    assert connects(PORT)
    assert remote.ssh("sudo -n id -un").stdout == "root\n"
    # And after a restart of the host, when the rules are loaded before sshd starts.
    remote.lab.engine("restart", HOST)
    remote.lab.boot(HOST)
    wait(lambda: remote.ssh("true").returncode == 0, "SSH does not come back")
    rules = remote.ssh("sudo -n nft list chain inet femto input").stdout
    assert f"{PORT}" in rules and "policy drop" in rules
    assert not connects(9999)


def test_a_job_is_watched_through_a_lost_connection(remote):
    path = remote.folder / "watch.yml"
    path.write_text(WATCH)
    remote.lab.shell(HOST, f"cat > /home/{ACCOUNT}/job <<'END'{JOB}END")
    log = remote.lab.log

    def wait_for(text: str) -> None:
        wait(
            lambda: text in log.read_text() or watching.poll() is not None,
            f"no word of {text}",
        )
        assert text in log.read_text(), log.read_text()[-4000:]

    with remote.lab.running_playbook(path, inventories=[remote.inventory]) as watching:
        wait_for("[#---] 1/2 pictures")
        remote.lab.shell(HOST, f"nft '{CUT}'; pkill -KILL -u {ACCOUNT} sshd")
        wait_for("the connection is lost")
        remote.lab.shell(HOST, f"touch /home/{ACCOUNT}/go; nft delete table inet cut")
        wait_for("[##--] 2/2 pictures")
        remote.lab.shell(HOST, f"touch /home/{ACCOUNT}/end")
        wait_for("it ended with 1: 1 compressed, 1 failed")
