"""Single-thread speed of encoding and decoding, all codecs interleaved in one process."""

import time

from bench import adapters
from bench.measure import load


def _clocked(call, *arguments):
    """Result, wall seconds and CPU seconds (of all threads) of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(*arguments)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def _faster(best, seconds):
    return seconds if best is None else min(best, seconds)


def measure_speed(pictures, codecs, *, repeats=3, say=print):
    """MP/s of every codec at its typical quality: ({codec: {…}}, failures).

    Every codec first codes a corner of the picture, so that compiled code is loaded and nothing is
    compiled inside the measurement. Then all codecs take turns, `repeats` times per picture; the
    best time of each picture counts. The figures are megapixels per CPU second of the process, all
    threads added: on a quiet machine that is the wall clock, on a busy one it is still the codec,
    and a codec that starts threads after all gains nothing. `wall` figures are kept beside them.
    """
    best, failures = {}, []
    for picture in pictures:
        image = load(picture.path)
        able = []
        for codec in codecs:
            try:
                codec.check(image)
                codec.decode(codec.encode(image[:96, :96].copy(), codec.typical))
                able.append(codec)
            except adapters.NotSupported as reason:
                failures.append((codec.name, picture.name, None, str(reason)))
            except Exception as error:  # a codec may raise anything; the others stay
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                failures.append((codec.name, picture.name, codec.typical, reason))
        for _ in range(repeats):
            for codec in able:
                data, *encode = _clocked(codec.encode, image, codec.typical)
                _, *decode = _clocked(codec.decode, data)
                times = best.setdefault(codec.name, {}).setdefault(picture, [None] * 4)
                times[:] = map(_faster, times, encode + decode)
        say(f"speed {picture.name}")
    speeds = {}
    for codec in codecs:
        if codec.name not in best:
            continue
        times = best[codec.name]
        megapixels = sum(picture.megapixels for picture in times)
        encode_wall, encode, decode_wall, decode = map(sum, zip(*times.values(), strict=True))
        speeds[codec.name] = {
            "quality": codec.typical,
            "pictures": len(times),
            "encode": megapixels / encode,
            "decode": megapixels / decode,
            "encode_wall": megapixels / encode_wall,
            "decode_wall": megapixels / decode_wall,
        }
    return speeds, failures
