"""The engine of studies: cells, the searches before them, the processes that train them, and their results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
