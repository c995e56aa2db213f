"""Wheels of femto hold its kernels compiled, see femto/build.py; everything else is in
pyproject.toml."""

import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent / "femto_job"))


def targets(platform: str) -> list[str]:
    """What femto is compiled for in a wheel for a platform, as setuptools names it."""
    from femto.build import TARGETS

    system, _, machine = platform.replace("-", "_").partition("_")
    # Nobody has compiled on Windows yet.
    if (system, machine) == ("win", "amd64") and sys.platform != "win32":
        system, machine = "windows", "x86_64"
    return [name for name in TARGETS if name.startswith(f"{system}-{machine}")]


def platform(distribution) -> str:
    """The platform that a wheel is made for: this one, unless another is given."""
    wheel = distribution.get_command_obj("bdist_wheel", create=False)
    return getattr(wheel, "plat_name", None) or sysconfig.get_platform()


class BuildWithLibraries(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        names = targets(platform(self.distribution))
        if names:
            from femto.build import build

            folder = Path(self.build_lib) / "femto" / "_library"
            for path in build(names, folder, self._say):
                self._say(f"femto is compiled: {path}")
        else:
            self._say(f"femto is not compiled for {platform(self.distribution)}: it needs numba")

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Femto(Distribution):
    def has_ext_modules(self):
        return bool(targets(platform(self)))


class WheelWithLibraries(bdist_wheel):
    def get_tag(self):
        if self.root_is_pure:
            return super().get_tag()
        name = platform(self.distribution).replace("-", "_").replace(".", "_")
        system, _, machine = name.partition("_")
        if system == "linux":  # the libraries need no C library, neither glibc nor musl
            name = f"manylinux_2_17_{machine}.musllinux_1_1_{machine}"
        return "py3", "none", name


# femto.build starts a process that imports the main module again.
if __name__ == "__main__":
    setup(
        distclass=Femto,
        cmdclass={"build_py": BuildWithLibraries, "bdist_wheel": WheelWithLibraries},
    )
