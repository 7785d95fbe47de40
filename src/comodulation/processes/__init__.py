"""Other processes: those that train together, and those that take independent pieces of work, on this machine or in a cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
