"""Small readouts of frozen features: what is asked, and the networks that answer; see `training.readouts` for how they learn."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
