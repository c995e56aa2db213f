"""A picture in which blocks of all sizes and classes occur, for several files of tests."""

import numpy as np


def picture(height, width, channels=1, high=255, seed=1):
    """Smooth parts, edges and texture, (height, width) or (height, width, 3), uint8 or from a
    `high` of 256 on uint16, of levels up to 86 % of `high`; no sample is clipped by its type."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = []
    for c in range(channels):
        plane = 120 + 40 * np.sin((c + 2) * y / 60) * np.cos(x / 45)
        plane += 30 * ((y // 24 + x // 24) % 2) * (x > width // 2)
        plane += random.normal(0, 20, y.shape) * (y > height // 2)
        planes.append(plane)
    image = np.clip(np.stack(planes, -1), 30, 220) * (high / 255)
    image = np.rint(image).astype(np.uint8 if high < 256 else np.uint16)
    return image[..., 0] if channels == 1 else image
