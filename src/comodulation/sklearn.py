"""A scikit-learn classifier of many label columns at once, on features that exist already.

One fit answers all columns: logistic regression and committees of small networks, weighed and calibrated by out-of-fold predictions
(``training.readouts``). A missing label is left out of the loss of its column, and its row still teaches the others.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from .data import (
    FORMS,
    MISSING,
    LabelColumns,
    classes_and_places,
    in_form,
    places_among,
    probabilities_in_form,
    read_label_columns,
)
from .data.features import (
    BackboneSettings,
    TextSettings,
    check_given,
    features_of_given,
    known_encoder,
    settings_by_name,
)
from .errors import InputError, brief, choose
from .files import user_path
from .mathematics import derived_seed
from .networks.methods import METHODS, ReadoutMethod, rows_of
from .networks.readouts import (
    AnsweredColumn,
    NamedEncoder,
    Questions,
    Readouts,
    SavedClassifier,
    is_fetched,
)
from .training.readouts import QUALITIES, candidates_of, fit_readouts

__all__ = ["MultiTaskClassifier"]

_METHODS: dict[str, type[ReadoutMethod]] = {
    name: method for name, method in METHODS.items() if issubclass(method, ReadoutMethod)
}
_READ_ROWS = 4096  # rows that are answered at once


class _WrongTypeError(InputError, TypeError):
    """Features that no number can be made of: a TypeError, too, as scikit-learn has it."""


class MultiTaskClassifier(ClassifierMixin, BaseEstimator):
    """Classifies rows of features under every column of a label table.

    Args:
        method: ``auto`` (what answers best out of fold), ``linear`` (logistic regression) or ``committee`` (small networks).
        quality: ``fast`` (of ``auto`` the logistic regression only), ``default`` or ``best`` (more committees).
        calibrate: whether probabilities are calibrated by out-of-fold predictions.
        encoder: what makes features of X, a list then. ``efficientnet-lite0`` or a name of timm for pictures: paths, encoded bytes,
            images of Pillow or arrays of uint8. ``all-minilm-l6-v2``, a folder or a repository of the hub for texts. Or a
            function from a list to ``(N, V)``. None: X is features.
        random_state: of folds, initial values and order; equal numbers give equal classifiers.

    Attributes:
        classes_: of one task an array; of an array of K columns a list of K; of a frame or dictionary a dictionary by column.
        n_features_in_: number of features, of the encoder's where there is one; of maps of channels.
        feature_names_in_: names of the features, where X had any.
        nll_: mean negative log-likelihood out of fold of each member, and of all together.

    >>> X = np.random.default_rng(0).normal(size=(200, 5))
    >>> Y = {"sign": np.where(X[:, 0] > 0, "up", "down"), "large": [abs(x) > 1 if x else None for x in X[:, 1]]}
    >>> fitted = MultiTaskClassifier("linear", random_state=0).fit(X, Y)
    >>> fitted.predict(X[:2])["sign"].tolist()
    ['up', 'up']
    >>> fitted.predict_proba(X[:2])["large"].shape
    (2, 2)
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        quality: str = "default",
        calibrate: bool = True,
        encoder: str | Callable[[list[Any]], Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.quality = quality
        self.calibrate = calibrate
        self.encoder = encoder
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> MultiTaskClassifier:
        """Fit all columns at once.

        Args:
            X: numbers ``(N, V)``, or maps ``(N, C, H, W)``: an array, a tensor, a frame of pandas or polars. With an encoder a list
                of N pictures or texts.
            y: labels of one task ``(N,)``, of K tasks ``(N, K)``, a frame, or a dictionary of columns. None and NaN are gaps.

        Returns:
            The classifier itself.

        Raises:
            InputError: features that are no finite numbers, a column without labels or with other things than labels, unknown
                settings. A ValueError.
        """
        if y is None:
            raise InputError("fit requires y to be passed, but the target y is None")
        choose(self.method, _METHODS, "method")
        choose(self.quality, QUALITIES, "quality")
        labels = read_label_columns(y)
        rows = self._rows(X, labels)
        found = [classes_and_places(cells, labels.what(n)) for n, cells in enumerate(labels.cells)]
        learned = [n for n, (classes, _) in enumerate(found) if len(classes) > 1]
        for number, (classes, _) in enumerate(found):
            if len(classes) < 2:
                _warn_constant(labels.what(number), classes)
        state = self.random_state
        seed = int(state if isinstance(state, (int, np.integer)) else check_random_state(state).randint(2**31 - 1))
        self.nll_: dict[str, float] = {}
        self._parts: list[Readouts] = []
        if learned:
            part, self.nll_ = self._readouts(rows, [found[n] for n in learned], seed)
            self._parts = [part]
        self._seed, self._form = seed, labels.form
        self._columns = [
            AnsweredColumn(labels.names[n], classes, labels.dtypes[n], 0 if len(classes) > 1 else None)
            for n, (classes, _) in enumerate(found)
        ]
        return self

    def add_task(self, X: Any, y: Any, name: Hashable) -> MultiTaskClassifier:
        """Fit one more column; what is fitted already stays bit for bit as it is.

        Args:
            X: as for ``fit``, of any rows. y: labels ``(N,)``. name: of the column; in an array it is the last.

        Returns:
            The classifier itself.

        Raises:
            InputError: as for ``fit``; a name that a column has already.
        """
        check_is_fitted(self)
        labels = read_label_columns(y)
        if labels.form != "vector":
            raise InputError(f"add_task takes one column (N,), got {len(labels.cells)} as {labels.form}")
        if name in self._names:
            raise InputError(f"there is a column {name!r} already: {brief(self._names)}")
        rows = self._rows(X, labels, reset=False)
        classes, places = classes_and_places(labels.cells[0], f"column {name!r}")
        part = None
        if len(classes) > 1:
            seed = derived_seed(self._seed, f"added {len(self._columns)}")
            self._parts, part = [*self._parts, self._readouts(rows, [(classes, places)], seed)[0]], len(self._parts)
        else:
            _warn_constant(f"column {name!r}", classes)
        dtype = str(getattr(y, "dtype", "")) if self._form in ("pandas", "polars") else ""
        self._columns = [*self._columns, AnsweredColumn(name, classes, dtype, part)]
        return self

    def predict(self, X: Any) -> Any:
        """The likeliest label of each row under each column, in the form that ``fit`` got labels in.

        That is an array ``(N,)`` or ``(N, K)``, a dictionary, or a frame, with the index of X where both are of pandas.
        """
        found = self._probabilities(X)
        chosen = [column.classes[values.argmax(1)] for column, values in zip(self._columns, found, strict=True)]
        return in_form(self._form, self._names, chosen, [column.dtype for column in self._columns], X)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of each class, in the order of ``classes_``.

        Of one task an array ``(N, C)``; of an array of K columns a list of K, as scikit-learn has it; of a frame or dictionary a
        dictionary by column, of frames or arrays.
        """
        found = self._probabilities(X)
        columns = zip(self._columns, found, strict=True)
        return self._by_column([probabilities_in_form(self._form, one.classes, values, X) for one, values in columns])

    def score(self, X: Any, y: Any) -> float:
        """Accuracy: the share of right answers among all labelled cells.

        Args:
            X: as for ``fit``. y: in any form, gaps left out; a frame or dictionary may leave columns out.

        Raises:
            InputError: a column that is not known, one of words where numbers or bools were learned or the reverse, or no labels
                at all.
        """
        probabilities = self._probabilities(X)
        columns = {column.name: (place, column) for place, column in enumerate(self._columns)}
        labels = read_label_columns(y)
        by_name = labels.form not in ("vector", "array")
        if not by_name and len(labels.names) != len(columns):
            raise InputError(f"Y has {len(labels.names)} columns, expected {len(columns)}")
        if by_name and (unknown := [name for name in labels.names if name not in columns]):
            raise InputError(f"Y has the column {unknown[0]!r}; known: {brief(list(columns))}")
        right: list[np.ndarray] = []
        for number, cells in enumerate(labels.cells):
            place, column = columns[labels.names[number] if by_name else self._names[number]]
            truth, chosen = places_among(cells, column.classes, labels.what(number)), probabilities[place].argmax(1)
            if len(truth) != len(chosen):
                raise InputError(f"X has {len(chosen)} rows and Y {len(truth)}")
            right.append((truth == chosen)[truth != MISSING])
        cells_right = np.concatenate(right)
        if not len(cells_right):
            raise InputError("Y has no labels: every cell is missing")
        return float(cells_right.mean())

    def save(self, path: str | Path) -> None:
        """Write the classifier as safetensors, which ``load`` reads without running anything.

        Raises:
            InputError: names of columns that are neither text nor whole numbers. RunError: it cannot be written.
        """
        check_is_fitted(self)
        names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        encoder = None
        if self.encoder is not None:
            if callable(self.encoder) or is_fetched(self.encoder):
                what = "a function" if callable(self.encoder) else f"a folder or of the hub, {self.encoder!r}"
                raise InputError(
                    f"cannot save an encoder that is {what}: what a file names is neither run nor fetched; encode X by yourself "
                    "and fit to its features, or name an encoder that comes with a package"
                )
            size = getattr(self._encoder_settings, "image_size", None)
            encoder = NamedEncoder(self.encoder, size, self._pooled, self._fingerprint)
        state = self.random_state
        settings = {
            "method": self.method,
            "quality": self.quality,
            "calibrate": bool(self.calibrate),
            "random_state": int(state) if isinstance(state, (int, np.integer)) else None,
        }
        SavedClassifier(
            encoder, settings, int(self.n_features_in_), names, self._shape, self._seed, self._form, self.nll_, self._columns,
            self._parts,
        ).write(user_path(path))  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> MultiTaskClassifier:
        """The classifier that ``save`` wrote. Raises InputError for any other file."""
        saved = SavedClassifier.read(user_path(path))
        result = cls(**saved.settings)
        choose(result.method, _METHODS, "method")
        choose(result.quality, QUALITIES, "quality")
        result._shape, result._pooled = saved.shape, saved.shape[0]
        if (encoder := saved.encoder) is not None:
            result.encoder, result._fingerprint, result._pooled = encoder.name, encoder.fingerprint, encoder.pooled
            result._encoder_settings = (
                TextSettings("", encoder.name)
                if encoder.image_size is None
                else BackboneSettings(encoder.name, image_size=encoder.image_size, output="vector")
            )
        result.n_features_in_ = saved.features
        if saved.feature_names:
            result.feature_names_in_ = np.array(saved.feature_names, object)
        result._seed, result._form = saved.seed, choose(saved.form, FORMS, "form of labels")
        result.nll_, result._columns, result._parts = saved.nll, saved.columns, saved.parts
        return result

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_parts")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def classes_(self) -> Any:
        if not hasattr(self, "_columns"):
            raise AttributeError("classes_ is known after fit")
        return self._by_column([column.classes for column in self._columns])

    @property
    def _names(self) -> list[Hashable]:
        return [column.name for column in self._columns]

    def _by_column(self, values: list[Any]) -> Any:
        """Something of each column: of one task as it is, of an array in a list, else by the column's name."""
        if self._form == "vector" and len(values) == 1:
            return values[0]
        return values if self._form in ("vector", "array") else dict(zip(self._names, values, strict=True))

    def _rows(self, X: Any, labels: LabelColumns | None = None, *, reset: bool = True) -> Tensor:
        """Features as rows, float32 ``(N, V)``; of maps their means, then the maps.

        Args:
            X: ``(N, V)`` or ``(N, C, H, W)``. labels: of as many rows. reset: whether X says what features there are.
        """
        pooled = None
        if self.encoder is not None:
            X, pooled = self._encoded(X, reset)
        values, single = self._numbers(X, reset)
        if values.ndim not in (2, 4) or not math.prod(values.shape):
            raise InputError(f"X has the shape {values.shape}, expected rows (N, V) or maps (N, C, H, W)")
        if labels is not None and len(labels) != len(values):
            raise InputError(f"X has {len(values)} rows and Y {len(labels)}")
        _check_finite(values, single, getattr(X, "columns", None))
        if reset:
            self._shape, self._pooled = values.shape[1:], pooled or values.shape[1]
        elif values.shape[1:] != self._shape:
            raise InputError(f"X has rows of the shape {values.shape[1:]}, the classifier was fitted to {self._shape}")
        rows = torch.from_numpy(single)
        return rows_of(rows) if rows.ndim == 4 else rows

    def _numbers(self, X: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """X as an array of numbers, and the same as float32; what it holds of infinity and NaN stays."""
        if isinstance(X, Tensor):
            X = X.detach().cpu()
            X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
        if len(getattr(X, "shape", (0, 0))) == 1:
            if np.ndim(next(iter(X), 0.0)):
                raise InputError(
                    f"X has a vector in each of its {len(X)} cells, expected rows (N, V): np.stack(list(X)) makes them"
                )
            raise InputError(
                f"X has the shape {tuple(X.shape)}, expected rows (N, V) or maps (N, C, H, W). Reshape your data: X[None] is one "
                "row, X[:, None] one feature"
            )
        try:
            values = validate_data(self, X, reset=reset, allow_nd=True, ensure_all_finite=False)
            if values.dtype.kind not in "biuf":
                raise InputError(f"X holds {values.dtype}, expected numbers")
            with np.errstate(over="ignore"):
                return values, np.array(values, np.float32)
        except TypeError as error:
            raise _WrongTypeError(error) from error
        except ValueError as error:
            if hasattr(X, "columns") and "with a sequence" in str(error):
                raise InputError(
                    "X holds a vector in a cell, expected numbers; np.stack(list(X[COLUMN])) makes rows of a column of vectors"
                ) from error
            raise InputError(error) from error

    def _encoded(self, X: Any, reset: bool) -> tuple[Any, int | None]:
        """What the encoder makes of X ``(N, V)``, and how many of the V features, from the first, are without positions."""
        given = check_given(X)
        if callable(self.encoder):
            return self.encoder(given), None
        if not isinstance(self.encoder, str):
            raise InputError(
                f"encoder {brief(self.encoder)} is neither the name of an encoder nor a function of a list"
            )
        if reset:
            self._encoder_settings = settings_by_name(self.encoder, given)
        encoder = known_encoder(self._encoder_settings)
        if reset:
            self._fingerprint = encoder.fingerprint()
        elif encoder.fingerprint() != self._fingerprint:
            raise InputError(
                f"encoder {self.encoder!r} has other weights here than those that the classifier was fitted with"
            )
        return features_of_given(encoder, given), encoder.pooled_width or None

    def _readouts(
        self, rows: Tensor, columns: list[tuple[np.ndarray, np.ndarray]], seed: int
    ) -> tuple[Readouts, dict[str, float]]:
        """Readouts of columns of at least two classes, and their NLL out of fold by member.

        Args:
            rows: ``(N, V)``. columns: of each the classes and the places among them ``(N,)``, -1 for a gap. seed: of the fit.
        """
        sizes = tuple(len(classes) for classes, _ in columns)
        binary = max(sizes) == 2
        questions = Questions((1,) * len(sizes), True) if binary else Questions(sizes)
        answers = torch.from_numpy(np.stack([places for _, places in columns], 1))
        labelled = (answers >= 0).any(1)
        if not bool(labelled.all()):
            rows, answers = rows[labelled], answers[labelled]
        candidates = candidates_of(_METHODS[self.method], self._pooled, rows.shape[1], self.quality)
        fitted = fit_readouts(rows, answers, questions, candidates, None, seed, calibrate=bool(self.calibrate))
        return copy.deepcopy(fitted.readouts).double(), fitted.nll

    def _probabilities(self, X: Any) -> list[np.ndarray]:
        """Probabilities ``(N, C)`` of each column's classes, float64: the same whichever rows are asked together."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        found: dict[int, Iterator[np.ndarray]] = {
            number: iter(_answers(part, rows)) for number, part in enumerate(self._parts)
        }
        return [
            np.ones((len(rows), 1)) if column.part is None else next(found[column.part]) for column in self._columns
        ]


@torch.no_grad()
def _answers(part: Readouts, rows: Tensor) -> list[np.ndarray]:
    """Probabilities ``(N, C)`` for each question of readouts, of rows ``(N, V)``."""
    logits = torch.cat([part.combine(*part(some.double())) for some in rows.split(_READ_ROWS)])
    if part.questions.binary:
        return [torch.stack([(-one).sigmoid(), one.sigmoid()], 1).numpy() for one in logits.T]
    return [one.softmax(1).numpy() for one in logits.split(part.questions.sizes, 1)]


def _check_finite(values: np.ndarray, single: np.ndarray, names: Any) -> None:
    """Raise InputError for numbers that are not finite as float32; ``names`` are those of columns, None where there are none."""
    if np.isfinite(single).all():
        return
    place = np.argwhere(~np.isfinite(single))[0]
    value = values[tuple(place)]
    shown = "NaN" if np.isnan(value) else "infinity" if np.isinf(value) else f"{value}, too large for float32 (inf)"
    where = f"column {names[place[1]]!r}" if names is not None else f"feature {', '.join(map(str, place[1:]))}"
    raise InputError(f"X holds {shown} in row {place[0]}, {where}; expected finite numbers (neither NaN nor inf)")


def _warn_constant(what: str, classes: np.ndarray) -> None:
    warnings.warn(f"{what} has a single class, {classes.tolist()[0]!r}: it is predicted for every row", stacklevel=3)
