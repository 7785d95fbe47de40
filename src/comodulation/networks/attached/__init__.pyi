from .attach import comodulate
from .comodulated import Comodulated

__all__ = ["Comodulated", "comodulate"]
