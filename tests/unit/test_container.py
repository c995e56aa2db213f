"""Archives that are damaged, foreign or made to harm."""

import contextlib
import gzip
import json
import math
import random
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

import femto
from femto import container, pictures
from femto.container.header import checksum
from femto.container.strings import seal, unseal

GOLDEN = Path(__file__).resolve().parents[1] / "conformance" / "golden"
IMAGE = np.add.outer(np.arange(70), np.arange(90)).astype(np.uint8)


@pytest.fixture(scope="module")
def archive() -> bytes:
    return femto.encode(IMAGE, quality=70, source="p.png")


@pytest.fixture(scope="module")
def top(archive) -> dict:
    return json.loads(gzip.decompress(archive))


def refused(data, *words: str) -> None:
    with pytest.raises(femto.LaffError) as caught:
        femto.decode(data)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def changed(top: dict, **changes) -> bytes:
    return json.dumps(top | changes).encode()


def test_what_is_no_archive():
    refused(b"", "empty")
    refused(b"\x89PNG\r\n\x1a\n", "not a .laff archive")
    refused(b"{}", "not a .laff archive")
    refused(b"[1]", "not a .laff archive")
    refused(b"{" * 100_000, "archive")
    refused(b'{"a":' * 100_000, "archive")
    refused(gzip.compress(b"hello"), "archive")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "no.laff.gz", "no.laff.gz", "no such file")
    refused(tmp_path, str(tmp_path), "cannot be read")


def test_every_cut_is_noticed(archive):
    for n in range(len(archive)):
        refused(archive[:n])
    text = gzip.decompress(archive)
    for n in range(0, len(text), 7):
        refused(text[:n])


def test_a_flipped_byte_is_noticed_or_harmless(archive):
    expected = femto.decode(archive)
    for data in (archive, gzip.decompress(archive)):
        for at in range(0, len(data), 1 if len(data) < 3000 else 3):
            broken = bytearray(data)
            broken[at] ^= 1 << (at % 8)
            try:
                decoded = femto.decode(bytes(broken))
            except femto.LaffError:
                continue
            assert (decoded == expected).all(), f"byte {at}"


ABOUT = {"exif": b"II*\0" + bytes(40), "text": [["Title", "x"]], "resolution": [3, 3, "inch"]}
KINDS = {
    "8 bits": {},
    "metadata": {"metadata": ABOUT},
    "golden v2-12-bits": None,
    "golden v2-levels": None,
    "golden v2-hot-pixel": None,
    "int16": {"image": IMAGE.astype(np.int16) * 9 - 400},
    "float32": {"image": (IMAGE / 99).astype(np.float32), "metadata": ABOUT},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> bytes:
    """An archive that says more than its size: levels, limits, a mapping, metadata."""
    if KINDS[request.param] is None:
        return (GOLDEN / f"{request.param.split()[1]}.laff.gz").read_bytes()
    return femto.encode(**{"image": IMAGE, "quality": 70} | KINDS[request.param])


def test_random_damage_never_escapes(kind):
    rng = random.Random(3)
    text = gzip.decompress(kind)
    for _ in range(300):
        broken = bytearray(text)
        # Half of it where the header is, which is the least of an archive.
        reach = rng.choice([600, len(broken)])
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(min(reach, len(broken)))] = rng.randrange(256)
        with contextlib.suppress(femto.LaffError):
            femto.decode(bytes(broken))


ODD = [
    None, True, -1, 0, 1, 2, 254, 255, 4095, 65534, 65535, 65536, 1 << 40, 10**400, 0.5, 1e-300,
    -1e299, 1e299, 1e308, math.inf, math.nan, "", "int8", "uint64", "float16", "float64", [], {},
]  # fmt: skip


def changed_within(value, rng: random.Random):
    """A JSON value in which one part is another."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        return value | {key: changed_within(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [changed_within(v, rng) if i == at else v for i, v in enumerate(value)]
    if isinstance(value, str) and len(value) > 9 and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice("Aa9+/=") + value[at + rng.randrange(2) :]
    return rng.choice(ODD)


def sealed(top: dict) -> bytes:
    """The archive with checksums that are right, as somebody makes it who means harm."""
    head = {k: v for k, v in top.items() if k not in ("crc", "blocks", "strings")}
    crc, old = checksum(json.loads(json.dumps(head))), top["crc"]

    def again(text, layer, tile):
        return seal(unseal(text, old, layer, tile), crc, layer, tile)

    blocks = [again(s, -1, t) for t, s in enumerate(top["blocks"])]
    strings = [
        [again(s, k, t) for t, s in enumerate(layer)] for k, layer in enumerate(top["strings"])
    ]
    return json.dumps(head | {"crc": crc, "blocks": blocks, "strings": strings}).encode()


def test_harm_that_is_sealed_never_escapes(kind, tmp_path):
    """Nothing but LaffError, in no more memory than its few pixels take."""
    rng, whole = random.Random(5), json.loads(gzip.decompress(kind))
    about = {"levels": [0, 255], "limits": [0, 255]} | whole["image"]
    femto.decode(kind)  # what is compiled and kept is no part of it
    tracemalloc.start()
    read = 0
    for number in range(200):
        part = rng.choice([p for p in ("levels", "limits", "mapping", "metadata", "step", "bits",
                                       "width", "height", "tile", "basis")
                           if p in whole or p in about])  # fmt: skip
        if part in whole:
            top = whole | {part: changed_within(whole[part], rng)}
        else:
            top = whole | {"image": whole["image"] | {part: changed_within(about[part], rng)}}
        try:
            data = sealed(top)
        except ValueError:  # no JSON
            continue
        with contextlib.suppress(femto.LaffError):
            decoded = femto.decode(data)
            read += 1
            told = femto.info(data)
            assert decoded.shape[:2] == (told["height"], told["width"])
            assert json.dumps(told["mapping"])
            path = tmp_path / f"{number}.tif"
            with contextlib.suppress(femto.LaffError):
                pictures.write_picture(path, decoded, **written_as(femto.parse(data).header))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read > 5
    assert peak < 1 << 26


def written_as(header) -> dict:
    return {
        "width": header.width, "height": header.height, "mode": header.mode, "bits": header.bits,
        "levels": header.levels, "metadata": header.metadata,
        "dtype": header.mapping and header.mapping["type"],
    }  # fmt: skip


def test_other_versions_are_refused(top):
    for version in (0, 1, 3, 99, "2", None, True, 2.0):
        refused(changed(top, version=version), f"version {version!r}", "the femto that wrote it")


@pytest.mark.parametrize(
    "part, key, value",
    [
        ("image", "width", 1 << 40),
        ("image", "width", 0),
        ("image", "width", -5),
        ("image", "width", 1e9),
        ("image", "width", True),
        ("image", "height", "90"),
        ("image", "mode", "CMYK"),
        ("image", "bits", 12),
        ("image", "bits", 0),
        ("image", "bits", 17),
        ("image", "levels", [0, 200]),
        ("image", "levels", [9, 9]),
        ("image", "levels", [0, 1 << 40]),
        ("image", "levels", [-1, 255]),
        ("image", "levels", [0.0, 255.0]),
        ("image", "levels", 255),
        ("image", "limits", [1, 255]),
        ("image", "limits", [0, 1 << 16]),
        ("image", "mapping", {"type": "int8", "slope": 1, "intercept": -128}),
        ("image", "mapping", {"type": "object", "slope": 1, "intercept": 0}),
        ("image", "mapping", {"type": "int16", "slope": 1e308, "intercept": 0}),
        ("image", "mapping", {"type": "float32", "slope": 1e308, "intercept": 0}),
        ("image", "mapping", [1, 0]),
        ("image", "icc", "%%%"),
        ("basis", "sha256", "00"),
        ("image", "source", 5),
        (None, "metadata", [1]),
        (None, "step", -1.0),
        (None, "step", "12"),
        (None, "step", 0.01),
        (None, "passes", 2),
        (None, "passes", 1),
        (None, "passes", "4"),
        (None, "passes", [1]),
        (None, "passes", True),
        (None, "tune", "perceptual"),
        (None, "tune", None),
        (None, "tile", 3),
        (None, "tile", 4096),
        (None, "blocks", []),
        (None, "blocks", [None]),
        (None, "blocks", None),
        (None, "strings", [["####"]]),
        (None, "strings", [[]]),
        (None, "strings", 7),
        (None, "crc", 0),
        (None, "image", None),
        (None, "basis", []),
    ],
)
def test_changed_headers_are_refused(top, part, key, value):
    other = json.loads(json.dumps(top))
    (other[part] if part else other)[key] = value
    refused(json.dumps(other).encode(), "archive")


def test_missing_keys_are_named(top):
    for key in top:
        rest = {k: v for k, v in top.items() if k != key}
        refused(json.dumps(rest).encode())


def test_swapped_strings_are_noticed(top):
    strings = top["strings"]
    refused(changed(top, strings=[strings[1], strings[0], *strings[2:]]), "checksum")


def test_strings_of_another_archive_are_noticed(top):
    other = json.loads(gzip.decompress(femto.encode(IMAGE[:, :80], quality=50)))
    refused(changed(top, strings=other["strings"]), "checksum")


@pytest.mark.parametrize("effort, most", [("full", 13), ("fast", 6)])
def test_more_layers_than_there_are_are_refused(effort, most):
    parsed = femto.parse(femto.encode(IMAGE, effort=effort))
    assert len(parsed.layers) == most
    longer = container.write(
        parsed.header, basis_name=parsed.basis_name, basis_sha256=parsed.basis_sha256,
        step=parsed.step, passes=parsed.passes, blocks=parsed.blocks,
        layers=[*parsed.layers, parsed.layers[-1]],
    )  # fmt: skip
    refused(longer, f"an archive of {most + 1} layers: the format has {most}")


def test_a_bomb_is_not_unpacked():
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = bomb.compress(b'{"format":"laff"' + b" " * (1 << 28)) + bomb.flush()
    refused(data, "unpacks to more")


def test_an_archive_of_another_basis_names_it(top):
    other = json.loads(json.dumps(top))
    other["basis"] = {"name": "teeth", "sha256": "ab" * 8}
    refused(sealed(other), "teeth", "abababab")


def test_white_space_and_key_order_do_not_matter(top):
    text = json.dumps(dict(reversed(top.items())), indent=2, ensure_ascii=True).encode()
    assert (femto.decode(text) == femto.decode(json.dumps(top).encode())).all()


@pytest.mark.parametrize(
    "metadata", [[1], {"a": float("nan")}, {"a": object()}, {1: 2, "b": 3, None: 4, (5,): 6}]
)
def test_metadata_that_is_no_json_is_refused(metadata):
    with pytest.raises(femto.LaffError, match="metadata"):
        femto.encode(IMAGE, metadata=metadata)


def test_odd_metadata_and_names_can_be_read_back():
    archive = femto.encode(IMAGE, metadata={9: (1, 2), 10: "\u2028"}, source="caf\udce9.png")
    info = femto.info(archive)
    assert info["metadata"] == {"9": [1, 2], "10": "\u2028"}
    assert info["source"] == "caf\\udce9.png"
    with pytest.raises(femto.LaffError, match="source"):
        femto.encode(IMAGE, source=7)
