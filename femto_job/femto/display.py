"""How an archive shows itself in a notebook: its picture, and what is in it."""

import base64
import html
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import samples
from .container import Info
from .errors import LaffError, printable
from .samples import Levels

PREVIEW = 720
"""Longest edge of the shown picture, in pixels."""
COARSE_ABOVE = 4 << 20
"""Larger pictures (in pixels) are shown as their first layer has them, which is quick."""
FACTS_ABOVE = 64 << 20
"""Of pictures larger than this only the facts are shown."""


def png(image: NDArray[Any], *, longest: int | None = None, levels: Levels | None = None) -> bytes:
    """A picture, (h, w) or (h, w, 3), uint8 or uint16, as a PNG file of 8 bits, `levels` from
    black to white.

    With `longest`, larger ones are reduced to that edge.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(samples.to_bytes(image, levels)))
    if longest is not None and max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def depth_text(about: Info) -> str:
    """The samples of an archive in a few words, from what `femto.info` says."""
    text = f"{about['bits']} bits"
    low, high = about["levels"]
    if (low, high) != samples.levels_of(about["bits"]):
        text += f", levels {low} to {high}"
    mapping = about["mapping"]
    if mapping is not None:
        ends = [f"{x * mapping['slope'] + mapping['intercept']:g}" for x in (low, high)]
        text += f" for {mapping['type']} {ends[0]} to {ends[1]}"
    return text


def facts(about: Info) -> str:
    """What an archive holds, in one line."""
    width, height, bits = about["width"], about["height"], about["bits"]
    kind = "grey" if about["mode"] == "L" else "RGB"
    raw = width * height * (1 if kind == "grey" else 3) * samples.dtype_of(bits).itemsize
    parts = [
        f"{width} × {height} {kind}, {depth_text(about)}",
        f"{about['nbytes']:,} bytes",
        f"{raw / about['nbytes']:.1f} times smaller than its pixels",
        f"{8 * about['nbytes'] / (width * height):.2f} bits per pixel",
        f"{about['layers']} layers",
        *([] if about["max_error"] is None else [samples.exactness(about["max_error"])]),
        f"basis {about['basis']['name']}",
    ]
    if about["source"]:
        parts.insert(0, printable(about["source"]))
    return " · ".join(parts)


def mimebundle(about: Info, decode: Callable[..., NDArray[Any]]) -> dict[str, str]:
    """What a notebook shows of an archive: text, and HTML with the picture.

    `decode` gives the archive's samples, with `layers=1` those of its first layer alone. Large
    pictures are shown coarsely, huge ones not at all: looking at a variable must be quick.
    """
    line = facts(about)
    pixels = about["width"] * about["height"]
    shown, note = "", ""
    if pixels > FACTS_ABOVE:
        note = "too large to show; femto.decode_bands gives it piece by piece"
    elif not about["layers"]:
        note = "no layer has arrived yet"
    else:
        try:
            layers = 1 if pixels > COARSE_ABOVE else None
            image = decode(layers=layers)
        except LaffError as error:  # a basis that is not here
            note = str(error)
        else:
            levels = Levels(*about["levels"])
            data = base64.b64encode(png(image, longest=PREVIEW, levels=levels)).decode()
            shown = (
                f'<img alt="{html.escape(line)}" style="max-width:100%" '
                f'src="data:image/png;base64,{data}">'
            )
            if pixels > COARSE_ABOVE:
                note = "shown from the first layer only; femto.decode gives all of it"
    caption = " · ".join(filter(None, [line, note]))
    return {
        "text/plain": f"<.laff archive: {caption}>",
        "text/html": f'<figure style="margin:0">{shown}'
        f'<figcaption style="font-size:.85em;opacity:.75">{html.escape(caption)}</figcaption>'
        "</figure>",
    }
