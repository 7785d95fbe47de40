"""What holds parameters: the controller, the added layers, the head, and adapters on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
