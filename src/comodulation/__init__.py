"""Adapt one frozen network to a family of tasks by stochastic comodulation (arXiv 2311.15053).

The mathematics: ``modulate``, ``decoder_gains``. The network: ``ComodulatedHead``, ``TaskFamily``, ``save_adapter``,
``load_adapter``. Any other network: ``comodulate``. From the command line: ``comodulate --help``. Heavy parts load when
they are first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
