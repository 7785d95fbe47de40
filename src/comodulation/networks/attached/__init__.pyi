from .attach import comodulate
from .calls import arguments
from .comodulated import Comodulated

__all__ = ["Comodulated", "arguments", "comodulate"]
