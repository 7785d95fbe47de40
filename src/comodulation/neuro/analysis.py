"""Everything that is reported of one recording, in numbers, table rows and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError, choose
from .associations import RESAMPLES, Association, Dimensions, association, informativeness, shared_dimensions
from .checks import Floats
from .counts import Groups, check_active
from .downstream import Following, follow_modulator
from .fall import Couplings, Fall, couplings_without, modulation_fall
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
        control_coupling: in the control, ``(N,)``; None without one.
        control_association: of the control's coupling and the task's informativeness. fall: of modulation in the control.
    """

    area: str
    dprime: Floats
    activity: Floats
    coupling: Floats
    error: Floats
    association: Association
    control_coupling: Floats | None = None
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

    @property
    def areas(self) -> dict[str, AreaStatistics]:
        """Of ``upstream`` and, with one, ``downstream``."""
        return {"upstream": self.upstream} | ({} if self.downstream is None else {"downstream": self.downstream})

    def rows(self) -> list[dict[str, Any]]:
        """One row a statistic, for tables: recording, statistic, value, low, high (95%), p, neurons; nan where there is none."""
        d, neurons = self.dimensions, len(self.upstream.coupling)
        ends = d.share - 1.96 * d.error, d.share + 1.96 * d.error
        found = [
            self._row("share of shared variability in the first dimension", d.share, neurons, *ends, d.p),
            self._row("the same, factor analysis", d.fitted_share, neurons),
            self._row("shared part of the variance of counts", d.shared, neurons, p=d.p),
            self._row("modulator over none, bits a bin", self.fit.gain_in_bits, neurons),
        ]
        for place, part in self.areas.items():
            for a, what in ((part.association, ""), (part.control_association, ", control")):
                if a is not None:
                    name = f"coupling against informativeness, {place}{what}"
                    found += [
                        self._row(name, a.spearman, a.neurons, a.low, a.high, a.p),
                        self._row(f"{name}, activity held fixed", a.partial, a.neurons),
                        self._row(f"{name}, AUC", a.auc, a.neurons),
                    ]
            if (f := part.fall) is not None:
                name = f"variance of log gain, {place}"
                found += [
                    self._row(f"{name}, task", f.task, f.neurons),
                    self._row(f"{name}, control", f.control, f.neurons),
                    self._row(f"{name}, task - control", f.difference, f.neurons, f.low, f.high, f.p),
                ]
        return found

    def _row(
        self,
        statistic: str,
        value: float,
        neurons: int,
        low: float = math.nan,
        high: float = math.nan,
        p: float = math.nan,
    ) -> dict[str, Any]:
        numbers = {"value": float(value), "low": float(low), "high": float(high), "p": float(p)}
        return {"recording": self.name, "statistic": statistic, **numbers, "neurons": neurons}

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
        for part in self.areas.values():
            said.append(_said_of_association(part))
            if part.fall is not None:
                said.append(_said_of_fall(part.fall))
        return [*said, *notes]


def _said_of_association(part: AreaStatistics) -> str:
    # Decided by both: intervals are a bootstrap's, p a permutation's, and near the edge they may differ.
    a = part.association
    which = f"informative {_neurons(part)} follow the modulator more strongly"
    if a.low > 0 and a.p < 0.05:
        said = f"More {which}"
    elif a.high < 0 and a.p < 0.05:
        said = f"Less {which}"
    else:
        said = f"Whether more {which} is not decided"
    return (
        f"{said}: rank correlation {a.spearman:+.2f} [{a.low:+.2f}, {a.high:+.2f}], {a.neurons} neurons, p = {a.p:.2g}; "
        f"{a.partial:+.2f} with activity held fixed."
    )


def _said_of_fall(f: Fall) -> str:
    how = "falls" if f.low > 0 else "rises" if f.high < 0 else "does not decidedly change"
    return (
        f"In the control, their modulation {how}: variance of log gain {f.task:.3f} in the task, {f.control:.3f} in "
        f"the control, difference {f.difference:+.3f} [{f.low:+.3f}, {f.high:+.3f}] over trials, p = {f.p:.2g}."
    )


def _neurons(part: AreaStatistics) -> str:
    return "neurons" if part.area == "all" else f"{part.area} neurons"


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
    areas = _areas(recording, upstream, downstream)
    if control is not None and (task is None or task == control):
        raise InputError(
            f"a control is compared with another context, its task; got task {task!r}, control {control!r}"
        )
    recording = recording.with_neurons(np.isin(recording.area, areas)).complete()
    main = (recording if task is None else recording.in_context(task)).check()
    other = None if control is None else recording.in_context(control)
    if other is not None:
        check_active(other.check_targets().totals.sum(0))
    fit, couplings = _couplings(main, areas, rates_by_bin, errors, left_out=other is not None)
    controls: Sequence[Couplings | None] = [None] * len(areas)
    if other is not None:
        _, controls = _couplings(other, areas, rates_by_bin, errors, left_out=True)
    first = main.in_area(areas[0])
    dimensions = shared_dimensions(Groups.of(first.counts, first.condition, by_bin=rates_by_bin), seed=seed)
    chance = {"resamples": resamples, "seed": seed}
    found = [
        _area(main.in_area(area), own, of_control, chance)
        for area, own, of_control in zip(areas, couplings, controls, strict=True)
    ]
    follows = found[1] if downstream is not None else None
    return RecordingStatistics(
        recording.name, main.trials, main.bins, dimensions, fit, found[0], follows, recording.notes
    )


def _areas(recording: Recording, upstream: str | None, downstream: str | None) -> list[str]:
    """The areas that are analysed, the one whose modulator is estimated first. Raises InputError for others."""
    if upstream is None:
        if len(recording.areas) > 1:
            raise InputError(
                f"upstream must name the area whose modulator is estimated; areas: {', '.join(recording.areas)}"
            )
        upstream = recording.areas[0]
    areas = [upstream] if downstream is None else [upstream, downstream]
    for area in areas:
        choose(area, recording.areas, "area")
    if downstream == upstream:
        raise InputError(f"upstream and downstream must be different areas, got {upstream!r} for both")
    return areas


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


def _couplings(
    part: Recording, areas: Sequence[str], rates_by_bin: bool, errors: str, *, left_out: bool
) -> tuple[ModulatorFit, list[Couplings]]:
    """The modulator of the first area in a context, and the couplings to it of all; with ``left_out``, also without each block."""
    first, *others = (part.in_area(area) for area in areas)
    fit = fit_modulator(first.counts, first.condition, rates_by_bin=rates_by_bin, errors=errors)
    fits: list[ModulatorFit | Following] = [fit]
    fits += [follow_modulator(fit, other.counts, other.condition, rates_by_bin=rates_by_bin) for other in others]
    without: Sequence[Floats] = [np.empty((0, one.neurons)) for one in (first, *others)]
    if left_out:
        without = couplings_without(
            *(Groups.of(one.counts, one.condition, by_bin=rates_by_bin) for one in (first, *others))
        )
    return fit, [Couplings(one.coupling, one.coupling_error, left) for one, left in zip(fits, without, strict=True)]


def _area(part: Recording, found: Couplings, control: Couplings | None, chance: dict[str, int]) -> AreaStatistics:
    dprime, activity = informativeness(part), part.counts.mean((0, 1))
    related = association(found.coupling, dprime, activity, **chance)
    alone = AreaStatistics(part.areas[0], dprime, activity, found.coupling, found.error, related)
    if control is None:
        return alone
    return replace(
        alone,
        control_coupling=control.coupling,
        control_association=association(control.coupling, dprime, activity, **chance),
        fall=modulation_fall(found, control),
    )


def _shown(row: dict[str, Any] | None) -> str:
    if row is None or math.isnan(row["value"]):
        return ""
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.2f}{interval}"
