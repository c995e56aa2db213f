"""femto: archives of pictures as text, from the SVD scores of their blocks.

    archive = femto.encode(pixels, quality=75)     # the content of NAME.laff.gz
    pixels = femto.decode("photo.laff.gz")         # bytes or a path

`decode_bands` and `decode_layers` give large pictures piece by piece and arriving ones layer by
layer, `truncate` shortens an archive, `info` and `parse` tell what is in it, `features` reads what
machine learning wants of it. All raise `LaffError` for what they cannot use. `femto.pictures` reads
and writes picture files, `femto.sklearn` is a transformer for scikit-learn, and after
`import femto.pillow` Pillow opens and saves archives, after `import femto.imageio` imageio;
`femto.numcodecs` and `femto.zarr` have them as chunks of arrays.
"""

from typing import TYPE_CHECKING

from .errors import LaffError

if TYPE_CHECKING:
    from .codec import decode, decode_bands, decode_layers, encode, info, parse, truncate
    from .container import Archive
    from .learning.feature_map import Features, features

__version__ = "0.1.0"
__all__ = [
    "Archive",
    "Features",
    "LaffError",
    "decode",
    "decode_bands",
    "decode_layers",
    "encode",
    "features",
    "info",
    "parse",
    "truncate",
]

if not TYPE_CHECKING:  # for checkers of types, whatever is not there would be

    def __getattr__(name: str):
        # The codec pulls in NumPy; those who only want LaffError need not wait.
        if name in ("Features", "features"):
            from .learning import feature_map as home
        elif name in __all__:
            from . import codec as home
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(home, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
