"""Wait until pages on the host's network answer as they should."""

DOCUMENTATION = r"""
module: femto_wait
short_description: Wait until pages answer as they should
description: Asks for each page in turn until it is as wanted. Changes nothing.
author: The femto authors
options:
  pages:
    description: The pages.
    type: list
    elements: dict
    required: true
    suboptions:
      url:
        description: Its address. Certificates are not proven.
        type: str
        required: true
      alive:
        description: Addresses of workers that must be alive, on the JSON page of a Spark master.
        type: list
        elements: str
      contains:
        description: What must stand on it.
        type: str
        default: ""
      fail_msg:
        description: What to say if that does not come about. %s is what is missing.
        type: str
        required: true
  seconds:
    description: How long to wait for all of them.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Wait until it answers
  femto_wait:
    pages:
      - url: http://127.0.0.1:1337/api
        contains: version
        fail_msg: "JupyterLab does not answer: %s"
"""

RETURN = r""" # """

import json
import ssl
import time
import urllib.request

from ansible.module_utils.basic import AnsibleModule

UNPROVEN = ssl.create_default_context()
UNPROVEN.check_hostname = False
UNPROVEN.verify_mode = ssl.CERT_NONE
# The nodes talk to each other directly, whatever proxy the account has.
OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=UNPROVEN)
)


def lacks(page: dict) -> str:
    """What is missing of the page; nothing if it is as wanted."""
    try:
        with OPENER.open(page["url"], timeout=10) as answer:
            text = answer.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    if page["contains"] not in text:
        return f"{page['contains']} is not on it"
    if page["alive"] is None:
        return ""
    try:
        state = json.loads(text)
        alive = {worker["host"] for worker in state["workers"] if worker["state"] == "ALIVE"}
    except (ValueError, KeyError):
        return "no page of a master"
    if state["status"] != "ALIVE":
        return f"it is {state['status']}"
    return ", ".join(address for address in page["alive"] if address not in alive)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "pages": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "url": {"type": "str", "required": True},
                    "alive": {"type": "list", "elements": "str"},
                    "contains": {"type": "str", "default": ""},
                    "fail_msg": {"type": "str", "required": True},
                },
            },
            "seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    end = time.monotonic() + module.params["seconds"]
    for page in module.params["pages"]:
        while True:
            lacking = lacks(page)
            if not lacking:
                break
            if time.monotonic() > end:
                module.fail_json(msg=page["fail_msg"].replace("%s", lacking))
            time.sleep(0.5)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
