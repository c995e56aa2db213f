"""A stand-in for the Linode API v4, served on loopback: what femto asks it for, as the API's
reference describes it. Nobody has compared it with the real one.

    with Fake() as fake:
        fake.url, fake.token
        fake.fail("POST", "/linode/instances", 500, times=1)

Servers do not come at once: they are provisioning, booting, then running, a step each time they are
asked for; they go in the same way, and hold VPC and firewall until then.
"""

import collections
import functools
import http.server
import ipaddress
import itertools
import json
import re
import socket
import threading
import urllib.parse

TOKEN = "a-token-that-nobody-must-see"
REGIONS = {
    "de-fra-2": ["Linodes", "Cloud Firewall", "VPCs", "Metadata"],
    "br-gru": ["Linodes", "Cloud Firewall", "VPCs"],
    "old-town": ["Linodes", "Cloud Firewall"],
}
# Name, cores, MB, hourly and monthly price, and hourly and monthly price in br-gru.
TYPES = [
    ("g6-nanode-1", 1, 1024, 0.0075, 5.0, 0.0105, 7.0),
    ("g6-standard-2", 2, 4096, 0.036, 24.0, 0.0504, 33.6),
    ("g6-dedicated-4", 4, 8192, 0.108, 72.0, 0.1512, 100.8),
]
# Besides these: more than a page of types that nobody asks for.
TYPES += [(f"g9-other-{k}", 1, 1024, 1.0, 700.0, 1.0, 700.0) for k in range(120)]
BOOTING = ["provisioning", "booting", "running"]


class Refused(Exception):
    def __init__(self, status: int, reason: str, field: str = ""):
        self.status = status
        self.body = {"errors": [{"reason": reason} | ({"field": field} if field else {})]}


def need(body: dict, known: set, required: set) -> None:
    for field in required - body.keys():
        raise Refused(400, f"{field} is required", field)
    for field in body.keys() - known:
        raise Refused(400, f"{field} is not valid", field)


class Fake:
    """`asked`: methods and paths in order. `busy`: so many calls are told to come again after a
    second. `greeting`: what sshd says at `ssh_port`, on all Linodes."""

    def __init__(self):
        self.token = TOKEN
        self.lock = threading.RLock()
        self.numbers = itertools.count(1001)
        self.instances, self.firewalls, self.vpcs, self.devices = {}, {}, {}, {}
        self.asked, self.faults, self.deleting = [], [], {}
        self.passwords = []
        self.busy = 0
        self.greeting = b"SSH-2.0-OpenSSH_9.6p1\r\n"
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do(self):
                fake.serve(self)

            do_GET = do_POST = do_PUT = do_DELETE = do

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v4"
        self.ssh = socket.create_server(("127.0.0.1", 0))
        self.ssh_port = self.ssh.getsockname()[1]

    def __enter__(self):
        serve = functools.partial(self.server.serve_forever, poll_interval=0.02)
        for work in (serve, self.greet):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.ssh.close()

    def greet(self) -> None:
        """What sshd says first."""
        while True:
            try:
                connection, _ = self.ssh.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self.greeting)

    # What tests say and ask

    def fail(self, method: str, path: str, status: int, *, times: int = 1, after: int = 0) -> None:
        """Answer so many calls with this status, after so many that are answered well. Status 0:
        do it, and drop the connection."""
        self.faults.append(
            {"method": method, "path": path, "status": status, "times": times, "after": after}
        )

    def labels(self) -> set:
        return {
            thing["label"]
            for some in (self.instances, self.firewalls, self.vpcs)
            for thing in some.values()
        }

    def linode(self, label: str) -> dict:
        return next(i for i in self.instances.values() if i["label"] == label)

    def made(self) -> list:
        """What changed anything."""
        return [(method, path) for method, path in self.asked if method != "GET"]

    # HTTP

    def serve(self, request) -> None:
        parts = urllib.parse.urlsplit(request.path)
        length = int(request.headers.get("Content-Length") or 0)
        text = request.rfile.read(length)
        with self.lock:
            headers, drop = {}, False
            try:
                path = parts.path.removeprefix("/v4")
                self.asked.append((request.command, path))
                if request.headers.get("Authorization") != f"Bearer {self.token}":
                    raise Refused(401, "Invalid Token")
                if self.busy:
                    self.busy -= 1
                    headers["Retry-After"] = "1"
                    raise Refused(429, "Too many requests")
                drop = self.fault(request.command, path)
                body = json.loads(text) if text else {}
                filters = json.loads(request.headers.get("X-Filter") or "{}")
                query = dict(urllib.parse.parse_qsl(parts.query))
                status, answer = 200, self.answer(request.command, path, body, query, filters)
            except Refused as refused:
                status, answer = refused.status, refused.body
        if drop:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        data = json.dumps(answer).encode()
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def fault(self, method: str, path: str) -> bool:
        for fault in self.faults:
            if fault["method"] != method or not re.fullmatch(fault["path"], path):
                continue
            if fault["after"]:
                fault["after"] -= 1
            elif fault["times"]:
                fault["times"] -= 1
                if fault["status"]:
                    raise Refused(fault["status"], "An injected fault")
                return True
        return False

    def answer(self, method: str, path: str, body: dict, query: dict, filters: dict):
        for pattern, methods in self.routes().items():
            match = re.fullmatch(pattern, path)
            if not match:
                continue
            if method not in methods:
                raise Refused(405, "Method Not Allowed")
            result = methods[method](*map(int, match.groups()), *([body] if body else []))
            if isinstance(result, list):
                return self.page(result, query, filters)
            return result
        raise Refused(404, "Not found")

    def routes(self) -> dict:
        return {
            "/regions": {"GET": self.get_regions},
            "/linode/types": {"GET": self.get_types},
            "/linode/instances": {"GET": self.get_instances, "POST": self.post_instance},
            r"/linode/instances/(\d+)": {"PUT": self.put_instance, "DELETE": self.delete_instance},
            r"/linode/instances/(\d+)/boot": {"POST": self.boot},
            "/networking/firewalls": {"GET": self.get_firewalls, "POST": self.post_firewall},
            r"/networking/firewalls/(\d+)": {"DELETE": self.delete_firewall},
            r"/networking/firewalls/(\d+)/rules": {"PUT": self.put_rules},
            r"/networking/firewalls/(\d+)/devices": {
                "GET": self.get_devices,
                "POST": self.post_device,
            },
            "/vpcs": {"GET": self.get_vpcs, "POST": self.post_vpc},
            r"/vpcs/(\d+)": {"DELETE": self.delete_vpc},
            r"/vpcs/(\d+)/ips": {"GET": self.get_ips},
        }

    def page(self, found: list, query: dict, filters: dict) -> dict:
        for key, value in filters.items():
            found = [f for f in found if value == f[key] or value in f[key]]
        size, page = int(query.get("page_size", 100)), int(query.get("page", 1))
        if not 25 <= size <= 500:
            raise Refused(400, "Must be 25-500", "page_size")
        pages = max(1, -(-len(found) // size))
        if not 1 <= page <= pages:
            raise Refused(404, "Not found")
        some = found[(page - 1) * size : page * size]
        return {"data": some, "page": page, "pages": pages, "results": len(found)}

    def there(self, things: dict, number: int) -> dict:
        if number not in things:
            raise Refused(404, "Not found")
        return things[number]

    def unique(self, things: dict, label: str) -> None:
        if any(thing["label"] == label for thing in things.values()):
            raise Refused(400, "Label must be unique among your things", "label")

    # Regions and prices

    def get_regions(self) -> list:
        return [
            {"id": name, "label": name, "country": "de", "capabilities": able, "status": "ok"}
            for name, able in REGIONS.items()
        ]

    def get_types(self) -> list:
        return [
            {
                "id": name,
                "label": name,
                "vcpus": cores,
                "memory": memory,
                "price": {"hourly": hourly, "monthly": monthly},
                "region_prices": [{"id": "br-gru", "hourly": there_h, "monthly": there_m}],
            }
            for name, cores, memory, hourly, monthly, there_h, there_m in TYPES
        ]

    # Linodes

    def get_instances(self) -> list:
        """What a person sees meanwhile."""
        found = [dict(i) for i in self.instances.values()]
        for number, left in list(self.deleting.items()):
            self.deleting[number] -= 1
            if left <= 0:
                self.forget(number)
        for instance in self.instances.values():
            if instance["status"] in BOOTING[:-1]:
                instance["status"] = BOOTING[BOOTING.index(instance["status"]) + 1]
        return found

    def forget(self, number: int) -> None:
        del self.instances[number], self.deleting[number]
        for devices in self.devices.values():
            devices.discard(number)

    def post_instance(self, body: dict) -> dict:
        need(
            body,
            {
                "type", "region", "image", "label", "tags", "authorized_keys", "root_pass",
                "booted", "firewall_id", "interfaces", "interface_generation",
            },
            {"type", "region"},
        )  # fmt: skip
        if not re.fullmatch(r"[A-Za-z0-9](?:[-_.]?[A-Za-z0-9])*", body["label"]) or not (
            3 <= len(body["label"]) <= 64
        ):
            raise Refused(400, "Label is not valid", "label")
        self.unique(self.instances, body["label"])
        if body["type"] not in {t[0] for t in TYPES}:
            raise Refused(400, "A valid plan type by that ID was not found", "type")
        if not body.get("image", "").startswith("linode/"):
            raise Refused(400, "image is not valid", "image")
        if not all(3 <= len(tag) <= 50 for tag in body["tags"]):
            raise Refused(400, "Length must be 3-50 characters", "tags")
        if any(not re.match(r"(ssh|ecdsa)-", key) for key in body["authorized_keys"]):
            raise Refused(400, "SSH Key is not valid", "authorized_keys")
        self.passwords.append(body["root_pass"])
        self.there(self.firewalls, body["firewall_id"])
        (interface,) = body["interfaces"]
        assert interface["purpose"] == "vpc" and interface["ipv4"] == {"nat_1_1": "any"}
        vpc, subnet = next(
            (v, s)
            for v in self.vpcs.values()
            for s in v["subnets"]
            if s["id"] == interface["subnet_id"]
        )
        if vpc["region"] != body["region"]:
            raise Refused(400, "VPC is in another region", "interfaces")
        taken = {i["_private"] for i in self.instances.values()}
        hosts = list(ipaddress.ip_network(subnet["ipv4"]).hosts())[1:]
        number = next(self.numbers)
        self.instances[number] = {
            "id": number,
            "label": body["label"],
            "region": body["region"],
            "type": body["type"],
            "image": body["image"],
            "status": BOOTING[0],
            "tags": body["tags"],
            # The same for all: it is this machine, whose port answers.
            "ipv4": ["127.0.0.1"],
            "ipv6": "2001:db8::1/128",
            "_private": next(str(h) for h in hosts if str(h) not in taken),
            "_vpc": vpc["id"],
            "_subnet": subnet["id"],
            "_keys": body["authorized_keys"],
        }
        self.devices[body["firewall_id"]].add(number)
        return self.instances[number]

    def put_instance(self, number: int, body: dict) -> dict:
        need(body, {"tags", "label"}, set())
        self.there(self.instances, number).update(body)
        return self.instances[number]

    def boot(self, number: int) -> dict:
        self.there(self.instances, number)["status"] = "booting"
        return {}

    def delete_instance(self, number: int) -> dict:
        self.there(self.instances, number)["status"] = "deleting"
        self.deleting.setdefault(number, 1)
        return {}

    # Firewalls

    def get_firewalls(self) -> list:
        return list(self.firewalls.values())

    def check_rules(self, rules: dict) -> dict:
        need(
            rules,
            {"inbound", "outbound", "inbound_policy", "outbound_policy"},
            {"inbound_policy", "outbound_policy"},
        )
        for rule in rules["inbound"]:
            need(
                rule,
                {"action", "protocol", "addresses", "ports", "label", "description"},
                {"action", "protocol", "addresses"},
            )
            if not re.fullmatch(r"[A-Za-z][\w.-]{2,31}", rule["label"]):
                raise Refused(400, "Label is not valid", "label")
            if rule["protocol"] == "ICMP" and rule.get("ports"):
                raise Refused(400, "Ports are not allowed for ICMP", "ports")
            for address in rule["addresses"]["ipv4"]:
                if "/" not in address:
                    raise Refused(400, "Must be a network", "addresses")
                ipaddress.ip_network(address)
        # As the API does: what was not given is there.
        return rules | {
            "version": 1,
            "fingerprint": "997dd135",
            "inbound": [
                {"ports": None, "description": None, **rule} | {"addresses": rule["addresses"]}
                for rule in rules["inbound"]
            ],
        }

    def post_firewall(self, body: dict) -> dict:
        need(body, {"label", "tags", "rules", "devices"}, {"label", "rules"})
        if not re.fullmatch(r"[A-Za-z][\w.-]{2,31}", body["label"]):
            raise Refused(400, "Label is not valid", "label")
        self.unique(self.firewalls, body["label"])
        number = next(self.numbers)
        self.devices[number] = set()
        self.firewalls[number] = {
            "id": number,
            "label": body["label"],
            "tags": body.get("tags", []),
            "status": "enabled",
            "rules": self.check_rules(body["rules"]),
        }
        return self.firewalls[number]

    def put_rules(self, number: int, body: dict) -> dict:
        self.there(self.firewalls, number)["rules"] = self.check_rules(body)
        return self.firewalls[number]["rules"]

    def delete_firewall(self, number: int) -> dict:
        self.there(self.firewalls, number)
        del self.firewalls[number], self.devices[number]
        return {}

    def get_devices(self, number: int) -> list:
        self.there(self.firewalls, number)
        return [
            {
                "id": 50000 + linode,
                "entity": {"id": linode, "type": "linode", "label": "", "url": ""},
            }
            for linode in sorted(self.devices[number])
        ]

    def post_device(self, number: int, body: dict) -> dict:
        need(body, {"type", "id"}, {"type", "id"})
        self.there(self.instances, body["id"])
        self.devices[number].add(body["id"])
        return {"id": 50000 + body["id"], "entity": {"id": body["id"], "type": "linode"}}

    # VPCs

    def get_vpcs(self) -> list:
        return list(self.vpcs.values())

    def post_vpc(self, body: dict) -> dict:
        need(body, {"label", "description", "region", "subnets"}, {"label", "region"})
        if not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9])*", body["label"]):
            raise Refused(400, "Label is not valid", "label")
        if "VPCs" not in REGIONS.get(body["region"], []):
            raise Refused(400, "region is not valid", "region")
        self.unique(self.vpcs, body["label"])
        number = next(self.numbers)
        self.vpcs[number] = {
            "id": number,
            "label": body["label"],
            "description": body["description"],
            "region": body["region"],
            "subnets": [
                {"id": next(self.numbers), "label": s["label"], "ipv4": s["ipv4"], "linodes": []}
                for s in body["subnets"]
            ],
        }
        return self.vpcs[number]

    def delete_vpc(self, number: int) -> dict:
        self.there(self.vpcs, number)
        if any(i["_vpc"] == number for i in self.instances.values()):
            raise Refused(400, "You can not delete a VPC with attached linodes")
        del self.vpcs[number]
        return {}

    def get_ips(self, number: int) -> list:
        self.there(self.vpcs, number)
        return [
            {
                "address": i["_private"],
                "address_range": None,
                "vpc_id": number,
                "subnet_id": i["_subnet"],
                "region": i["region"],
                "linode_id": i["id"],
                "config_id": 1,
                "interface_id": 1,
                "active": i["status"] == "running",
                "nat_1_1": i["ipv4"][0],
                "gateway": "10.0.0.1",
                "prefix": 24,
                "subnet_mask": "255.255.255.0",
            }
            for i in self.instances.values()
            if i["_vpc"] == number
        ]


def count(fake: Fake) -> collections.Counter:
    """How many of which role."""
    roles = (tag for i in fake.instances.values() for tag in i["tags"])
    return collections.Counter(tag for tag in roles if tag in ("femto-master", "femto-worker"))
