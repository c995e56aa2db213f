"""Archives that are damaged, foreign or made to harm."""

import contextlib
import gzip
import json
import random
import zlib

import numpy as np
import pytest

import femto

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


def test_random_damage_never_escapes(archive):
    rng = random.Random(3)
    text = gzip.decompress(archive)
    for _ in range(300):
        broken = bytearray(text)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with contextlib.suppress(femto.LaffError):
            femto.decode(bytes(broken))


def test_unknown_versions_are_refused(top):
    for version in (0, 99, "1", None, True, 1.5):
        refused(changed(top, version=version), "version")


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


def test_a_bomb_is_not_unpacked():
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = bomb.compress(b'{"format":"laff"' + b" " * (1 << 28)) + bomb.flush()
    refused(data, "unpacks to more")


def test_an_archive_of_another_basis_names_it(top):
    other = json.loads(json.dumps(top))
    other["basis"] = {"name": "teeth", "sha256": "ab" * 8}
    import femto.container as container

    head = {k: v for k, v in other.items() if k not in ("crc", "blocks", "strings")}
    crc = container._crc(head)
    other["crc"] = crc
    old = top["crc"]
    other["blocks"] = [
        container._seal(container._unseal(s, old, -1, t), crc, -1, t)
        for t, s in enumerate(top["blocks"])
    ]
    other["strings"] = [
        [container._seal(container._unseal(s, old, k, t), crc, k, t) for t, s in enumerate(layer)]
        for k, layer in enumerate(top["strings"])
    ]
    refused(json.dumps(other).encode(), "teeth", "abababab")


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
