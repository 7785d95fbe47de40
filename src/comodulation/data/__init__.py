"""Tables, folders and data sets, all in one shape: a split with images and label columns."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
