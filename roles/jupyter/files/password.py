"""Keep a hash of the password on standard input in the file that is named, unless it is there."""

import os
import shutil
import sys
from pathlib import Path

from jupyter_server.auth import passwd, passwd_check

target, password = Path(sys.argv[1]), sys.stdin.read().rstrip("\n")
if not (target.is_file() and passwd_check(target.read_text().strip(), password)):
    part = target.with_suffix(".new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(passwd(password) + "\n")
    shutil.chown(part, sys.argv[2], sys.argv[2])
    part.replace(target)
    print("changed")
