from .registry import QUESTIONS

__all__ = ["QUESTIONS"]
