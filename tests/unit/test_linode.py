"""Clusters at Linode, made, counted and deleted: against a stand-in for the API, the only one that
this code has ever met."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from linode_fake import TYPES, Fake, count

pytest.importorskip("ansible")
pytest.importorskip("linode_api4")

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampl me"
ALL = {"femto-demo", "demo-master", "demo-worker-1", "demo-worker-2"}


def load(path: Path, name: str = ""):
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# As Ansible brings it to the modules.
common = load(ROOT / "plugins/module_utils/femto_linode.py", "ansible.module_utils.femto_linode")
sys.modules["ansible.module_utils.femto_linode"] = common
import ansible.module_utils  # noqa: E402

ansible.module_utils.femto_linode = common
vpc, firewall, instances, teardown, drained, cost = (
    load(ROOT / f"plugins/modules/femto_linode_{name}.py")
    for name in ("vpc", "firewall", "instances", "teardown", "drained", "cost")
)


class Patience:
    """Waits for so many turns of what is asked, and for no time: on a busy machine as well."""

    def __init__(self, seconds: float):
        self.turns = 10

    def wait(self) -> bool:
        self.turns -= 1
        return self.turns > 0


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(common, "Deadline", Patience)
    with Fake() as fake:
        yield fake


class Cluster:
    """Does what the role's provision.yml does, in this process."""

    def __init__(self, fake: Fake, name: str = "demo"):
        self.name, self.fake = name, fake
        self.linode = common.Linode(fake.token, fake.url)
        self.linode.client.retry_rate_limit_interval = 0.01

    def do(self, module, check=False, **params) -> dict:
        return module.work(self.linode, {"cluster": self.name} | params, check)

    def network(self, check=False, **params) -> dict:
        given = {"region": "de-fra-2", "network": "10.0.0.0/24"} | params
        return self.do(vpc, check, **given)

    def firewall(self, check=False, cidrs=("198.51.100.7/32",), **params) -> dict:
        ssh = {"label": "ssh", "ports": ["22"], "cidrs": list(cidrs)}
        return self.do(firewall, check, **({"network": "10.0.0.0/24", "open": [ssh]} | params))

    def linodes(self, workers: int, check=False, **params) -> dict:
        given = {
            "region": "de-fra-2",
            "image": "linode/ubuntu24.04",
            "master_type": "g6-standard-2",
            "worker_type": "g6-dedicated-4",
            "workers": workers,
            "ssh_keys": [KEY],
            "tags": [],
            "subnet_id": self.network(check=check)["subnet_id"],
            "firewall_id": self.firewall(check=check)["id"],
            "ssh_port": self.fake.ssh_port,
            "seconds": 30,
        } | params
        return self.do(instances, check, **given)

    def delete(self, check=False, keep=()) -> dict:
        return self.do(teardown, check, keep=keep, seconds=30)


@pytest.fixture
def cluster(fake):
    return Cluster(fake)


def test_what_is_missing_is_made_and_nothing_a_second_time(fake, cluster):
    made = cluster.linodes(2)
    assert made["changed"] and fake.labels() == ALL
    assert {n["status"] for n in made["nodes"]} == {"running"}
    assert len({n["private"] for n in made["nodes"]}) == 3
    assert all(n["private"].startswith("10.0.0.") for n in made["nodes"])
    # Nobody can sign in without a key, and everybody is behind the firewall.
    assert len(set(fake.passwords)) == 3 and all(len(p) > 40 for p in fake.passwords)
    assert all(i["_keys"] == [KEY] for i in fake.instances.values())
    (guarded,) = fake.devices.values()
    assert guarded == set(fake.instances)
    before = len(fake.made())
    assert not cluster.linodes(2)["changed"] and not cluster.network()["changed"]
    assert len(fake.made()) == before


def test_a_higher_number_adds_just_these(fake, cluster):
    cluster.linodes(1)
    before = set(fake.instances)
    grown = cluster.linodes(3)
    assert grown["created"] == ["demo-worker-2", "demo-worker-3"]
    assert before < set(fake.instances) and count(fake)["femto-worker"] == 3


def test_a_lower_number_refuses_until_workers_are_drained(fake, cluster):
    cluster.linodes(3)
    before = len(fake.made())
    with pytest.raises(common.Wrong, match=r"spark_remove=demo-worker-2,demo-worker-3$"):
        cluster.linodes(1)
    assert len(fake.made()) == before
    planned = cluster.do(drained, True, names=["demo-worker-2"])
    assert planned["changed"] and planned["workers"] == 2 and len(fake.made()) == before
    assert cluster.do(drained, names=["demo-worker-2"])["workers"] == 2
    assert not cluster.do(drained, names=["demo-worker-2"])["changed"]
    with pytest.raises(common.Wrong, match=r"spark_remove=demo-worker-3$"):
        cluster.linodes(1)
    assert cluster.linodes(2)["deleted"] == ["demo-worker-2"]
    assert fake.labels() == {"femto-demo", "demo-master", "demo-worker-1", "demo-worker-3"}
    # The free name is taken again.
    assert cluster.linodes(3)["created"] == ["demo-worker-2"]
    with pytest.raises(common.Wrong, match="no worker demo-master"):
        cluster.do(drained, names=["demo-master"])


def test_a_drained_worker_is_taken_back_where_it_is_wanted(fake, cluster):
    cluster.linodes(2)
    cluster.do(drained, names=["demo-worker-1"])
    again = cluster.linodes(2)
    assert again["changed"] and again["taken_back"] == ["demo-worker-1"]
    assert "femto-drained" not in fake.linode("demo-worker-1")["tags"]
    assert not again["created"] and not again["deleted"]


def test_check_mode_and_diff_tell_what_a_run_then_does(fake, cluster):
    planned = cluster.linodes(2, check=True)
    assert cluster.network(check=True)["changed"] and cluster.firewall(check=True)["changed"]
    assert fake.made() == []
    done = cluster.linodes(2)
    assert (planned["created"], planned["diff"]) == (done["created"], done["diff"])
    assert "demo-worker-2: g6-dedicated-4 in de-fra-2, femto-cluster-demo" in done["diff"]["after"]
    # A change of rules, a tag, one that is off, and one to go.
    cluster.do(drained, names=["demo-worker-2"])
    fake.linode("demo-master")["status"] = "offline"
    before = len(fake.made())
    planned = cluster.linodes(1, check=True, tags=["team-a"])
    rules = cluster.firewall(check=True, cidrs=["203.0.113.0/24"])
    gone = cluster.delete(check=True)
    assert len(fake.made()) == before
    done = cluster.linodes(1, tags=["team-a"])
    assert planned["changed"] and planned["diff"] == done["diff"]
    assert done["deleted"] == planned["deleted"] == ["demo-worker-2"]
    assert fake.linode("demo-master")["status"] == "running"
    assert "team-a" in fake.linode("demo-master")["tags"]
    assert rules["changed"] and "from 203.0.113.0/24" in rules["diff"]["after"]
    assert "from 198.51.100.7/32" in rules["diff"]["before"]
    assert len(gone["found"]) == 5 and gone["changed"]


def test_the_firewall_opens_what_is_said_and_everything_inside(fake, cluster):
    pages = {"label": "pages", "ports": ["8080", "4040-4071"], "cidrs": ["198.51.100.7/32"]}
    nobody = {"label": "jupyter", "ports": ["1337"], "cidrs": []}
    rules = {"network": "10.0.0.0/24", "open": [pages, nobody]}
    assert cluster.do(firewall, **rules)["changed"]
    assert not cluster.do(firewall, **rules)["changed"]
    (made,) = fake.firewalls.values()
    assert made["rules"]["inbound_policy"] == "DROP"
    told = [(r["ports"], r["addresses"]["ipv4"]) for r in made["rules"]["inbound"]]
    assert told == [
        ("8080, 4040-4071", ["198.51.100.7/32"]),
        ("1-65535", ["10.0.0.0/24"]),
        ("1-65535", ["10.0.0.0/24"]),
        (None, ["10.0.0.0/24"]),
    ]
    # What somebody has opened by hand is shut again.
    made["rules"]["inbound"][0]["addresses"]["ipv4"].append("0.0.0.0/0")
    assert cluster.do(firewall, **rules)["changed"]
    assert "0.0.0.0/0" not in str(fake.firewalls)


def test_one_without_the_firewall_gets_it_again(fake, cluster):
    cluster.linodes(1)
    (devices,) = fake.devices.values()
    devices.discard(fake.linode("demo-worker-1")["id"])
    assert cluster.linodes(1)["changed"]
    assert devices == set(fake.instances)


def test_only_what_carries_the_tag_is_deleted(fake, cluster):
    other = Cluster(fake, "demo-two")
    other.linodes(1)
    # Somebody else's things with names of ours.
    fake.vpcs[1] = {"id": 1, "label": "femto-demo", "description": "mine", "region": "de-fra-2"}
    fake.vpcs[1]["subnets"] = []
    with pytest.raises(common.Wrong, match="Label must be unique"):
        cluster.network()
    del fake.vpcs[1]
    before = fake.labels()
    cluster.linodes(2)
    fake.linode("demo-worker-2")["tags"].remove("femto-cluster-demo")
    gone = cluster.delete()
    # It is in the way of the VPC: that is told, and it is left alone.
    assert "could not be deleted" in gone["msg"] and "VPC femto-demo" in gone["msg"]
    assert fake.labels() - before == {"femto-demo", "demo-worker-2"}
    fake.linode("demo-worker-2")["tags"].append("femto-cluster-demo")
    gone = cluster.delete()
    assert gone["left"] == [] and "msg" not in gone and fake.labels() == before
    assert not cluster.delete()["changed"]


def test_many_things_of_others_are_paged_through(fake, cluster):
    cluster.linodes(1)
    for number in range(250):
        fake.firewalls[number] = {"id": number, "label": f"x{number}", "tags": []}
    fake.firewalls = dict(sorted(fake.firewalls.items()))
    assert len(cluster.linode.things("demo")) == 4
    assert not cluster.firewall()["changed"]


def test_a_busy_api_is_asked_again_after_the_time_that_it_says(fake, cluster):
    fake.busy = 1
    assert cluster.network()["changed"]
    fake.fail("GET", "/vpcs", 503)
    assert not cluster.network()["changed"]
    fake.fail("GET", "/vpcs", 429, times=20)
    with pytest.raises(common.Wrong, match=r"\[429\]"):
        cluster.network()


@pytest.mark.parametrize(
    ("step", "path"),
    [
        (1, "/vpcs"),
        (1, "/networking/firewalls"),
        (1, "/linode/instances"),
        (3, "/linode/instances"),
    ],
)
def test_an_answer_that_is_lost_makes_nothing_twice(fake, cluster, step, path):
    fake.fail("POST", path, 0, after=step - 1)
    cluster.linodes(2)
    assert fake.labels() == ALL and len(fake.instances) == 3 and len(fake.vpcs) == 1
    assert not cluster.linodes(2)["changed"]


def test_a_deletion_that_fails_is_repeated_and_what_is_left_is_told(fake, cluster):
    cluster.linodes(1)
    fake.fail("DELETE", r"/linode/instances/\d+", 500)
    fake.fail("DELETE", r"/networking/firewalls/\d+", 500)
    assert cluster.delete()["left"] == [] and fake.labels() == set()
    cluster.linodes(1)
    fake.fail("DELETE", r"/networking/firewalls/\d+", 500, times=10**6)
    gone = cluster.delete()
    assert [t["what"].split(" (")[0] for t in gone["left"]] == ["firewall femto-demo"]
    assert "may cost money: firewall femto-demo" in gone["msg"]
    assert "An injected fault" in gone["msg"]


def test_what_does_not_boot_or_answer_is_told_with_the_remedy(fake, cluster):
    fake.greeting = b"421 come back later\r\n"
    with pytest.raises(common.Wrong, match=r"SSH of demo-\S+ does not .*linode_ssh_cidrs"):
        cluster.linodes(1)
    fake.linode("demo-worker-1")["status"] = "busy"
    with pytest.raises(common.Wrong, match="demo-worker-1 is busy after 30 s"):
        cluster.linodes(1)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"region": "br-gru"}, "shall be in br-gru with 10.0.0.0/24: neither can be changed"),
        ({"network": "10.9.0.0/24"}, "shall be in de-fra-2 with 10.9.0.0/24"),
    ],
)
def test_what_cannot_be_changed_is_refused(cluster, params, said):
    cluster.network()
    with pytest.raises(common.Wrong, match=said):
        cluster.network(**params)


def test_another_type_is_for_new_ones_and_that_is_told(cluster):
    cluster.linodes(1)
    done = cluster.linodes(2, worker_type="g6-nanode-1")
    assert done["warnings"] == [
        "demo-worker-1 is g6-dedicated-4 and stays so: linode_worker_type is for new ones"
    ]
    assert [n["type"] for n in done["nodes"] if n["role"] == "worker"][-1] == "g6-nanode-1"


def test_keys_are_public_ones(tmp_path, cluster, fake):
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    (tmp_path / "id.pub").write_text(f"# mine\n{KEY}\n")
    assert instances.public_keys([f"{tmp_path}/id.pub", KEY]) == [KEY, KEY]
    for path, said in (("id", "public keys alone"), ("none", "No such file")):
        with pytest.raises(common.Wrong, match=said):
            cluster.linodes(1, ssh_keys=[f"{tmp_path}/{path}"])
    assert not fake.instances


def test_one_clear_error_for_a_token_a_network_and_an_address(fake):
    with pytest.raises(common.Wrong, match="there is no token: set LINODE_TOKEN"):
        common.Linode("", fake.url)
    with pytest.raises(common.Wrong, match="over https alone"):
        common.Linode("secret", "http://example.net/v4")
    wrong = Cluster(fake)
    wrong.linode = common.Linode("another-secret", fake.url)
    with pytest.raises(common.Wrong, match=r"does not accept the token \(Invalid Token\)") as said:
        wrong.network()
    assert "another-secret" not in str(said.value)
    nobody = Cluster(fake)
    nobody.linode = common.Linode(fake.token, "http://127.0.0.1:9/v4")
    nobody.linode.client.retry_max = 0
    with pytest.raises(common.Wrong, match=r"cannot be reached at http://127.0.0.1:9/v4"):
        nobody.network()
    for name in ("Demo", "a", "a--b", "-a", "a" * 25, "1a"):
        with pytest.raises(common.Wrong, match="cannot be the name of a cluster"):
            common.name_of(name)


def test_errors_give_no_secret_away(fake, cluster):
    cluster.linode.secrets.append("hush")
    assert cluster.linode.scrub(f"a {fake.token}\nhush") == "a ******** ********"


# Cost

PLAN = {
    "region": "de-fra-2",
    "master_type": "g6-standard-2",
    "worker_type": "g6-dedicated-4",
    "workers": 3,
    "gigapixels": 0,
    "rate": 0,
    "scaling": str(ROOT / "docs/scaling.json"),
}


def test_cost_is_that_of_the_price_list_of_the_region(fake, cluster):
    told = cluster.do(cost, **PLAN)
    assert told["hourly"] == pytest.approx(0.036 + 3 * 0.108)
    assert told["monthly"] == pytest.approx(24 + 3 * 72)
    assert told["lines"][-1].startswith("together in de-fra-2: $0.360 an hour, at most $240.00 a")
    dearer = cluster.do(cost, **PLAN | {"region": "br-gru"})
    assert dearer["hourly"] == pytest.approx(0.0504 + 3 * 0.1512)
    # Another one than those of the first page.
    assert cluster.do(cost, **PLAN | {"worker_type": TYPES[-1][0]})["hourly"] == pytest.approx(
        3.036
    )
    assert fake.made() == []
    for params, said in (
        ({"worker_type": "g6-huge"}, "no type g6-huge"),
        ({"region": "nowhere"}, "no region nowhere: set linode_region to one of br-gru, de-fra-2"),
        ({"region": "old-town"}, "old-town has no VPCs"),
    ):
        with pytest.raises(common.Wrong, match=said):
            cluster.do(cost, **PLAN | params)


def test_the_cost_of_a_job_follows_what_docs_scaling_measured(repository, cluster):
    scaling = load(repository / "bench/scaling.py", "bench_scaling")
    runs = json.loads((repository / "docs/scaling.json").read_text())["runs"]
    model = scaling.model(runs)
    defaults = yaml.safe_load((repository / "roles/linode/defaults/main.yml").read_text())
    assert defaults["linode_scaling"] == "{{ role_path }}/../../docs/scaling.json"
    assert defaults["linode_core_rate"] == 0
    mine = cost.constants(PLAN["scaling"])
    assert mine["rate"] == pytest.approx(model["megapixels_per_core_second"])
    for gigapixels in (0.01, 1, 333):
        job = cluster.do(cost, **PLAN | {"gigapixels": gigapixels})["job"]
        seconds = scaling.predict(model, gigapixels * 1000, 12)
        assert job["seconds"] == pytest.approx(seconds)
        assert job["hours"] - 1 < seconds / 3600 <= job["hours"]
        assert job["dollars"] == pytest.approx(job["hours"] * 0.36)
    # A rate of one's own.
    fast = cluster.do(cost, **PLAN | {"gigapixels": 1, "rate": 1000.0})
    assert fast["job"]["seconds"] < job["seconds"] and "driver is the limit" in fast["lines"][-1]


def test_a_job_without_what_was_measured_is_refused(cluster, tmp_path):
    for text, said in (("", "is not as bench/scaling.py"), ("{}", "is not as bench/scaling.py")):
        (tmp_path / "scaling.json").write_text(text)
        with pytest.raises(common.Wrong, match=said):
            cluster.do(cost, **PLAN | {"gigapixels": 1, "scaling": f"{tmp_path}/scaling.json"})
    with pytest.raises(common.Wrong, match="No such file"):
        cluster.do(cost, **PLAN | {"gigapixels": 1, "scaling": f"{tmp_path}/none.json"})


# The playbooks themselves


@pytest.fixture
def inventory(tmp_path, fake):
    """inventory/linode for a cluster of our own, as its README says."""
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "femto.linode.yml").write_text("plugin: femto_linode\ncluster: demo\n")
    told = {
        "linode_region": "de-fra-2",
        "linode_workers": 2,
        "linode_ssh_keys": [KEY],
        "linode_ssh_port": fake.ssh_port,
        "linode_wait_seconds": 30,
        "spark_admin_cidrs": ["198.51.100.7/32"],
    }
    (folder / "group_vars/all.yml").write_text(yaml.safe_dump(told))
    return folder


def playbook(name: str, inventory, fake: Fake, *arguments: str, before=()):
    done = subprocess.run(
        [
            *before,
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", inventory, ROOT / "playbooks" / name, *arguments),
        ],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ
        | {
            "LINODE_TOKEN": fake.token,
            "LINODE_API_URL": fake.url,
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
            "NO_PROXY": "127.0.0.1",
        },
    )
    done.told = " ".join(done.stdout.split())
    assert fake.token not in done.stdout
    assert not any(password in done.stdout for password in fake.passwords)
    return done


def ansible(command: str, *arguments, folder=ROOT, **environment: str):
    done = subprocess.run(
        [Path(sys.executable).with_name(command), *arguments],
        cwd=folder,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"NO_COLOR": "1", "NO_PROXY": "127.0.0.1"} | environment,
    )
    done.told = " ".join((done.stdout + done.stderr).split())
    return done


def read(inventory, fake: Fake, token=None):
    """The inventory as its plugin reads it, in this process."""
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import inventory_loader

    inventory_loader.add_directory(str(ROOT / "plugins/inventory"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINODE_TOKEN", fake.token if token is None else token)
        patch.setenv("LINODE_API_URL", fake.url)
        loader = DataLoader()
        manager = InventoryManager(loader, sources=[], parse=False)
        plugin = inventory_loader.get("femto_linode")
        path = str(inventory / "femto.linode.yml")
        assert plugin.verify_file(path) and not plugin.verify_file(str(inventory / "hosts.yml"))
        plugin.parse(manager._inventory, loader, path)
    manager._inventory.reconcile_inventory()
    return manager


def test_the_inventory_groups_by_tag_and_names_private_addresses(fake, cluster, inventory):
    cluster.linodes(3, tags=["team-a"])
    Cluster(fake, "demo-two").linodes(1)
    cluster.do(drained, names=["demo-worker-2"])
    found = read(inventory, fake)
    groups = {name: sorted(h.name for h in g.get_hosts()) for name, g in found.groups.items()}
    assert groups["masters"] == ["demo-master"]
    assert groups["workers"] == ["demo-worker-1", "demo-worker-3"]
    ours = ["demo-master", "demo-worker-1", "demo-worker-2", "demo-worker-3"]
    for group in ("femto_linode", "all", "tag_femto_cluster_demo", "tag_team_a"):
        assert groups[group] == ours
    assert groups["tag_femto_drained"] == ["demo-worker-2"]
    told = found.hosts["demo-worker-3"].vars
    instance = fake.linode("demo-worker-3")
    assert told["ansible_host"] == "127.0.0.1"
    assert told["spark_address"] == instance["_private"] and told["linode_id"] == instance["id"]
    assert f"HostKeyAlias=linode-{instance['id']} " in told["ansible_ssh_extra_args"]
    assert found.groups["all"].vars["linode_cluster"] == "demo"
    assert fake.token not in str([h.vars for h in found.hosts.values()])


def test_an_inventory_that_cannot_be_read_is_one_error(fake, inventory):
    from ansible.errors import AnsibleParserError

    with pytest.raises(AnsibleParserError, match="does not accept the token") as said:
        read(inventory, fake, token="another-secret")
    assert "another-secret" not in str(said.value)
    with pytest.raises(AnsibleParserError, match="there is no token: set LINODE_TOKEN"):
        read(inventory, fake, token="")
    (inventory / "femto.linode.yml").write_text("plugin: femto_linode\ncluster: No name\n")
    with pytest.raises(AnsibleParserError, match="'No name' cannot be the name of a cluster"):
        read(inventory, fake)
    # A playbook ends there.
    done = playbook("preflight.yml", inventory, fake)
    assert done.returncode != 0 and "cannot be the name of a cluster" in done.told
    assert "PLAY [" not in done.told


def test_an_inventory_without_a_name_or_hosts(fake, inventory):
    assert read(ROOT / "inventory/linode", fake, token="").groups["all"].get_hosts() == []
    assert fake.asked == []
    assert read(inventory, fake).groups["masters"].get_hosts() == []
    done = playbook("preflight.yml", ROOT / "inventory/linode", fake)
    assert done.returncode != 0 and "masters of the inventory is empty" in done.told
    assert "Failed to parse" not in done.told
    done = playbook("preflight.yml", inventory, fake)
    assert done.returncode != 0
    assert "no Linode carries the tag of demo: first run playbooks/provision.yml" in done.told


@pytest.mark.slow
def test_ansible_doc_shows_modules_and_inventory(repository, tmp_path):
    modules = [p.stem for p in sorted((ROOT / "plugins/modules").glob("femto_linode_*.py"))]
    assert len(modules) == 6
    install = ("install", "--offline", "-p", tmp_path, repository)
    assert ansible("ansible-galaxy", "collection", *install).returncode == 0
    elsewhere = {"folder": tmp_path, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
    for prefix, where in (("", {}), ("femto.cluster.", elsewhere)):
        names = [prefix + module for module in modules]
        shown = ansible("ansible-doc", "--json", *names, **where)
        assert set(json.loads(shown.stdout)) == set(names), shown.told
        shown = ansible("ansible-doc", "-t", "inventory", f"{prefix}femto_linode", **where)
        assert "LINODE_TOKEN" in shown.told and "stand-in" in shown.told
    # A module and the inventory run from there as well.
    with Fake() as fake:
        environment = elsewhere | {"LINODE_TOKEN": fake.token, "LINODE_API_URL": fake.url}
        given = "cluster=demo region=de-fra-2 network=10.0.0.0/24"
        module = "femto.cluster.femto_linode_vpc"
        python = f"ansible_python_interpreter={sys.executable}"
        call = ("localhost", "-m", module, "-a", given)
        done = ansible("ansible", *call, "-e", python, **environment)
        assert "CHANGED" in done.told, done.told
        listed = tmp_path / "a.linode.yml"
        listed.write_text("plugin: femto.cluster.femto_linode\ncluster: demo\n")
        done = ansible("ansible-inventory", "-i", listed, "--list", **environment)
        assert json.loads(done.stdout)["all"]["children"], done.told


def test_playbooks_from_nothing_to_nothing(fake, inventory):
    """Cost, check mode, provision, the inventory, nothing changed, teardown that asks, nothing."""
    first = playbook("provision.yml", inventory, fake, "--diff", "-vvv")
    assert first.returncode == 0, first.stdout
    assert "together in de-fra-2: $0.252 an hour" in first.told
    assert "ready. Now run: ansible-playbook site.yml" in first.told
    assert fake.labels() == ALL
    refused = playbook("teardown.yml", inventory, fake)
    assert refused.returncode != 0 and "nothing was deleted; there are Linode" in refused.told
    assert fake.labels() == ALL
    gone = playbook("teardown.yml", inventory, fake, "-e", "linode_teardown_confirm=demo")
    assert gone.returncode == 0, gone.stdout
    assert "deleted; nothing carries the tag of demo any more" in gone.told
    assert fake.labels() == set()


@pytest.mark.slow
def test_playbooks_in_check_mode_and_a_second_time(fake, inventory):
    planned = playbook("provision.yml", inventory, fake, "--check", "--diff")
    assert planned.returncode == 0 and fake.made() == [], planned.stdout
    assert "+demo-worker-2: g6-dedicated-4 in de-fra-2" in planned.told
    assert playbook("provision.yml", inventory, fake).returncode == 0
    again = playbook("provision.yml", inventory, fake)
    assert again.returncode == 0 and "changed=0" in again.told, again.stdout
    more = playbook("provision.yml", inventory, fake, "-e", "linode_workers=3")
    assert "playbooks/scale.yml" in more.told and len(fake.instances) == 4
    fewer = playbook("provision.yml", inventory, fake, "-e", "linode_workers=2")
    assert fewer.returncode != 0 and "spark_remove=demo-worker-3" in fewer.told
    # What was there before a run that fails stays.
    assert len(fake.instances) == 4
    before = len(fake.made())
    kept = playbook("teardown.yml", inventory, fake, "--check", "--diff")
    assert kept.returncode == 0 and "would be deleted" in kept.told, kept.stdout
    assert len(fake.made()) == before
    cost = playbook("cost.yml", inventory, fake, "-e", "linode_gigapixels=333")
    assert cost.returncode == 0 and "333 gigapixels on 8 cores" in cost.told, cost.stdout


# Runs a command at a terminal, where it answers a prompt: again while nothing is said to that, for
# what is typed before a program asks is thrown away.
TERMINAL = """
import os, pty, select, sys
prompt, answer, *command = map(os.fsencode, sys.argv[1:])
process, terminal = pty.fork()
if not process:
    os.execv(command[0], command)
said = b""
while True:
    if not select.select([terminal], [], [], 1)[0]:
        if prompt in said:
            os.write(terminal, answer + b"\\r")
        continue
    try:
        some = os.read(terminal, 65536)
    except OSError:
        break
    if not some:
        break
    said += some
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.slow
def test_teardown_asks_a_person_and_takes_a_name_for_an_answer(fake, inventory):
    Cluster(fake).linodes(2)
    for answer, left in (("demo-two", ALL), ("demo", set())):
        before = (sys.executable, "-c", TERMINAL, "Type demo to delete it", answer)
        done = playbook("teardown.yml", inventory, fake, before=before)
        assert "Type demo to delete it" in done.told
        assert (done.returncode == 0) == (not left) and fake.labels() == left, done.stdout


@pytest.mark.slow
def test_teardown_of_other_hosts_asks_and_needs_no_linode(fake, tmp_path):
    (tmp_path / "hosts").write_text("[masters]\nm\n[workers]\nw\n[linode]\nm\nw\n")
    done = playbook("teardown.yml", tmp_path / "hosts", fake)
    assert done.returncode != 0 and "nothing was removed: answer yes" in done.told
    assert fake.asked == []


@pytest.mark.slow
def test_remove_worker_lets_linode_know(fake, inventory, monkeypatch):
    cluster = Cluster(fake)
    cluster.linodes(2)
    # Its last play; the ones before it talk to hosts.
    arguments = ("-e", "spark_remove=demo-worker-2", "--start-at-task", "Mark them as drained")
    done = playbook("remove-worker.yml", inventory, fake, *arguments)
    assert done.returncode == 0 and "set linode_workers to 1" in done.told, done.stdout
    assert "femto-drained" in fake.linode("demo-worker-2")["tags"]
    assert "femto-drained" not in fake.linode("demo-worker-1")["tags"]
    assert cluster.linodes(1)["deleted"] == ["demo-worker-2"]


# Each step of provision.yml that can fail: what is asked, after how many that were answered well.
STEPS = {
    "vpc": ("POST", "/vpcs", 0),
    "firewall": ("POST", "/networking/firewalls", 0),
    "first": ("POST", "/linode/instances", 0),
    "last": ("POST", "/linode/instances", 2),
    "devices": ("GET", r"/networking/firewalls/\d+/devices", 0),
    "addresses": ("GET", r"/vpcs/\d+/ips", 1),
}


@pytest.mark.parametrize(
    "step",
    [pytest.param(s, marks=() if s == "last" else pytest.mark.slow) for s in STEPS],
)
def test_a_run_that_fails_leaves_nothing_billed(fake, inventory, step):
    method, path, after = STEPS[step]
    fake.fail(method, path, 500, after=after)
    failed = playbook("provision.yml", inventory, fake)
    assert failed.returncode != 0 and "nothing of it exists: nothing is billed" in failed.told
    assert "An injected fault" in failed.told, failed.stdout
    assert fake.labels() == set()


@pytest.mark.slow
def test_a_run_that_fails_keeps_what_there_is_when_asked_to(fake, inventory):
    fake.fail("POST", "/linode/instances", 500, after=2)
    failed = playbook("provision.yml", inventory, fake, "-e", "linode_keep=true")
    assert failed.returncode != 0 and "what exists, and may cost money" in failed.told
    assert "Linode demo-worker-1" in failed.told and "VPC femto-demo" in failed.told
    assert fake.labels() == ALL - {"demo-worker-2"}
    # The same command goes on; and of one that fails later, only what is new is deleted.
    assert playbook("provision.yml", inventory, fake).returncode == 0
    fake.fail("POST", "/linode/instances", 500, after=1)
    failed = playbook("provision.yml", inventory, fake, "-e", "linode_workers=4")
    assert failed.returncode != 0 and fake.labels() == ALL, failed.stdout
