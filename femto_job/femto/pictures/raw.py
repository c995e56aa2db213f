"""Camera RAW, developed by LibRaw."""

import contextlib

import numpy as np

from .common import Source, check_size, silent_stderr
from .page import StoredPage


class RawPage(StoredPage):
    """A camera RAW picture, developed as a whole at the first window: 8-bit sRGB."""

    def __init__(self, source: Source):
        import rawpy

        self._source = source
        self._pixels = None
        with self._opened(rawpy) as raw:
            sizes = raw.sizes
        height, width = sizes.iheight, sizes.iwidth
        if sizes.pixel_aspect and sizes.pixel_aspect != 1:
            # LibRaw's stretch(): the shorter side grows until pixels are square.
            if sizes.pixel_aspect < 1:
                height = int(height / sizes.pixel_aspect + 0.5)
            else:
                width = int(width * sizes.pixel_aspect + 0.5)
        if sizes.flip & 4:
            height, width = width, height
        check_size(source.name, width, height, whole=True)
        super().__init__(0, width, height, 3, 8)

    @contextlib.contextmanager
    def _opened(self, rawpy):
        with self._source.open() as file, silent_stderr(), rawpy.imread(file) as raw:
            yield raw

    def window(self, y0, y1, x0, x1):
        if self._pixels is None:
            import rawpy

            with self._opened(rawpy) as raw:
                pixels = raw.postprocess(
                    use_camera_wb=True,
                    output_color=rawpy.ColorSpace.sRGB,
                    gamma=(2.4, 12.92),
                    output_bps=8,
                )
            if pixels.ndim == 3 and pixels.shape[2] == 1:
                pixels = np.repeat(pixels, 3, axis=2)
            if pixels.shape != (*self.size, 3):
                raise ValueError(f"developed to {pixels.shape}, expected {self.size}")
            self._pixels = pixels
        return self._pixels[y0:y1, x0:x1]

    def close(self):
        self._pixels = None
