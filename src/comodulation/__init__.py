"""Adapt one frozen network to a family of tasks by stochastic comodulation (arXiv 2311.15053).

The mathematics: ``modulate``, ``decoder_gains``. The network: ``ComodulatedHead``, ``TaskFamily``, ``save_adapter``,
``load_adapter``. Any other network: ``comodulate``, ``train``. From the command line: ``comodulate --help``. Heavy parts load when
they are first used.
"""

import importlib.abc
import importlib.util
import sys
import warnings
from types import CodeType, ModuleType

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Modules of 0.1.0 that people imported by name, and where they are now. To go with 1.0.
_MOVED = {
    "analysis.calibration": "evaluation.calibration",
    "analysis.informativeness": "evaluation.informative_neurons",
    "analysis.noise": "evaluation.fluctuation",
    "analysis.separability": "evaluation.separability",
    "analysis.sparsity": "evaluation.sparsity",
    "analysis": "evaluation",
    "attach": "networks.attached.attach",
    "backbone": "data.features.backbone",
    "cli.commands": "app.cli.commands",
    "cli": "app.cli",
    "comodulated": "networks.attached.comodulated",
    "config": "runs.config",
    "controller": "networks.controller",
    "demo": "studies.demo",
    "deployment": "runs.export",
    "features": "data.features",
    "fitting": "runs.fitting",
    "gains": "mathematics",
    "growing": "networks.methods",
    "head": "networks.head",
    "mechanism": "mathematics.options",
    "methods": "networks.methods",
    "modulation": "mathematics.modulator",
    "noise": "mathematics.randomness",
    "prediction": "runs.run",
    "response": "mathematics.response",
    "serving": "app.server.service",
    "session": "runs.session",
    "statistics": "evaluation.comparison",
    "task_pairs": "networks.methods",
}


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds a module under the name that it had in 0.1.0, with a warning that says the new one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        old = name.removeprefix(f"{__name__}.")
        return importlib.util.spec_from_loader(name, self, is_package=False) if name != old and old in _MOVED else None

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = f"{__name__}.{_MOVED[module.__name__.removeprefix(f'{__name__}.')]}"
        warnings.warn(f"{module.__name__} is {new} now", DeprecationWarning, stacklevel=2)
        found = importlib.import_module(new)
        module.__path__ = []  # modules below it have moved, too
        module.__getattr__ = lambda name: getattr(found, name)

    def get_source(self, fullname: str) -> None:
        return None

    def get_code(self, fullname: str) -> CodeType:
        """Of `python -m comodulation.cli`."""
        return _command_line.__code__


def _command_line() -> None:
    import sys  # what is run has other globals than this file

    from comodulation.app.cli import main

    sys.argv[0] = "comodulate"
    main()


sys.meta_path.append(_Moved())
