"""femto.sklearn.LaffFeatures: what scikit-learn expects of a transformer."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import femto
from femto.sklearn import LaffFeatures

ESTIMATORS = [LaffFeatures(), LaffFeatures(components=1, grid=1, colour=True)]


# Its input is a sequence of paths or bytes: of those that feed estimators a matrix of numbers,
# scikit-learn runs none on it, as on its own text vectorisers, and warns of it.
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "name",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_its_checks_that_need_no_data(name):
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip("this version of scikit-learn has no such check")
    for estimator in ESTIMATORS:
        check("LaffFeatures", clone(estimator))


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """24 archives, paths: smooth ones (0) and rough ones (1)."""
    folder = tmp_path_factory.mktemp("archives")
    random = np.random.default_rng(3)
    paths, labels = [], []
    for i in range(24):
        y, x = np.mgrid[:40, :48]
        noise = random.normal(0, 30 if i % 2 else 2, y.shape)
        image = np.clip(128 + 50 * np.sin(x / 9 + i) + noise, 0, 255).astype(np.uint8)
        path = folder / f"{i}.laff.gz"
        path.write_bytes(femto.encode(image, quality=80))
        paths.append(path)
        labels.append(i % 2)
    return paths, labels


def test_paths_and_bytes_give_the_vector(archives):
    paths, _ = archives
    expected = np.stack([femto.features(p, components=3).vector(2) for p in paths])
    transformer = LaffFeatures(components=3, grid=2)
    column = np.array([str(p) for p in paths])[:, None]
    for X in (paths, [str(p) for p in paths], [Path(p).read_bytes() for p in paths], column):
        found = transformer.fit(X).transform(X)
        assert found.dtype == np.float32
        assert (found == expected).all()
    assert (LaffFeatures(components=3, grid=2, n_jobs=2).transform(paths) == expected).all()
    assert len(transformer.get_feature_names_out()) == found.shape[1]


def test_columns_of_a_data_frame(archives):
    pandas = pytest.importorskip("pandas")
    paths, _ = archives
    frame = pandas.DataFrame({"path": [str(p) for p in paths]})
    named = LaffFeatures(grid=1).set_output(transform="pandas")
    for X in (frame, frame["path"]):
        found = named.fit_transform(X)
        assert list(found.columns) == list(named.get_feature_names_out())
        assert "luma_y0_x0_mean" in found


def test_pipelines_and_searches_take_it(archives):
    paths, labels = archives
    pipeline = Pipeline(
        [("laff", LaffFeatures()), ("scale", StandardScaler()), ("model", LogisticRegression())]
    )
    search = GridSearchCV(pipeline, {"laff__components": [1, 3], "laff__grid": [1, 2]}, cv=3)
    search.fit(paths, labels)
    assert search.best_score_ == 1.0
    assert search.predict(paths).tolist() == labels
    assert "laff__grid" in search.best_params_
    names = make_pipeline(LaffFeatures(), StandardScaler()).fit(paths)[:-1].get_feature_names_out()
    assert names[0] == "luma_y0_x0_mean"


def test_archives_of_a_basis_of_ones_own(own_basis, own_archive, tmp_path):
    with pytest.raises(femto.LaffError, match="needs the basis 'own'"):
        LaffFeatures().transform([own_archive])
    found = LaffFeatures(basis=own_basis).transform([own_archive])
    assert (found[0] == femto.features(own_archive, basis=own_basis).vector()).all()
    # A name that is wrong is no row of NaN.
    with pytest.raises(femto.LaffError, match="no such basis file"):
        LaffFeatures(basis=tmp_path / "no.basis", on_error="nan").transform([own_archive])


@pytest.mark.parametrize("module", ["joblib", "sklearn.base"])
def test_without_scikit_learn_it_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "femto.sklearn")
    with pytest.raises(
        ModuleNotFoundError, match=r"needs scikit-learn, .*: pip install scikit-learn"
    ):
        importlib.import_module("femto.sklearn")


def test_clone_keeps_the_parameters():
    first = LaffFeatures(
        components=10, grid=3, colour=True, basis="own.basis", on_error="nan", n_jobs=2
    )
    assert clone(first).get_params() == first.get_params()


def test_an_archive_that_cannot_be_read(archives, tmp_path):
    paths, _ = archives
    broken = tmp_path / "broken.laff.gz"
    broken.write_bytes(b"nothing")
    with pytest.raises(femto.LaffError, match=r"broken\.laff\.gz"):
        LaffFeatures().transform([paths[0], broken])
    rows = LaffFeatures(on_error="nan").transform([paths[0], broken])
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


def test_wrong_input_is_named(archives):
    paths, _ = archives
    with pytest.raises(TypeError, match="single archive"):
        LaffFeatures().transform(str(paths[0]))
    with pytest.raises(TypeError, match="no archive"):
        LaffFeatures().transform([1.5])
    with pytest.raises(ValueError, match="0 samples"):
        LaffFeatures().transform([])
    for wrong in ({"components": 0}, {"grid": 0}, {"on_error": "skip"}):
        with pytest.raises(ValueError):
            LaffFeatures(**wrong).fit(paths)
