"""Archives as chunks of Zarr's format 3: the codec `femto.laff`, from arrays to bytes.

    import zarr
    from femto.zarr import LaffCodec

    array = zarr.create_array(
        "scans.zarr", shape=(100, 2048, 2048), chunks=(1, 1024, 1024), dtype="uint16",
        serializer=LaffCodec(quality=80), compressors=None,
    )

Where femto is installed, Zarr finds it when it opens such an array; else `import femto.zarr`
registers it. (For format 2 see femto.numcodecs.) It is lossy unless `lossless` is true, and each
chunk is one picture, an archive that other tools can read: uint8 or uint16, (h, w) or (h, w, 3),
with any number of axes of length 1 before. Write whole chunks: of one that is written in part Zarr
decodes the rest and encodes it again, which, if it is lossy, loses a little every time.
"""

import asyncio
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import LaffError

try:
    from zarr.abc.codec import ArrayBytesCodec
    from zarr.registry import register_codec
except ImportError as error:  # Zarr 2 has no such module
    raise ModuleNotFoundError(
        f"{__name__} needs Zarr 3, which is not here: pip install 'zarr>=3' (Python 3.11 or newer)",
        name=error.name,
    ) from None

from .numcodecs import Laff, picture_shape

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

__all__ = ["LaffCodec"]


@dataclass(frozen=True, kw_only=True)
class LaffCodec(ArrayBytesCodec):
    """A chunk as an archive; parameters are those of `femto.numcodecs.Laff`, and like them checked
    at once. Raises LaffError."""

    is_fixed_size = False

    quality: float | None = None
    ratio: float | None = None
    psnr: float | None = None
    lossless: bool = False
    max_error: int | None = None
    effort: str = "full"
    tune: str = "psnr"
    bits: int | None = None

    def __post_init__(self) -> None:
        assert self._laff is not None  # which says what is wrong with the options

    @cached_property
    def _laff(self) -> Laff:
        return Laff(**dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LaffCodec":
        """The codec that an array's metadata tell of."""
        options = data.get("configuration", {})
        unknown = set(options) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            names = ", ".join(sorted(map(str, unknown)))
            raise LaffError(f"{Laff.codec_id} has no {names}: a newer femto may have written this")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """What an array's metadata tell of the codec: the options that are not as usual."""
        options = self._laff.get_config()
        return {"name": options.pop("id"), "configuration": options}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """LaffError if chunks of an array are no pictures."""
        picture_shape(getattr(chunk_grid, "chunk_shape", shape), dtype.to_native_dtype())

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: "ArraySpec") -> int:
        """Nobody knows."""
        raise NotImplementedError

    def _encode_sync(self, chunk: "NDBuffer", spec: "ArraySpec") -> "Buffer":
        pixels = chunk.as_numpy_array()
        # Chunks have values, not bytes: any order of these will do.
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"), order="C", copy=False)
        buffer: Buffer = spec.prototype.buffer.from_bytes(self._laff.encode(pixels))
        return buffer

    def _decode_sync(self, chunk: "Buffer", spec: "ArraySpec") -> "NDBuffer":
        pixels = self._laff.decode(chunk.to_bytes())
        wanted = spec.dtype.to_native_dtype()
        if pixels.dtype != wanted.newbyteorder("<") or pixels.size != np.prod(spec.shape):
            raise LaffError(
                f"a chunk holds {pixels.dtype} {pixels.shape}, not {wanted} {spec.shape}: the "
                "array's metadata or the chunk are damaged"
            )
        pixels = pixels.astype(wanted, copy=False).reshape(spec.shape)
        buffer: NDBuffer = spec.prototype.nd_buffer.from_numpy_array(pixels)
        return buffer

    async def _encode_single(self, chunk: "NDBuffer", spec: "ArraySpec") -> "Buffer":
        return await asyncio.to_thread(self._encode_sync, chunk, spec)

    async def _decode_single(self, chunk: "Buffer", spec: "ArraySpec") -> "NDBuffer":
        return await asyncio.to_thread(self._decode_sync, chunk, spec)


register_codec(Laff.codec_id, LaffCodec)
