"""What a study runs: its rows, in the order in which they are worth having, and the comparison named beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, choose
from ..methods import METHODS
from .rows import VARIANTS, Cell, Row
from .search import FREE

CORE = ("base", "class-mask", "task-bias", "attention", "decoder-gains", "ia3", "comodulation")
PARTS = ("core", "others", "restricted", "options", "aggregation")
REST_SEEDS = 3
PRIMARY = ("residual", "open", "accuracy", "comodulation", "attention")  # variant, readout, metric, a, b

# Rows beyond the core, open readout.
OTHERS = (
    "comodulation link=rectified",
    "hard-sharing",
    "film",
    "fine-tuning",
    "task-routing",
    "maximum-roaming",
    "attention task_bias=True",
    "decoder-gains task_bias=True",
    "ia3 task_bias=True",
    "comodulation task_bias=True",
)
# With the class mask every method is what it is in the restricted readout, so that these rows are the combination with it.
RESTRICTED = ("base", "attention", "decoder-gains", "ia3", "film", "comodulation", "comodulation link=rectified")
# The mechanism's options, and stochasticity in training and in evaluation.
TRAINING = (
    "comodulation encoder=none",
    "comodulation level=input",
    "comodulation encoder=gain training_encoder=stochastic num_samples=4",
    "comodulation encoder=stochastic training_encoder=gain num_samples=16",
    "comodulation encoder=stochastic num_samples=4",
    "comodulation hidden=64",
)
AGGREGATION = ("gradient-aggregation aggregator=upgrad", "gradient-aggregation aggregator=mgda")
REGIME_ROWS = ("class-mask", "task-bias", "attention", "ia3", "film", "comodulation")


@dataclass(frozen=True)
class Plan:
    """What a study runs.

    Attributes:
        core: rows of all seeds, both variants, open readout.
        others: rows of the first seeds, both variants, open readout.
        restricted: rows of the first seeds, both variants, restricted readout.
        residual: rows of the first seeds, residual variant, open readout: options, and what the data are made to be.
        extra: the same, of methods that need an extra package and more time.
    """

    core: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    restricted: tuple[Row, ...] = ()
    residual: tuple[Row, ...] = ()
    extra: tuple[Row, ...] = ()

    def stages(self, seeds: Sequence[int], rest_seeds: int = REST_SEEDS) -> list[tuple[str, list[Cell]]]:
        """Named stages of cells, in order: the core is complete before the rest begins."""
        few = list(seeds)[:rest_seeds]
        stages = {
            "core": [Cell(v, "open", row, s) for s in seeds for v in VARIANTS for row in self.core],
            "others": [Cell(v, "open", row, s) for s in few for v in VARIANTS for row in self.others],
            "restricted": [Cell(v, "restricted", row, s) for s in few for v in VARIANTS for row in self.restricted],
            "options and regimes": [Cell("residual", "open", row, s) for s in few for row in self.residual],
            "gradient aggregation": [Cell("residual", "open", row, s) for s in few for row in self.extra],
        }
        return [(name, cells) for name, cells in stages.items() if cells]

    def searches(self) -> list[Cell]:
        """What is searched: every row that learns, in both variants if it is of the core, else in the residual one.

        Options of the mechanism, the restricted readout and the regimes take the settings of their method.
        """
        rows = [
            row
            for row in (*self.core, *self.others, *self.extra)
            if settings_row(row) == row and row.method not in FREE
        ]
        both = [Cell(v, "open", row, 0) for v in VARIANTS for row in rows if row in self.core]
        missing = {settings_row(row) for row in (*self.restricted, *self.residual)} - set(rows)
        once = [row for row in rows if row not in self.core]
        once += sorted((row for row in missing if row.method not in FREE), key=lambda row: row.label)
        return both + [Cell("residual", "open", row, 0) for row in once]

    def searched_for(self, cell: Cell) -> Cell:
        """The search whose settings a cell takes."""
        row = settings_row(cell.row)
        return Cell(cell.variant if row in self.core else "residual", "open", row, 0)


def settings_row(row: Row) -> Row:
    """The row whose settings a row takes: its method, with the task bias and the link if it has them."""
    kept = tuple(item for item in row.options if item[0] in ("task_bias", "link", "aggregator"))
    return Row(row.method, kept)


def cifar100_plan() -> Plan:
    """Everything the paper compares on CIFAR-100, and what it left out."""
    regimes = [f"{name} images=25" for name in REGIME_ROWS]
    regimes += [f"{name} distractors=1" for name in ("base", *REGIME_ROWS)]
    return Plan(_rows(CORE), _rows(OTHERS), _rows(RESTRICTED), _rows((*TRAINING, *regimes)), _rows(AGGREGATION))


def attributes_plan() -> Plan:
    """Binary attributes: CIFAR-100's or CelebA's. There is no class mask, and no restricted readout."""
    core = ("base", "hard-sharing", "task-bias", "attention", "decoder-gains", "ia3", "comodulation")
    others = (
        "comodulation link=rectified",
        "film",
        "fine-tuning",
        "comodulation task_bias=True",
        "attention task_bias=True",
    )
    regimes = tuple(f"{name} images=25" for name in ("task-bias", "attention", "ia3", "film", "comodulation"))
    return Plan(_rows(core), _rows(others), (), _rows(regimes))


def narrowed(plan: Plan, methods: Sequence[str], parts: Sequence[str]) -> Plan:
    """A plan of some methods and some parts of it.

    Args:
        plan: whole.
        methods: names; none means all. Attention and comodulation, which the primary comparison needs, are kept.
        parts: of ``PARTS``; none means all but gradient aggregation, which must be asked for.

    Raises:
        InputError: an unknown method or part, with the nearest name.
    """
    for name in methods:
        choose(name, METHODS, "method")
    for name in parts:
        choose(name, PARTS, "part")
    if parts and "core" not in parts:
        raise InputError("the core is part of every study; name it too: --part core")
    wanted = {*methods, "attention", "comodulation"} if methods else set(METHODS)

    def keep(rows: tuple[Row, ...], part: str) -> tuple[Row, ...]:
        asked = part in parts if parts else part != "aggregation"
        return tuple(row for row in rows if row.method in wanted) if asked else ()

    return Plan(
        keep(plan.core, "core"), keep(plan.others, "others"), keep(plan.restricted, "restricted"),
        keep(plan.residual, "options"), keep(plan.extra, "aggregation"),
    )  # fmt: skip


def _rows(labels: Sequence[str]) -> tuple[Row, ...]:
    return tuple(Row.parse(label) for label in labels)
