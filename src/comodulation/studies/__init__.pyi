from .demo import describe, fit_seed, run_demo

__all__ = ["describe", "fit_seed", "run_demo"]
