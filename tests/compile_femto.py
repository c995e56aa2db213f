"""Compile femto as far as most tests need it: test.sh does so during lint.

In a fresh clone that takes a minute or two, and both processes that run tests would begin with it.
"""

import json
from pathlib import Path

import femto
from femto import pictures

golden = Path(__file__).parent / "conformance" / "golden"
for name, facts in json.loads((golden / "manifest.json").read_text()).items():
    femto.decode(golden / f"{name}.laff.gz")
    femto.features(golden / f"{name}.laff.gz")
    with pictures.open_page(golden / f"{name}.source.png") as source:
        femto.encode(source[:, :], **facts["options"])
