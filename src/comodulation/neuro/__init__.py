"""The link back to cortex: the population model of 2019, and the statistics of recordings (docs/neuro.md).

NWB files need the extra ``neuro``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
