"""From data to a run folder, and what is done with one: predict, add a task, hand on, export."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
