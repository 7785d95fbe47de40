"""What tables of a recording say of their rows: that a trial, a neuron, an electrode or a time is to be left out.

The format has no column for it, so that files say it in words of their own: a column ``bad`` or ``is_valid`` of truth values, a
column ``quality`` of "good" and "noise", a table ``artifact_times``. Names are read where they say nothing but that; a column or
table whose name only has to do with it is named, so that nobody takes it for read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BAD = {
    "artefact", "artefacts", "artifact", "artifacts", "bad", "broken", "corrupt", "corrupted", "dead", "discard", "discarded",
    "exclude", "excluded", "faulty", "invalid", "outlier", "outliers", "reject", "rejected", "unusable",
}  # fmt: skip
NOISE = {"noise", "noisy"}  # of a unit or an electrode; in trials and times it may be a stimulus
GOOD = {"accepted", "clean", "good", "include", "included", "keep", "kept", "ok", "okay", "usable", "valid"}
KINDS = {"flag", "quality", "status", "tags"}  # columns of words, not of truth values
KINDS_OF_UNITS = KINDS | {"class", "classification", "group", "ks", "label", "sorting"}
# What else quality is told by: measures without a limit that would be right for all recordings, and remarks.
TOLD = {
    "abort", "aborted", "comment", "comments", "contamination", "cutoff", "drift", "flag", "flagged", "imp", "impedance", "isi",
    "presence", "quality", "snr", "status", "violations",
}  # fmt: skip
# What a name may say besides: "is_bad_trial" is "bad".
FILLERS = {
    "analysis", "channel", "channels", "cluster", "data", "electrode", "electrodes", "epoch", "epochs", "for", "from", "interval",
    "intervals", "is", "label", "neuron", "period", "periods", "segment", "segments", "the", "time", "times", "to", "trial",
    "trials", "unit", "units", "was",
}  # fmt: skip
TRUE, FALSE = {"true", "yes", "y", "t", "1", "1.0"}, {"false", "no", "n", "f", "0", "0.0"}


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters.

    >>> words_of("isBad_trial2")
    ['is', 'bad', 'trial']
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def means(name: str, *, unit: bool = False) -> str:
    """``bad`` or ``good`` where a name says that and nothing else, otherwise empty; ``unit``: it is said of a neuron or electrode.

    >>> [means(name) for name in ("bad_trials", "valid_times", "valid_cue", "artifact_free", "noise")]
    ['bad', 'good', '', '', '']
    >>> means("Noise", unit=True)
    'bad'
    """
    core = [word for word in words_of(name) if word not in FILLERS]
    if len(core) != 1:
        return ""
    return "bad" if core[0] in BAD or (unit and core[0] in NOISE) else "good" if core[0] in GOOD else ""


def tells(name: str, *, unit: bool = False) -> bool:
    """Whether a column of that name may say of its rows that they are to be left out.

    >>> tells("is_valid"), tells("quality"), tells("snr"), tells("ks_label", unit=True)
    (True, True, False, True)
    """
    kinds, words = KINDS_OF_UNITS if unit else KINDS, set(words_of(name))
    return bool(means(name, unit=unit) or (kinds & words and words <= kinds | FILLERS))


def concerns(name: str) -> bool:
    """Whether a name has to do with the quality of data.

    >>> [concerns(name) for name in ("presence_ratio", "valid_cue", "contrast")]
    [True, True, False]
    """
    return bool((BAD | GOOD | TOLD).intersection(words_of(name)))


def flagged(name: str, values: Sequence[object], *, unit: bool = False) -> NDArray[np.bool_] | None:
    """Rows that a column says are to be left out, ``(R,)``; None for a column that does not say so of its rows.

    Args:
        name: of the column. values: one a row, or a sequence of words (tags) a row; rows without a value are not flagged.
        unit: whether the rows are neurons or electrodes.

    >>> flagged("is_valid", [True, False, None])
    array([False,  True, False])
    >>> flagged("quality", ["good", "noise", "mua"], unit=True)
    array([False,  True, False])
    >>> flagged("bad", [0.2, 0.7])
    """
    if not tells(name, unit=unit):
        return None
    sense, quality = means(name, unit=unit), "quality" in words_of(name)
    found = [_flagged(value, sense, quality, unit) for value in values]
    return None if any(flag is None for flag in found) else np.array(found, bool)


def _flagged(value: object, sense: str, quality: bool, unit: bool) -> bool | None:
    """Whether one value says that its row is to be left out; None where it cannot be told."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return any(means(str(word), unit=unit) == "bad" for word in value)
    said = "" if value is None or value != value else str(value).strip()
    word, text = means(said, unit=unit), said.lower()
    if not said or word:
        return word == "bad"
    if sense:
        return (sense == "bad") if text in TRUE else (sense == "good") if text in FALSE else None
    if quality and isinstance(value, bool):
        return not value
    return (
        False if isinstance(value, str) and text not in TRUE | FALSE else None
    )  # a number may be of a kind, or a score
