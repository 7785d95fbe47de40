"""The method as pure functions: the modulator, what decoder neurons do under it, gains, and exact responses. No state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
