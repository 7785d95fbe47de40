"""What a study runs: its rows, in the order in which they are worth having, and the comparison named beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InputError, choose
from ...networks.methods import METHODS
from ..cells import FREE, LAYERS, VARIANTS, YARDSTICK, YARDSTICKS, Cell, Row, Stage

CORE = ("base", "class-mask", "task-bias", "attention", "decoder-gains", "ia3", "comodulation", "paper")
OWN_SETTINGS = (
    "task_bias",
    "link",
    "hidden",
    "rank",
    "decoder_rank",
    "aggregator",
)  # options that make a search of their own
PARTS = ("core", "others", "restricted", "regimes", "options", "layers", "aggregation")
OF_RESIDUAL = ("regimes", "options", "aggregation")  # parts of the residual variant alone
REST_SEEDS = 3

# Rows beyond the core, open readout.
OTHERS = (
    "comodulation beta=1.0",  # equal strength in both variants, which claims about sparsity need
    "comodulation link=rectified",
    "film",
    # As many parameters as comodulation's, with 20 tasks: 11,880 for 12,800 with 640 neurons, 4,968 for 5,120 with 256.
    "ia3 rank=9 decoder_rank=9",
    "positions",  # of single images: what is left to leave out is their background
    "paper level=task",
    "paper normalizer=correlation",
    # Of layers with batch normalisation; each takes the settings of its method without.
    *(f"{name} batch_norm=True" for name in ("class-mask", "attention", "comodulation")),
    "attention task_bias=True",
    "decoder-gains task_bias=True",
    "ia3 task_bias=True",
    "comodulation task_bias=True",
)
# With the class mask every method is what it is in the restricted readout, so that these rows are the combination with it.
RESTRICTED = (
    "base",
    "attention",
    "decoder-gains",
    "ia3",
    "film",
    "comodulation",
    "comodulation link=rectified",
    "paper",
)
# The mechanism's options, and stochasticity in training and in evaluation.
TRAINING = (
    "comodulation encoder=none",
    "comodulation level=input",
    "comodulation encoder=gain training_encoder=stochastic num_samples=4",
    "comodulation encoder=stochastic training_encoder=gain num_samples=16",
    "comodulation encoder=stochastic num_samples=4",
    "comodulation hidden=64",
    "attention hidden=64",
)
# One change at a time from comodulation's default: the evidence for it, on validation images. Quadrature estimates task gains
# from each batch, so that its first row is to be compared with `level=task` gains of batches, not with exact ones.
ABLATION = (
    "comodulation",
    *(f"comodulation beta={beta}" for beta in (0.0, 0.5, 0.7, 1.0, 1.4)),
    "comodulation encoder=none",
    "comodulation after_gain=True",
    "comodulation level=input",
    "comodulation link=rectified",
    "comodulation link=rectified normalizer=covariance",
    "comodulation estimator=quadrature std=0.1",
    "comodulation estimator=quadrature std=0.3",
    "comodulation estimator=quadrature std=0.6",
    "comodulation link=rectified estimator=quadrature normalizer=correlation",
    "comodulation encoder=gain training_encoder=stochastic num_samples=4",
    "comodulation encoder=stochastic training_encoder=gain num_samples=16",
    "attention",
)
TRAINING_LAYERS = ("hard-sharing", "fine-tuning", "task-routing", "maximum-roaming")
AGGREGATION = ("gradient-aggregation aggregator=upgrad", "gradient-aggregation aggregator=mgda")
REGIME_ROWS = (YARDSTICK, "class-mask", "task-bias", "attention", "ia3", "film", "comodulation", "paper")


@dataclass(frozen=True)
class Plan:
    """What a study runs.

    Attributes:
        core: rows of all seeds, all variants, open readout.
        yardstick: of all seeds (of the first, where all have the same halves); the same in every variant and readout, so that one
            of each seed will do.
        others: rows of the first seeds, all variants, open readout.
        restricted: rows of the first seeds, all variants, restricted readout.
        regimes, options: rows of the first seeds, residual variant, open readout: of what the data are made to be, and of
            comodulation's options.
        layers: rows of the first seeds, all variants, open readout, that train the layers.
        aggregation: the same in the residual variant, of methods that need an extra package and more time.
        ablation: rows tried on validation images of the search's seed only.
        variants: of the layers, in the order of ``VARIANTS``.
    """

    core: tuple[Row, ...]
    yardstick: tuple[Row, ...] = ()
    others: tuple[Row, ...] = ()
    restricted: tuple[Row, ...] = ()
    regimes: tuple[Row, ...] = ()
    options: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    aggregation: tuple[Row, ...] = ()
    ablation: tuple[Row, ...] = ()
    variants: tuple[str, ...] = VARIANTS

    @property
    def rows(self) -> dict[str, tuple[Row, ...]]:
        """Rows by the name of the part that they are in."""
        return {name: own for name, own in vars(self).items() if name != "variants"}

    def stages(self, seeds: Sequence[int], *, same_halves: bool = False) -> list[Stage]:
        """Stages of cells, in order: the core is complete before the rest begins.

        Args:
            seeds: of the core. same_halves: whether they all have the same halves of the training split. A yardstick is fitted to
                one of them, and a seed then changes little but the folds of its cross-validation: one will do for all.
        """
        few, variants, first = list(seeds)[:REST_SEEDS], self.variants, self.variants[0]
        fitted = list(seeds)[:1] if same_halves else seeds
        stages = {
            "core": [Cell(v, "open", row, s) for s in seeds for v in variants for row in self.core],
            "yardstick": [Cell(first, "open", row, s) for s in fitted for row in self.yardstick],
            "others": [Cell(v, "open", row, s) for s in few for v in variants for row in self.others],
            "restricted": [Cell(v, "restricted", row, s) for s in few for v in variants for row in self.restricted],
            "regimes": [Cell("residual", "open", row, s) for s in few for row in self.regimes],
            "options": [Cell("residual", "open", row, s) for s in few for row in self.options],
            "layers": [Cell(v, "open", row, s) for s in few for v in variants for row in self.layers],
            "aggregation": [Cell("residual", "open", row, s) for s in few for row in self.aggregation],
        }
        return [Stage(name, tuple(cells)) for name, cells in stages.items() if cells]

    def searches(self) -> list[Cell]:
        """The searches whose settings cells take, each once, in the order of the cells."""
        cells = [cell for stage in self.stages((0,)) for cell in stage.cells]
        needed = (self.searched_for(cell) for cell in cells if cell.row.method not in FREE)
        return list(dict.fromkeys(needed))

    def searched_for(self, cell: Cell) -> Cell:
        """The search whose settings a cell takes."""
        row = settings_row(cell.row)
        variants = self._searched_in(row)
        return Cell(cell.variant if cell.variant in variants else variants[0], "open", row, 0)

    def _searched_in(self, row: Row) -> tuple[str, ...]:
        """All variants for rows of the core that learn gains or biases, the first one for all others."""
        return self.variants if row in self.core and row.method not in LAYERS else self.variants[:1]


def settings_row(row: Row) -> Row:
    """The row whose settings a row takes: its method, with those of ``OWN_SETTINGS`` that it has."""
    kept = tuple(item for item in row.options if item[0] in OWN_SETTINGS)
    return Row(row.method, kept)


def cifar100_plan() -> Plan:
    """Everything the paper compares on CIFAR-100, and what it left out."""
    regimes = [f"{name} images=25" for name in REGIME_ROWS]
    regimes += [f"{name} distractors=1" for name in ("base", "local-mask", "positions", *REGIME_ROWS)]
    return Plan(
        core=_rows(CORE), yardstick=_rows(YARDSTICKS), others=_rows(OTHERS), restricted=_rows(RESTRICTED),
        regimes=_rows(regimes), options=_rows(TRAINING), layers=_rows(TRAINING_LAYERS), aggregation=_rows(AGGREGATION),
        ablation=_rows(ABLATION),
    )  # fmt: skip


def clinc_plan() -> Plan:
    """Intents within domains: the plan of CIFAR-100 without what needs positions, which a text's one vector does not have."""
    whole = cifar100_plan()

    def kept(rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(
            row for row in rows if row.method not in ("positions", "local-mask") and not row.get("distractors")
        )

    fewer: dict[str, Any] = {name: kept(rows) for name, rows in whole.rows.items()}
    return replace(whole, **fewer)


def attributes_plan() -> Plan:
    """Binary attributes: CIFAR-100's or CelebA's. There is no class mask, and no restricted readout."""
    core = ("base", "hard-sharing", "task-bias", "attention", "decoder-gains", "ia3", "comodulation", "paper")
    others = (
        "comodulation link=rectified",
        "film",
        "comodulation task_bias=True",
        "attention task_bias=True",
    )
    regimes = [
        f"{name} images=25" for name in (YARDSTICK, "task-bias", "attention", "ia3", "film", "comodulation", "paper")
    ]
    return Plan(
        core=_rows(core), yardstick=_rows(YARDSTICKS), others=_rows(others), regimes=_rows(regimes),
        layers=_rows(TRAINING_LAYERS[1:]),
    )  # fmt: skip


def narrowed(plan: Plan, methods: Sequence[str], parts: Sequence[str], variants: Sequence[str] = ()) -> Plan:
    """A plan of some methods, some parts of it and some variants.

    Args:
        plan: whole.
        methods: names, or rows with their options (`paper level=task`); none means all. Attention and comodulation, which the
            primary comparison needs, and the yardstick are kept.
        parts: of ``PARTS``; none means all but gradient aggregation, which must be asked for.
        variants: of ``VARIANTS``; none means all.

    Raises:
        InputError: an unknown method or part, with the nearest name; a method that the plan does not have.
    """
    known = dict.fromkeys(row.method for part in ("yardstick", *PARTS) for row in plan.rows[part])
    labels = dict.fromkeys(row.label for part in PARTS for row in plan.rows[part])
    single = {name for name in methods if " " in name.strip()}
    for name in single:
        choose(name, labels, "row")
    for name in methods:
        if name not in single and choose(name, METHODS, "method") not in known:
            raise InputError(f"method {name!r} is not a row of this study; it has {', '.join(known)}")
    for name in parts:
        choose(name, PARTS, "part")
    for name in variants:
        choose(name, VARIANTS, "variant")
    if parts and "core" not in parts:
        raise InputError("the core is part of every study; name it too: --part core")
    residual = not variants or "residual" in variants
    if not residual and (alone := [name for name in parts if name in OF_RESIDUAL]):
        raise InputError(f"part {alone[0]!r} is of the residual variant; name it too: --variant residual")
    wanted = {*methods, "attention", "comodulation", *YARDSTICKS} if methods else set(METHODS)

    def keep(rows: tuple[Row, ...], part: str) -> tuple[Row, ...]:
        asked = part in parts if parts else part != "aggregation"
        asked = asked and (residual or part not in OF_RESIDUAL)
        return tuple(row for row in rows if row.method in wanted or row.label in single) if asked else ()

    kept = {part: keep(getattr(plan, part), part) for part in PARTS}
    return Plan(
        **kept,
        yardstick=plan.yardstick,
        ablation=keep(plan.ablation, "options"),
        variants=tuple(v for v in VARIANTS if not variants or v in variants),
    )


def _rows(labels: Sequence[str]) -> tuple[Row, ...]:
    return tuple(Row.parse(label) for label in labels)
