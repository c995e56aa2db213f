"""setuptools' own backend, which for wheels that need it also asks for a linker, see setup.py."""

import shutil
import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def get_requires_for_build_wheel(config_settings=None):
    needed = build_meta.get_requires_for_build_wheel(config_settings)
    elsewhere = "--plat-name" in str((config_settings or {}).get("--build-option"))
    if elsewhere or (sys.platform == "linux" and shutil.which("cc") is None):
        needed.append("ziglang")
    return needed
