from .commands import app
from .console import ConsoleProgress
from .entry import main
from .exits import run

__all__ = ["ConsoleProgress", "app", "main", "run"]
