from .study import TRAINING

__all__ = ["TRAINING"]
