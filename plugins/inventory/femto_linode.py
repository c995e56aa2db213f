"""The Linodes of a cluster, as an inventory."""

DOCUMENTATION = r"""
name: femto_linode
short_description: The Linodes of a cluster
description:
  - >-
    Hosts are the Linodes that carry the tag of a cluster, as C(provision.yml) makes them: in the
    groups C(masters), C(workers) and C(femto_linode), and in C(tag_NAME) of each of their tags.
    Workers that C(remove-worker.yml) has drained are in C(femto_linode) and not in C(workers).
  - >-
    They are reached at their public addresses, and reach each other at those in the VPC
    (C(spark_address)). The key with which a host first answers SSH is accepted; another one later
    is not, whatever address it has.
  - The file's name ends in C(linode.yml). The variable C(linode_cluster) is the cluster's name.
  - Only tested against a stand-in for the API, served by femto's tests.
requirements: [linode-api4]
author: The femto authors
options:
  plugin:
    description: C(femto_linode); of an installed collection, C(femto.cluster.femto_linode).
    required: true
    choices: [femto_linode, femto.cluster.femto_linode]
  cluster:
    description: Name of the cluster. Without it there are no hosts.
    type: str
    default: ""
  token:
    description: A personal access token, from a vault.
    type: str
    env:
      - name: LINODE_TOKEN
  api_url:
    description: The API, https alone.
    type: str
    default: https://api.linode.com/v4
    env:
      - name: LINODE_API_URL
"""

EXAMPLES = r"""
# femto.linode.yml
plugin: femto_linode
cluster: demo
"""

import importlib.util
from pathlib import Path

from ansible.errors import AnsibleParserError
from ansible.inventory.group import to_safe_group_name
from ansible.plugins.inventory import BaseInventoryPlugin

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    # In a clone only modules find ansible.cfg's module_utils.
    _path = Path(__file__).resolve().parents[1] / "module_utils/femto_linode.py"
    _spec = importlib.util.spec_from_file_location("femto_linode_common", _path)
    common = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(common)


class InventoryModule(BaseInventoryPlugin):
    NAME = "femto_linode"

    def verify_file(self, path):
        return super().verify_file(path) and str(path).endswith(("linode.yml", "linode.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        cluster = self.get_option("cluster")
        if not cluster:
            return
        try:
            common.name_of(cluster)
            linode = common.Linode(self.get_option("token"), self.get_option("api_url"))
            nodes = linode.nodes(cluster)
        except common.Wrong as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        inventory.set_variable("all", "linode_cluster", cluster)
        for group in ("masters", "workers", "femto_linode"):
            inventory.add_group(group)
        for node in nodes:
            self.add(node)

    def add(self, node: dict) -> None:
        name, inventory = node["name"], self.inventory
        inventory.add_host(name, group="femto_linode")
        if node["role"] and not node["drained"]:
            inventory.add_host(name, group=f"{node['role']}s")
        for tag in node["tags"]:
            group = to_safe_group_name(f"tag_{tag}", force=True, silent=True)
            inventory.add_host(name, group=inventory.add_group(group))
        # Linode gives addresses away again, but no number of a Linode.
        known = f"-o HostKeyAlias=linode-{node['id']} -o StrictHostKeyChecking=accept-new"
        told = {
            "ansible_host": node["public"],
            "ansible_ssh_extra_args": known,
            "linode_id": node["id"],
            "linode_type": node["type"],
            "linode_region": node["region"],
            "linode_status": node["status"],
        } | ({"spark_address": node["private"]} if node["private"] else {})
        for variable, value in told.items():
            inventory.set_variable(name, variable, value)
