"""femto: archives of pictures as text, from the SVD scores of their blocks."""

from .errors import LaffError

__version__ = "0.1.0"
__all__ = [
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


def __getattr__(name: str):
    # The codec pulls in numba, half a second; those who only want LaffError need not wait.
    if name == "features":
        from .feature_map import features

        return features
    if name in __all__:
        from . import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
