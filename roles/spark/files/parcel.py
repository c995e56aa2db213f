"""A folder as one tar file, on the controller and on the master, with Python's own library alone.

    parcel.py pack FOLDER FILE|- [SKIP]     all files but hidden ones and those of folder SKIP
    parcel.py unpack FOLDER < FILE          into a folder that is there; what it has stays

A link to a file of the same folder travels as that file. No other link is followed, nor is one
sent: in its place travels a mark, which becomes a link that leads nowhere, so that the job reports
it. `pack` prints the names of such links, one a line. `unpack` writes below FOLDER alone, takes
nothing but files, folders and marks, and gives what it writes to the account that runs it.
Exit status 2: the last line says why.
"""

import contextlib
import os
import stat
import sys
import tarfile
import tempfile

NOWHERE = "/nonexistent/link"


class Refused(Exception):
    """What cannot go on, in one line with its remedy."""


def printable(name: str) -> str:
    """The name on one line."""
    return name if name.isprintable() else ascii(name)[1:-1]


def within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def add(tar: tarfile.TarFile, path: str, name: str) -> None:
    """One file, at the size that it has now."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            info = tarfile.TarInfo(name)
            info.size, info.mtime = status.st_size, status.st_mtime
            if not stat.S_ISREG(status.st_mode):
                raise Refused(f"{printable(path)}: is no file any more: run the same command again")
            tar.addfile(info, file)
    except OSError as error:
        why = error.strerror or "it became shorter meanwhile"
        raise Refused(
            f"{printable(path)}: cannot be read ({why}): let this account read it, or take it out"
        ) from None


def pack(folder: str, tar: tarfile.TarFile, skip: str) -> list[str]:
    """Add the folder's files to the tar file; the names of what did not travel."""
    root = os.path.realpath(folder)
    left = []

    def failed(error: OSError) -> None:
        name = printable(error.filename)
        raise Refused(f"{name}: cannot be read ({error.strerror}): let this account read it")

    for here, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        linked = [f for f in folders if os.path.islink(os.path.join(here, f))]
        folders[:] = [f for f in folders if f not in linked and os.path.join(here, f) != skip]
        if here != root:
            info = tarfile.TarInfo(os.path.relpath(here, root))
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name in sorted(n for n in names + linked if not n.startswith(".")):
            path = os.path.join(here, name)
            real = os.path.realpath(path)
            relative = os.path.relpath(path, root)
            if os.path.isfile(real) and within(real, root):
                add(tar, real, relative)
            else:
                info = tarfile.TarInfo(relative)
                info.type, info.linkname = tarfile.SYMTYPE, NOWHERE
                tar.addfile(info)
                left.append(relative)
    return left


def place(root: str, name: str) -> str:
    """Where a member belongs; refused unless that is below the root."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "" in parts:
        raise Refused(f"{printable(name)} is no place below the folder: nothing more is unpacked")
    parent = os.path.join(root, *parts[:-1])
    if os.path.realpath(parent) != os.path.normpath(parent):
        raise Refused(f"{printable(name)} leads through a link: nothing more is unpacked")
    os.makedirs(parent, exist_ok=True)
    return os.path.join(root, *parts)


def unpack(folder: str, tar: tarfile.TarFile) -> None:
    root = os.path.realpath(folder)
    mask = os.umask(0)
    os.umask(mask)
    for member in tar:
        path = place(root, member.name)
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            if os.path.islink(path) or not os.path.isdir(path):
                raise Refused(f"{printable(path)}: is there and is no folder: move it away")
        elif member.issym():
            with contextlib.suppress(FileExistsError):
                os.symlink(NOWHERE, path)
        elif member.isreg():
            handle, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".femto-")
            try:
                with open(handle, "wb") as file:
                    tar.makefile_into(member, file)
                os.chmod(part, 0o666 & ~mask)
                os.utime(part, (member.mtime, member.mtime))
                os.replace(part, path)
            except BaseException:
                os.unlink(part)
                raise
        else:
            name = printable(member.name)
            raise Refused(f"{name} is neither file nor folder: nothing more is unpacked")


class Tar(tarfile.TarFile):
    """A tar file whose names are UTF-8 wherever it is made."""

    format = tarfile.PAX_FORMAT
    encoding = "utf-8"

    def makefile_into(self, member: tarfile.TarInfo, file) -> None:
        source = self.extractfile(member)
        while data := source.read(1 << 20):
            file.write(data)


def main() -> int:
    try:
        if sys.argv[1] == "pack":
            folder, target, *skip = sys.argv[2:]
            output = sys.stdout.buffer if target == "-" else open(target, "wb")  # noqa: SIM115
            with output, Tar.open(fileobj=output, mode="w|") as tar:
                left = pack(folder, tar, os.path.realpath(skip[0]) if skip else "")
            if target != "-":
                print(*map(printable, left), sep="\n")
        else:
            with Tar.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
                unpack(sys.argv[2], tar)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    except tarfile.TarError as error:
        what = f"what came is cut short or damaged ({error})"
        print(f"{what}: run the same command again", file=sys.stderr)
        return 2
    except OSError as error:
        name = error.filename or sys.argv[min(3, len(sys.argv) - 1)]
        print(f"{printable(name)}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
