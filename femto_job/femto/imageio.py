"""Archives in imageio: after `import femto.imageio`, imageio.v3 reads and writes `.laff.gz`.

    import femto.imageio
    import imageio.v3 as iio

    image = iio.imread("photo.laff.gz")            # as femto.decode gives it
    small = iio.imread("photo.laff.gz", scale=8)   # and with its options
    iio.imwrite("copy.laff.gz", image, quality=80)  # those of femto.encode

imageio takes the plugin to read archives, whatever they are called, and to write what has a name
that ends in `.laff` or `.laff.gz`, or such an `extension=`; `plugin="LAFF"` asks for it. An archive
holds one picture: index 0.
"""

import os
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from . import codec, container
from .container import AnyPath, Info
from .errors import LaffError

try:
    from imageio.config import FileExtension, PluginConfig, known_extensions, known_plugins
    from imageio.core.request import URI_BYTES, InitializationError, IOMode, Request
    from imageio.core.v3_plugin_api import ImageProperties, PluginV3
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs imageio, which is not here: pip install imageio", name=error.name
    ) from None

__all__ = ["LaffPlugin"]

NAME = "LAFF"
"""The name under which imageio knows the plugin."""


class LaffPlugin(PluginV3):
    """An archive as imageio reads or writes it; see the module."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        name = os.fspath(request.raw_uri) if isinstance(request.raw_uri, str | os.PathLike) else ""
        if request.mode.io_mode == IOMode.read:
            if not container.is_archive(request.firstbytes):
                raise InitializationError(f"{name or 'what was given'}: not a .laff archive")
        # imageio's own extension of NAME.laff.gz is .gz, unless it was told another.
        elif request.extension == ".gz" and not str(name).lower().endswith(".laff.gz"):
            raise InitializationError(f"{name}: archives are called NAME.laff.gz")
        elif request.extension not in (".gz", ".laff", ".laff.gz"):
            raise InitializationError(f"{name}: say extension='.laff.gz', or name it so")
        self._content: bytes | None = None

    def _stored(self) -> bytes | AnyPath:
        """The archive: a file's path, so that only what is needed is read, or bytes."""
        uri = self.request.raw_uri
        if isinstance(uri, str | os.PathLike) and os.path.isfile(uri):
            return uri
        if self._content is None:
            self._content = self.request.get_file().read()
        return self._content

    def read(self, *, index: Any = None, **options: Any) -> NDArray[Any]:
        """The picture, (h, w) or (h, w, 3), or with an `index` of ... (1, h, w) or (1, h, w, 3).

        `options` are those of `femto.decode`: region, fraction, layers, scale, basis, threads,
        samples, max_pixels. Raises LaffError, and ValueError for an index that is not there.
        """
        _check_index(index)
        image = codec.decode(self._stored(), **options)
        return image[None] if index is ... else image

    def iter(self, **options: Any) -> Iterator[NDArray[Any]]:
        """The one picture; `options` as for `read`."""
        yield self.read(**options)

    def write(self, ndimage: Any, *, is_batch: bool = False, **options: Any) -> bytes | None:
        """Write one picture: an array, (h, w) or (h, w, 3), or one within a list or, with
        `is_batch`, within an array. `options` are those of `femto.encode`. Returns the archive
        where "<bytes>" is written to. Raises LaffError before anything is written."""
        if is_batch or isinstance(ndimage, list):
            if len(ndimage) != 1:
                raise LaffError(f"an archive holds one picture, not {len(ndimage)}: write each")
            ndimage = ndimage[0]
        archive = codec.encode(np.asarray(ndimage), **options)
        self.request.get_file().write(archive)
        return archive if self.request._uri_type == URI_BYTES else None

    def properties(self, index: Any = None) -> ImageProperties:
        """Shape and type of what `read` gives, without decoding."""
        _check_index(index)
        about = self._about()
        shape: tuple[int, ...] = (about["height"], about["width"])
        shape += (3,) if about["mode"] == "RGB" else ()
        mapping = about["mapping"]
        dtype = np.dtype(
            mapping["type"] if mapping else np.uint8 if about["bits"] <= 8 else np.uint16
        )
        if index is ...:
            return ImageProperties((1, *shape), dtype, n_images=1, is_batch=True)
        return ImageProperties(shape, dtype, is_batch=False)

    def metadata(self, index: Any = None, exclude_applied: bool = True) -> dict[str, Any]:
        """What `femto.info` tells of the archive, but for what `properties` does; with
        `exclude_applied` not the mapping, which `read` has applied."""
        _check_index(index)
        left_out = {"width", "height", "mode", "format"} | (
            {"mapping"} if exclude_applied else set()
        )
        return {key: value for key, value in self._about().items() if key not in left_out}

    def _about(self) -> Info:
        return codec.info(cast(Any, self._stored()))


def _check_index(index: Any) -> None:
    if index not in (None, 0, ...):
        raise ValueError(f"there is no picture {index}: an archive holds one, with index 0")


# The first that is asked what bytes are: Pillow knows archives, too, after `import femto.pillow`.
_others = dict(known_plugins)
known_plugins.clear()
known_plugins[NAME] = PluginConfig(name=NAME, class_name="LaffPlugin", module_name=__name__)
known_plugins.update(_others)
for _extension in (".laff", ".laff.gz", ".gz"):
    known_extensions.setdefault(_extension, []).insert(
        0, FileExtension(name="femto archive", extension=_extension, priority=[NAME])
    )
