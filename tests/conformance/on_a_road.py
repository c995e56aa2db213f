"""Decode and encode golden archives in a process of its own, on the road that FEMTO_JIT chooses:

    python on_a_road.py NAME...

ELSEWHERE, if set, says in JSON which other memory kernels run in: the path of a WebAssembly module,
or the command of an emulator.

Prints what came out as JSON: {NAME: [pixels, strings], "road": …, "library": its path,
"modules": [of numba and LLVM]}.
"""

import hashlib
import json
import os
import sys

import elsewhere
from make_golden import GOLDEN, strings_hash
from test_golden import MANIFEST, picture

import femto
from femto.coding import kernels

if place := json.loads(os.environ.get("ELSEWHERE", "null")):
    road = elsewhere.WebAssembly if isinstance(place, str) else elsewhere.Emulated
    kernels._ROADS.append(road(place))
found = {}
for name in sys.argv[1:]:
    decoded = femto.decode(GOLDEN / f"{name}.laff.gz")
    archive = femto.encode(picture(GOLDEN / f"{name}.source.png"), **MANIFEST[name]["options"])
    found[name] = [
        hashlib.sha256(decoded.astype(">u2").tobytes()).hexdigest(),
        strings_hash(archive),
    ]
found["road"] = kernels.road().name
found["library"] = str(getattr(kernels.road(), "path", ""))
found["modules"] = sorted({"numba", "llvmlite"} & set(sys.modules))
print(json.dumps(found))
