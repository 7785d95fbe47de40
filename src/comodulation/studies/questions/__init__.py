"""The paper's open questions as studies: cells in order of importance, a verdict with an interval, a figure, a table."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
