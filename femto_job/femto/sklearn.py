"""Archives as input of scikit-learn: a transformer from paths to a matrix of features."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basis.bases import check_basis
from .container import BELIEVED_PIXELS, AnyPath
from .errors import LaffError
from .learning.feature_map import COMPONENTS, check_components, check_grid, features, vector_names

try:
    from joblib import Parallel, delayed
    from sklearn.base import BaseEstimator, TransformerMixin
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs scikit-learn, which is not here: pip install scikit-learn",
        name=error.name,
    ) from None


class LaffFeatures(TransformerMixin, BaseEstimator):
    """Turns `.laff.gz` archives into a matrix, one row of pooled features per archive.

    Nothing is learned from the data, so `fit` only checks the parameters, and the transformer can
    be used without it. No pixels are decoded; see `femto.features`, and `Features.vector` for the
    columns' meaning and units.

    Parameters
    ----------
    components : int, default=1
        DCT components per cell, 1 to 64. More read more of an archive's layers and take longer.
    grid : int, default=4
        The picture is pooled over grid x grid equal parts, 1 to 64.
    colour : bool, default=False
        Chroma planes too; grey pictures have nothing there.
    basis : str or os.PathLike, default=None
        File of the archives' basis, if it is not one that femto ships and does not lie beside them.
    max_pixels : int or None, default=178956970
        Refuse pictures of more pixels than that for every MiB of their archive, see
        `femto.features`; None refuses none.
    on_error : {"raise", "nan"}, default="raise"
        What becomes of an archive that cannot be read: LaffError, which names it, or a row of NaN.
    n_jobs : int, default=None
        Threads, as everywhere in scikit-learn.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(LaffFeatures(), StandardScaler(), LogisticRegression())
    >>> model.fit(["a.laff.gz", "b.laff.gz"], [0, 1])  # doctest: +SKIP
    """

    def __init__(
        self,
        components: int = COMPONENTS,
        grid: int = 4,
        colour: bool = False,
        basis: AnyPath | None = None,
        max_pixels: int | None = BELIEVED_PIXELS,
        on_error: str = "raise",
        n_jobs: int | None = None,
    ):
        self.components = components
        self.grid = grid
        self.colour = colour
        self.basis = basis
        self.max_pixels = max_pixels
        self.on_error = on_error
        self.n_jobs = n_jobs

    def fit(self, X: object, y: object = None) -> "LaffFeatures":
        """Check the parameters; X and y are not looked at. Returns the transformer."""
        self._check()
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Features of archives.

        X : sequence of n paths (str or os.PathLike) or archives (bytes); a column, (n, 1), of
        them will do. Returns float32 (n, features). Raises LaffError if an archive cannot be used
        and `on_error` is "raise", TypeError if X holds something else.
        """
        self._check()
        if isinstance(X, (str, bytes, os.PathLike)):
            raise TypeError("X is a single archive: give a list of paths or bytes")
        items = list(np.ravel(X)) if hasattr(X, "shape") else list(X)
        rows = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(self._vector)(item) for item in items
        )
        if not rows:
            raise ValueError("X holds 0 samples: give at least one archive")
        return np.stack(rows)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:
        """Names of the matrix's columns, an array of str; `input_features` is not used."""
        self._check()
        return np.array(vector_names(self.components, self.grid, colour=self.colour), dtype=object)

    def _vector(self, item: Any) -> NDArray[Any]:
        if not isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)):
            raise TypeError(f"{item!r} is no archive: give a path or bytes")
        try:
            found = features(
                item,
                components=self.components,
                basis=self.basis,
                max_pixels=self.max_pixels,
            )
        except LaffError:
            if self.on_error == "raise":
                raise
            names = vector_names(self.components, self.grid, colour=self.colour)
            return np.full(len(names), np.nan, np.float32)
        return found.vector(self.grid, colour=self.colour)

    def _check(self) -> None:
        check_components(self.components)
        check_grid(self.grid)
        check_basis(self.basis)
        if self.on_error not in ("raise", "nan"):
            raise ValueError(f"on_error is {self.on_error!r}: choose 'raise' or 'nan'")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True
