"""How good the first part of an archive is, on photographs."""

import numpy as np
from PIL import Image
from test_codec import psnr

import femto


def test_the_first_bytes_are_nearly_as_good_as_an_archive_of_that_size(femto_data):
    """At quality 75: 10, 25 and 50 % of the bytes against pictures encoded for so many."""
    losses = []
    for path in sorted((femto_data / "kodak").glob("*.png"))[::5]:
        image = np.asarray(Image.open(path))
        archive = femto.encode(image, quality=75)
        fresh = [femto.encode(image, quality=q) for q in (1, 5, 12, 25, 40, 50, 62, 75)]
        sizes = np.log([len(a) for a in fresh])
        qualities = [psnr(image, femto.decode(a)) for a in fresh]
        losses.append([])
        for share in (0.10, 0.25, 0.50):
            cut = femto.truncate(archive, nbytes=int(share * len(archive)))
            assert len(cut) <= share * len(archive)
            as_good = np.interp(np.log(share * len(archive)), sizes, qualities)
            losses[-1].append(as_good - psnr(image, femto.decode(cut)))
    assert (np.mean(losses, axis=0) <= [2.5, 2.0, 1.5]).all()
