"""How readouts of frozen features learn: the probe, bags of small networks, their weights in a mixture, and their calibration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
