"""Experiments: the demo, the paper's claims, its open questions, on one engine of cells."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
