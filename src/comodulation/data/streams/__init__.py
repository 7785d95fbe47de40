"""Inputs that are too many to be held: rows of files, block by block, and pictures by a list that lies on the disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
