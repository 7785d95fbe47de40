"""Arrays in, numbers out: accuracy, likelihood, calibration, comparisons over seeds, and what modulation does inside a network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
