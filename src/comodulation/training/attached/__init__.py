"""How the couplings of a network with modulated layers (``comodulate``) learn from labelled batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
