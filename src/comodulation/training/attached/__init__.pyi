from .couplings import Trained, train

__all__ = ["Trained", "train"]
