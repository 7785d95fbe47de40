"""The link back to cortex: the population model of 2019, and the statistics of recordings (docs/neuro.md).

Not loaded by ``import comodulation``; parts load when they are first used. NWB files need the extra ``neuro``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cortex import RecordingStatistics, analyse_recording, comparison_table
    from .experiment import PopulationSettings, PopulationStudy, population_study
    from .latent import ModulatorFit, fit_modulator
    from .network import record_network
    from .recordings import Recording, read_recording, write_recording

_PLACES = {
    "ModulatorFit": "latent",
    "PopulationSettings": "experiment",
    "PopulationStudy": "experiment",
    "Recording": "recordings",
    "RecordingStatistics": "cortex",
    "analyse_recording": "cortex",
    "comparison_table": "cortex",
    "fit_modulator": "latent",
    "population_study": "experiment",
    "read_recording": "recordings",
    "record_network": "network",
    "write_recording": "recordings",
}

__all__ = [
    "ModulatorFit",
    "PopulationSettings",
    "PopulationStudy",
    "Recording",
    "RecordingStatistics",
    "analyse_recording",
    "comparison_table",
    "fit_modulator",
    "population_study",
    "read_recording",
    "record_network",
    "write_recording",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'comodulation.neuro' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
