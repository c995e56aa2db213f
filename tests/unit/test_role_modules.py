"""The roles' own modules and checks, without hosts: what they refuse, and what they leave alone."""

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "plugins/modules"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


preflight = load(ROOT / "plugins/action/femto_preflight.py")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("999.1.1.1/99", "neither an address nor a network"),
        ("10.0.0.0/33", "neither an address nor a network"),
        ("10.0.0", "neither an address nor a network"),
        ("office", "neither an address nor a network"),
        ("", "neither an address nor a network"),
        ("198.51.100.7/24", "write 198.51.100.0/24 for all of it, or 198.51.100.7"),
        ("2001:db8::7", "is an address of IPv6"),
        ("2001:db8::/32", "is an address of IPv6"),
    ],
)
def test_what_is_no_address_is_refused_by_name(given, said):
    with pytest.raises(ValueError, match=r"^spark_admin_cidrs: ") as refused:
        preflight.network_of(given, "spark_admin_cidrs")
    assert said in str(refused.value)
    assert given in str(refused.value)


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ("198.51.100.7", "198.51.100.7/32"),
        ("198.51.100.0/24", "198.51.100.0/24"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_addresses_become_networks(given, network):
    assert str(preflight.network_of(given, "spark_admin_cidrs")) == network


def run(name: str, *, check=False, diff=False, path="", before=(), **arguments) -> dict:
    """Run a module as Ansible does on a host; its result."""
    modes = {"_ansible_check_mode": check, "_ansible_diff": diff}
    given = {"ANSIBLE_MODULE_ARGS": arguments | modes}
    done = subprocess.run(
        [*before, sys.executable, MODULES / f"{name}.py"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {}),
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def commands(tmp_path):
    """A folder for the front of PATH, in which systemctl only writes down what it was told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\n')
    (folder / "systemctl").chmod(0o755)
    (folder / "told").touch()
    return folder


@pytest.fixture
def mine():
    import grp

    return {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


def test_files_only_what_has_changed_is_written_and_restarted(tmp_path, commands, mine):
    files = [
        {"path": f"{tmp_path}/conf", "state": "directory", **mine},
        {"path": f"{tmp_path}/conf/a", "content": "a\n", "restarts": ["a"], **mine},
        {"path": f"{tmp_path}/conf/b", "content": "b\n", "restarts": ["b", "c"], **mine},
    ]
    planned = run("femto_files", files=files, check=True, path=commands)
    assert planned["changed"] and not (tmp_path / "conf").exists()
    assert run("femto_files", files=files, path=commands)["restarted"] == ["a", "b", "c"]
    assert not run("femto_files", files=files, path=commands)["changed"]
    files[1]["content"] = "another\n"
    files[2]["mode"] = "0600"
    (commands / "told").write_text("")
    changed = run("femto_files", files=files[:2], path=commands)
    assert changed["paths"] == [f"{tmp_path}/conf/a"]
    assert (commands / "told").read_text() == "try-restart a\n"
    run("femto_files", files=files, path=commands)
    assert (tmp_path / "conf/b").stat().st_mode & 0o777 == 0o600
    gone = [{"path": f"{tmp_path}/{path}", "state": "absent"} for path in ("conf", "conf/a")]
    assert run("femto_files", files=gone, path=commands)["changed"]
    assert not (tmp_path / "conf").exists()


def test_files_nothing_is_replaced_when_one_is_wrong(tmp_path, mine):
    (tmp_path / "a").write_text("old")
    files = [
        {"path": f"{tmp_path}/a", "content": "new", **mine},
        {"path": f"{tmp_path}/b", "content": "if", "validate": "bash -n %s", **mine},
    ]
    refused = run("femto_files", files=files)
    assert refused["failed"]
    assert f"{tmp_path}/b would be wrong and stays as it was" in refused["msg"]
    assert (tmp_path / "a").read_text() == "old"
    assert not (tmp_path / "b").exists()


def test_files_a_link_in_place_of_a_folder_gives_nothing_away(tmp_path, mine):
    """Who may write above a folder could have root change what a link points to."""
    (tmp_path / "precious").mkdir(mode=0o751)
    (tmp_path / "folder").symlink_to("precious")
    files = [{"path": f"{tmp_path}/folder", "state": "directory", "mode": "0700", **mine}]
    refused = run("femto_files", files=files)
    assert refused["failed"] and "is a link, not a folder" in refused["msg"]
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o751
    # A file is replaced, not what it points to.
    (tmp_path / "target").write_text("precious")
    (tmp_path / "file").symlink_to("target")
    run("femto_files", files=[{"path": f"{tmp_path}/file", "content": "ours", **mine}])
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "target").read_text() == "precious"


def test_files_secrets_are_shown_nowhere(tmp_path, mine):
    file = {"path": f"{tmp_path}/conf", "mode": "0600", **mine}
    run("femto_files", files=[file | {"secret": "key first-secret\n"}])
    said = run("femto_files", files=[file | {"secret": "key second-secret\n"}], diff=True)
    assert said["changed"] and said["diff"]
    assert "secret\\n" not in json.dumps(said) and "first-" not in json.dumps(said)
    said = run(
        "femto_files", files=[file | {"secret": "key third-secret\n", "validate": "cat %s /none"}]
    )
    assert said["failed"] and "third-" not in json.dumps(said)


RULES = """\
table inet femto
delete table inet femto
table inet femto {{
    set admins {{
        type ipv4_addr
        flags interval
        auto-merge
        elements = {{ {} }}
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        meta l4proto {{ 1, 58 }} accept
        ip saddr @admins tcp dport {{ 8080, 4040-4071 }} accept
    }}
}}
include "{}/rules.d/*.nft"
"""


@pytest.fixture
def network(tmp_path, commands):
    """What is to come before a command, so that it has a network and a /run of its own; only
    systemd is not real: `undo` in the folder of commands does what its timer would."""
    if os.getuid() != 0 or not all(map(shutil.which, ("nft", "unshare", "nsenter"))):
        pytest.skip("needs root, nft and unshare")
    state = "ActiveState=active\\nUnitFileState=enabled\\n"
    (commands / "systemctl").write_text(f"#!/bin/sh\nprintf '{state}'\n")
    note = f'for last; do :; done; echo "$last" > {commands}/undo'
    (commands / "systemd-run").write_text(f"#!/bin/sh\n{note}\n")
    (commands / "systemd-run").chmod(0o755)
    own_run = "mount -t tmpfs tmpfs /run"
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", f"{own_run} && echo && exec sleep 600"],
        stdout=subprocess.PIPE,
    )
    try:
        if not holder.stdout.readline():
            pytest.skip("root may not make a network namespace here")
        yield ["nsenter", f"--target={holder.pid}", "--net", "--mount", f"--wd={tmp_path}"]
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture
def firewall(tmp_path, commands, network):
    folder = tmp_path / "conf"
    (folder / "rules.d").mkdir(parents=True)

    def call(state: str, admins: str = "", **options) -> dict:
        rules = {"rules": RULES.format(admins, folder)} if admins else {}
        arguments = {"folder": str(folder), "state": state} | rules | options
        return run("femto_firewall", path=commands, before=network, **arguments)

    call.folder, call.commands = folder, commands
    call.shell = lambda script: (
        subprocess.run([*network, "sh", "-c", script], capture_output=True, text=True).stdout
    )
    call.loaded = lambda: call.shell("nft list table inet femto")
    return call


def test_firewall_rules_that_are_not_kept_give_way_to_the_former_ones(firewall):
    assert firewall("tried", "10.0.0.1")["trying"]
    assert firewall("kept")["changed"]
    assert not firewall("tried", "10.0.0.1")["changed"]
    assert firewall("tried", "10.0.0.2")["trying"]
    assert "10.0.0.2" in firewall.loaded()
    # What the next boot loads are still the former ones.
    assert "10.0.0.1" in (firewall.folder / "firewall.nft").read_text()
    # The run is cut off, and another one begins before the time is over: it is no proof either.
    assert firewall("tried", "10.0.0.3")["trying"]
    firewall.shell(f"sh -c '{(firewall.commands / 'undo').read_text()}'")
    assert "10.0.0.1" in firewall.loaded() and "policy drop" in firewall.loaded()
    late = firewall("kept")
    assert late["failed"] and "taken back" in late["msg"]
    assert firewall("tried", "10.0.0.3")["trying"]
    firewall("kept")
    assert "10.0.0.3" in firewall.loaded()
    assert not firewall("tried", "10.0.0.3")["changed"]


def test_firewall_what_was_lost_or_changed_on_the_host_comes_back(firewall):
    firewall("tried", "10.0.0.1")
    firewall("kept")
    for fault in ("nft delete table inet femto", "nft add rule inet femto input accept"):
        firewall.shell(fault)
        assert firewall("tried", "10.0.0.1", check=True)["changed"]
        assert firewall("tried", "10.0.0.1")["trying"]
        firewall("kept")
        assert not firewall("tried", "10.0.0.1")["changed"]


def test_firewall_rules_that_cannot_be_loaded_replace_nothing(firewall):
    firewall("tried", "10.0.0.1")
    firewall("kept")
    before = firewall.loaded()
    refused = firewall("tried", "999.1.1.1/99")
    assert refused["failed"] and "the rules would be wrong" in refused["msg"]
    refused = firewall("present", fragment="own.nft", text="add rule inet femto input no rule\n")
    assert refused["failed"]
    assert firewall.loaded() == before
    assert "10.0.0.1" in (firewall.folder / "firewall.nft").read_text()
    assert not list((firewall.folder / "rules.d").iterdir())
    rule = "add rule inet femto input tcp dport 1337 accept\n"
    assert firewall("present", fragment="own.nft", text=rule)["changed"]
    assert not firewall("present", fragment="own.nft", text=rule)["changed"]
    assert not firewall("tried", "10.0.0.1")["changed"]
    assert "1337" in firewall.loaded()


def test_jupyter_is_open_to_nobody_unless_it_is_said():
    """Who opens it runs programs: the addresses of the pages that only show are not enough."""
    defaults = yaml.safe_load((ROOT / "roles/jupyter/defaults/main.yml").read_text())
    assert defaults["jupyter_admin_cidrs"] == []


def test_nothing_of_spark_conf_is_written_where_others_read_it():
    """Keys of storage stand there: settings are secrets to the module that writes them."""
    tasks = yaml.safe_load((ROOT / "roles/spark/tasks/configure.yml").read_text())
    files = [file for task in tasks for file in task.get("femto_files", {}).get("files", [])]
    settings = [f for f in files if "spark-settings" in str(f) or "spark-defaults" in str(f)]
    assert len(settings) == 2
    for file in settings:
        assert "content" not in file and file["mode"] in ("0600", "0640")
    role = (ROOT / "roles/spark").rglob("*.j2")
    assert [path.name for path in role if "spark_conf)" in path.read_text()] == [
        "spark-settings.conf.j2"
    ]


def test_old_environments_of_jupyterlab_go_unless_something_uses_them(tmp_path):
    script = ROOT / "roles/jupyter/files/environment.py"
    locks = json.dumps({".".join(map(str, sys.version_info[:2])): "0" * 64})
    unit = tmp_path / "jupyter.service"

    def run(*arguments) -> str:
        command = [sys.executable, script, *arguments]
        return subprocess.run(
            command, input=locks, text=True, check=True, stdout=subprocess.PIPE
        ).stdout

    look = json.loads(run("look", tmp_path))
    envs = tmp_path / "envs"
    for name in (look["name"], "3.12-old", "3.12-unit"):
        (envs / name).mkdir(parents=True)
    (envs / ".lock").touch()  # that of the module which builds them
    unit.write_text(f"ExecStart={envs}/3.12-unit/bin/jupyter-lab\n")
    # Nothing goes before there is one to take its place.
    assert run("tidy", tmp_path, unit) == ""
    (envs / look["name"] / ".complete").touch()
    assert run("tidy", tmp_path, unit) == f"removed {envs}/3.12-old\n"
    assert {p.name for p in envs.iterdir()} == {look["name"], "3.12-unit", ".lock"}
