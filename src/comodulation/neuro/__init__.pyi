from .analysis import RecordingStatistics, analyse_recording, comparison_table
from .experiment import PopulationSettings, PopulationStudy, population_study
from .latent import ModulatorFit, fit_modulator
from .reading import ARRAYS, read_recording, write_recording
from .recorded_network import DECODER, ENCODER, coupled_head, record_network
from .recording import Recording
from .report import POPULATION, RECORDING, claimed, write_population, write_recordings

__all__ = [
    "ARRAYS",
    "DECODER",
    "ENCODER",
    "POPULATION",
    "RECORDING",
    "ModulatorFit",
    "PopulationSettings",
    "PopulationStudy",
    "Recording",
    "RecordingStatistics",
    "analyse_recording",
    "claimed",
    "comparison_table",
    "coupled_head",
    "fit_modulator",
    "population_study",
    "read_recording",
    "record_network",
    "write_population",
    "write_recording",
    "write_recordings",
]
