"""The paper's open questions, as studies: cells in order of importance, a verdict with an interval, a figure, a table."""

from ..cells import Inquiry, Question
from .controller import CONTROLLER
from .location import LOCATION
from .noise import TRAINING
from .residual import RESIDUAL

QUESTIONS: dict[str, Question] = {question.name: question for question in (CONTROLLER, TRAINING, RESIDUAL, LOCATION)}

__all__ = ["QUESTIONS", "Inquiry", "Question"]
