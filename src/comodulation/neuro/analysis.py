"""Everything that is reported of one recording, in numbers, table rows and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, choose
from .associations import RESAMPLES, Association, Dimensions, association, informativeness, shared_dimensions
from .checks import Floats
from .counts import Groups, check_active
from .downstream import follow_modulator
from .fall import Fall, couplings_without, modulation_fall
from .latent import ModulatorFit, fit_modulator
from .recording import Recording


@dataclass(frozen=True)
class AreaStatistics:
    """Of one area, N neurons.

    Attributes:
        area: its name.
        dprime: informativeness of each neuron, ``(N,)``. activity: mean counts a bin, ``(N,)``.
        coupling, error: to the modulator, and its standard error, ``(N,)``.
        association: of coupling and informativeness.
        control_coupling, control_error: in the control, ``(N,)``; None without one.
        control_association: of the control's coupling and the task's informativeness. fall: of modulation in the control.
    """

    area: str
    dprime: Floats
    activity: Floats
    coupling: Floats
    error: Floats
    association: Association
    control_coupling: Floats | None = None
    control_error: Floats | None = None
    control_association: Association | None = None
    fall: Fall | None = None


@dataclass(frozen=True)
class RecordingStatistics:
    """Of one recording.

    Attributes:
        name: of the recording. trials, bins: of the task.
        dimensions: of the upstream area. fit: its modulator in the task.
        upstream: the area whose modulator was estimated. downstream: the area that may follow it; None without one.
        notes: sentences on what was left out of the recording, and on what was not read of its file.
    """

    name: str
    trials: int
    bins: int
    dimensions: Dimensions
    fit: ModulatorFit
    upstream: AreaStatistics
    downstream: AreaStatistics | None = None
    notes: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """One row a statistic, for tables: recording, statistic, value, low, high (95%), p, neurons; nan where there is none."""
        d, neurons = self.dimensions, len(self.upstream.coupling)
        found = [
            self._row("share of shared variability in the first dimension", d.share, d.share - 1.96 * d.error,
                      d.share + 1.96 * d.error, d.p, neurons),
            self._row("the same, factor analysis", d.fitted_share, math.nan, math.nan, math.nan, neurons),
            self._row("shared part of the variance of counts", d.shared, math.nan, math.nan, d.p, neurons),
            self._row("modulator over none, bits a bin", self.fit.gain_in_bits, math.nan, math.nan, math.nan, neurons),
        ]  # fmt: skip
        for part, place in ((self.upstream, "upstream"), (self.downstream, "downstream")):
            if part is None:
                continue
            for a, what in ((part.association, ""), (part.control_association, ", control")):
                if a is None:
                    continue
                name = f"coupling against informativeness, {place}{what}"
                found.append(self._row(name, a.spearman, a.low, a.high, a.p, a.neurons))
                found.append(
                    self._row(f"{name}, activity held fixed", a.partial, math.nan, math.nan, math.nan, a.neurons)
                )
                found.append(self._row(f"{name}, AUC", a.auc, math.nan, math.nan, math.nan, a.neurons))
            if (f := part.fall) is not None:
                found.append(
                    self._row(f"variance of log gain, {place}, task", f.task, math.nan, math.nan, math.nan, f.neurons)
                )
                name = f"variance of log gain, {place}, control"
                found.append(self._row(name, f.control, math.nan, math.nan, math.nan, f.neurons))
                name = f"variance of log gain, {place}, task - control"
                found.append(self._row(name, f.difference, f.low, f.high, f.p, f.neurons))
        return found

    def verdict(self) -> list[str]:
        """Sentences, each with its interval; of couplings only where neurons share something that there can be couplings to.
        The last ones say what was left out."""
        d, notes = self.dimensions, [f"{note}." for note in self.notes]
        if not d.found:
            return [
                f"No variability that {_neurons(self.upstream)} share was found (p = {d.p:.2g}): couplings to it mean nothing, "
                "and nothing is said of them.",
                *notes,
            ]
        said = [
            f"{100 * d.share:.0f}% ± {100 * 1.96 * d.error:.0f}% of the variability that {_neurons(self.upstream)} share "
            f"lies in one dimension ({100 * d.shared:.1f}% of the variance of counts is shared; p = {d.p:.2g})."
        ]
        for part in (self.upstream, self.downstream):
            if part is None:
                continue
            # Decided by both: intervals are a bootstrap's, p a permutation's, and near the edge they may differ.
            a = part.association
            which = f"informative {_neurons(part)} follow the modulator more strongly"
            said.append(
                (
                    f"More {which}" if a.low > 0 and a.p < 0.05
                    else f"Less {which}" if a.high < 0 and a.p < 0.05
                    else f"Whether more {which} is not decided"
                )
                + f": rank correlation {a.spearman:+.2f} [{a.low:+.2f}, {a.high:+.2f}], {a.neurons} neurons, p = {a.p:.2g}; "
                f"{a.partial:+.2f} with activity held fixed."
            )  # fmt: skip
            if (f := part.fall) is not None:
                how = "falls" if f.low > 0 else "rises" if f.high < 0 else "does not decidedly change"
                said.append(
                    f"In the control, their modulation {how}: variance of log gain {f.task:.3f} in the task, {f.control:.3f} in "
                    f"the control, difference {f.difference:+.3f} [{f.low:+.3f}, {f.high:+.3f}] over trials, p = {f.p:.2g}."
                )
        return [*said, *notes]

    def _row(self, statistic: str, value: float, low: float, high: float, p: float, neurons: int) -> dict[str, Any]:
        numbers = {"value": value, "low": low, "high": high, "p": p}
        return {
            "recording": self.name, "statistic": statistic,
            **{name: float(number) for name, number in numbers.items()}, "neurons": neurons,
        }  # fmt: skip


def analyse_recording(
    recording: Recording,
    *,
    upstream: str | None = None,
    downstream: str | None = None,
    task: str | None = None,
    control: str | None = None,
    rates_by_bin: bool = True,
    errors: str = "model",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RecordingStatistics:
    """Fit the modulator of one area and compare couplings with informativeness there, downstream, and in a control.

    Trials that are not complete (``Recording.complete``), for the neurons of these areas, are left out.

    Args:
        recording: of one area or more.
        upstream: the area whose modulator is estimated; needed where there are several. downstream: an area that may follow it.
        task, control: contexts of the recording; the modulator of each is fitted by itself, informativeness is the task's.
            Without them, all trials are the task.
        rates_by_bin, errors: as for ``fit_modulator``. resamples, seed: of bootstraps and permutations.

    Raises:
        InputError: unknown areas or contexts, and what ``Recording.check``, ``fit_modulator`` and ``association`` refuse.
    """
    if not recording.neurons:
        raise InputError("; ".join([f"{recording.name} has no neurons", *recording.notes]))
    if upstream is None:
        if len(recording.areas) > 1:
            raise InputError(
                f"upstream must name the area whose modulator is estimated; areas: {', '.join(recording.areas)}"
            )
        upstream = recording.areas[0]
    choose(upstream, recording.areas, "area")
    if downstream is not None:
        choose(downstream, recording.areas, "area")
        if downstream == upstream:
            raise InputError(f"upstream and downstream must be different areas, got {upstream!r} for both")
    if control is not None and (task is None or task == control):
        raise InputError(
            f"a control is compared with another context, its task; got task {task!r}, control {control!r}"
        )
    recording = recording.with_neurons(np.isin(recording.area, [upstream, downstream or upstream])).complete()
    main = (recording if task is None else recording.in_context(task)).check()
    other = None if control is None else recording.in_context(control)
    if other is not None:
        check_active(other.check_targets().totals.sum(0))
    fit, above, below = _couplings(main, upstream, downstream, rates_by_bin, errors, control is not None)
    control_above = control_below = None
    if other is not None:
        _, control_above, control_below = _couplings(other, upstream, downstream, rates_by_bin, errors, True)
    first, chance = main.in_area(upstream), {"resamples": resamples, "seed": seed}
    groups = Groups.of(first.counts, first.condition, by_bin=rates_by_bin)
    followed = None
    if downstream is not None and below is not None:
        followed = _area(downstream, main.in_area(downstream), below, control_below, chance)
    return RecordingStatistics(
        recording.name, main.trials, main.bins, shared_dimensions(groups, seed=seed), fit,
        _area(upstream, first, above, control_above, chance), followed, recording.notes,
    )  # fmt: skip


def comparison_table(recordings: Sequence[RecordingStatistics]) -> list[dict[str, str]]:
    """Recordings and networks side by side: a row a statistic, a column each, as readers see them.

    Raises:
        InputError: two of one name, of which one column would be lost.
    """
    columns = [one.name for one in recordings]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise InputError(f"recordings side by side need different names, got {twice[0]!r} {len(twice)} times")
    tables = [{row["statistic"]: row for row in one.rows()} for one in recordings]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return [
        {
            "statistic": name,
            **{one.name: _shown(table.get(name)) for one, table in zip(recordings, tables, strict=True)},
        }
        for name in names
    ]


@dataclass(frozen=True)
class _Couplings:
    """Of one area in one context, ``(N,)``; without each block of trials, ``(K, N)``, where that was asked for."""

    coupling: Floats
    error: Floats
    without: Floats | None


def _couplings(
    part: Recording, upstream: str, downstream: str | None, rates_by_bin: bool, errors: str, left_out: bool
) -> tuple[ModulatorFit, _Couplings, _Couplings | None]:
    """The modulator of one area in one context, and the couplings to it there and downstream."""
    first = part.in_area(upstream)
    fit = fit_modulator(first.counts, first.condition, rates_by_bin=rates_by_bin, errors=errors)
    groups, others, followed = Groups.of(first.counts, first.condition, by_bin=rates_by_bin), None, None
    if downstream is not None:
        second = part.in_area(downstream)
        others = Groups.of(second.counts, second.condition, by_bin=rates_by_bin)
        followed = follow_modulator(fit, second.counts, second.condition, rates_by_bin=rates_by_bin)
    above, below = couplings_without(groups, others) if left_out else (None, None)
    return (
        fit,
        _Couplings(fit.coupling, fit.coupling_error, above),
        None if followed is None else _Couplings(followed.coupling, followed.coupling_error, below),
    )


def _area(
    name: str, part: Recording, found: _Couplings, control: _Couplings | None, chance: dict[str, int]
) -> AreaStatistics:
    dprime, activity = informativeness(part), part.counts.mean((0, 1))
    related = association(found.coupling, dprime, activity, **chance)
    if control is None or found.without is None or control.without is None:
        return AreaStatistics(name, dprime, activity, found.coupling, found.error, related)
    return AreaStatistics(
        name, dprime, activity, found.coupling, found.error, related, control.coupling, control.error,
        association(control.coupling, dprime, activity, **chance),
        modulation_fall(
            found.coupling, found.error, found.without, control.coupling, control.error, control.without
        ),
    )  # fmt: skip


def _neurons(part: AreaStatistics) -> str:
    return "neurons" if part.area == "all" else f"{part.area} neurons"


def _shown(row: dict[str, Any] | None) -> str:
    if row is None or math.isnan(row["value"]):
        return ""
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.2f}{interval}"
