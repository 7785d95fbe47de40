"""The plan: what comes first, what is searched, and what is left when it is narrowed."""

import pytest

from comodulation.errors import InputError
from comodulation.networks.methods import METHODS
from comodulation.studies.cells import FREE, LAYERS, PRIMARY, Row, space
from comodulation.studies.paper.plan import PARTS, attributes_plan, cifar100_plan, narrowed

PLANS = {"cifar100": cifar100_plan(), "attributes": attributes_plan()}
WHOLE = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
SEEDS = tuple(range(10))


@WHOLE
def test_the_core_is_complete_before_the_rest(plan):
    first, *rest = plan.stages(SEEDS)
    name, core = first.name, first.cells
    assert name == "core"
    assert {cell.seed for cell in core} == set(SEEDS)
    assert len(core) == 10 * 2 * len(plan.core) == len({cell.key for cell in core})
    assert [cell.seed for cell in core] == sorted(cell.seed for cell in core)  # a seed is complete before the next
    yardstick, *rest = rest
    assert [(cell.row.label, cell.seed) for cell in yardstick.cells] == [
        (label, seed) for seed in SEEDS for label in ("linear", "nearest-class-mean")
    ]
    others = [cell for stage in rest for cell in stage.cells]
    assert {cell.seed for cell in others} == {0, 1, 2}
    assert not {cell.key for cell in core} & {cell.key for cell in others}
    assert len({cell.key for cell in others}) == len(others)


@WHOLE
def test_one_yardstick_will_do_where_all_seeds_have_the_same_halves(plan):
    """Of every regime, whose images or scenes a seed draws, there is one of each seed as before."""
    usual, same = (
        [(stage.name, cell) for stage in plan.stages(SEEDS, same_halves=same_halves) for cell in stage.cells]
        for same_halves in (False, True)
    )
    assert [(cell.row.label, cell.seed) for name, cell in same if name == "yardstick"] == [
        ("linear", 0), ("nearest-class-mean", 0),
    ]  # fmt: skip
    assert [pair for pair in usual if pair[0] != "yardstick"] == [pair for pair in same if pair[0] != "yardstick"]


@WHOLE
def test_both_sides_of_the_primary_comparison_are_in_the_core(plan):
    variant, readout, _, a, b = PRIMARY
    core = {(cell.variant, cell.readout, cell.row.label) for cell in plan.stages(SEEDS)[0].cells}
    assert {(variant, readout, a), (variant, readout, b)} <= core


@WHOLE
def test_every_row_that_learns_takes_the_settings_of_a_search(plan):
    """Of its own method, with the task bias and the link if it has them; rows of the core in their own variant."""
    searches = plan.searches()
    keys = {cell.key for cell in searches}
    assert len(keys) == len(searches)
    for cells in (stage.cells for stage in plan.stages(SEEDS)):
        for cell in cells:
            source = plan.searched_for(cell)
            assert source.row.method == cell.row.method
            for option in ("task_bias", "link", "hidden", "rank", "decoder_rank", "aggregator"):
                assert source.row.get(option) == cell.row.get(option)
            if cell.row.method not in FREE:
                assert source.key in keys, cell
            if cell.row in plan.core and cell.row.method not in LAYERS:
                assert source.variant == cell.variant
    assert {cell.row.method for cell in searches}.isdisjoint(FREE)


@WHOLE
def test_what_is_searched_is_an_option_of_its_method(plan):
    """Ranges are in order, and a row's search space holds nothing that the row itself fixes."""
    from comodulation.runs import RunConfig

    for cell in plan.searches():
        ranges = space(cell.row)
        assert {"learning_rate", "weight_decay"} <= set(ranges)
        for name, (scale, low, high) in ranges.items():
            assert scale in ("log", "linear")
            assert 0 < low < high
            assert cell.row.get(name) is None
        for end in (1, 2):  # both ends are settings that the method takes
            config = cell.row.configure(
                RunConfig(data="x", group="a", label="b"), {n: r[end] for n, r in ranges.items()}
            )
            assert RunConfig.model_validate(config.model_dump()) == config


def test_the_plan_compares_every_method_with_layers_and_two_readouts_of_features():
    plan = PLANS["cifar100"]
    assert {row.method for rows in plan.rows.values() for row in rows} == {
        "linear", "nearest-class-mean", *(name for name, kind in METHODS.items() if not kind.without_layers)
    }  # fmt: skip


def test_attributes_hold_no_method_for_classes():
    plan = PLANS["attributes"]
    rows = [row for rows in plan.rows.values() for row in rows]
    assert all("binary" in METHODS[row.method].kinds for row in rows)
    assert not plan.restricted


def test_narrowed_to_methods():
    """The primary comparison's are kept; the order stays."""
    plan = narrowed(PLANS["cifar100"], ("ia3", "film"), ())
    assert [row.method for row in plan.core] == ["attention", "ia3", "comodulation"]
    kept = {"attention", "ia3", "comodulation", "film", "linear", "nearest-class-mean"}
    assert {row.method for rows in plan.rows.values() for row in rows} == kept
    assert plan.aggregation == ()


@pytest.mark.parametrize(
    ("parts", "filled"),
    [
        ((), {*PARTS, "ablation"} - {"aggregation"}),
        (("core",), {"core"}),
        (("options", "core"), {"core", "options", "ablation"}),
        (("core", "aggregation"), {"core", "aggregation"}),
        (PARTS, {*PARTS, "ablation"}),
    ],
)
def test_narrowed_to_parts(parts, filled):
    plan = narrowed(PLANS["cifar100"], (), parts)
    assert {name for name, rows in plan.rows.items() if rows} == {*filled, "yardstick"}
    keys = {cell.key for cell in plan.searches()}
    for cells in (stage.cells for stage in plan.stages((0, 1))):
        assert all(plan.searched_for(cell).key in keys or cell.row.method in FREE for cell in cells)


def test_narrowed_to_a_row():
    """By its name with its options; the plain row of its method is not asked for."""
    plan = narrowed(PLANS["cifar100"], ("paper level=task",), ("core", "others"))
    assert [row.label for row in plan.core] == ["attention", "comodulation"]
    assert [row.label for row in plan.others if row.method == "paper"] == ["paper level=task"]
    with pytest.raises(InputError, match=r"unknown row 'paper levl=task'; did you mean 'paper level=task'\?"):
        narrowed(PLANS["cifar100"], ("paper levl=task",), ())


def test_narrowing_does_not_change_what_a_cell_is():
    """A cell and the search it takes are the same in a part of the plan as in the whole."""
    whole = PLANS["cifar100"]
    known = {cell.key: whole.searched_for(cell).key for stage in whole.stages((0, 1)) for cell in stage.cells}
    for methods in ((), ("film",)):
        for kept in [("core", name) for name in PARTS]:
            part = narrowed(whole, methods, kept)
            cells = [cell for stage in part.stages((0, 1)) for cell in stage.cells]
            assert {cell.key: part.searched_for(cell).key for cell in cells}.items() <= known.items()


@pytest.mark.parametrize(
    ("methods", "parts", "message"),
    [
        (("atention",), (), r"unknown method 'atention'; did you mean 'attention'\?"),
        (
            ("auto",),
            (),
            "method 'auto' is not a row of this study; it has linear, nearest-class-mean, base, class-mask, ",
        ),
        ((), ("option",), r"unknown part 'option'; did you mean 'options'\?"),
        ((), ("restricted",), "the core is part of every study; name it too: --part core"),
    ],
)
def test_what_cannot_be_narrowed_to(methods, parts, message):
    with pytest.raises(InputError, match=message):
        narrowed(PLANS["cifar100"], methods, parts)


def test_labels_of_rows_stay():
    """They name files of studies that are finished."""
    assert [row.label for row in PLANS["cifar100"].core] == [
        "base", "class-mask", "task-bias", "attention", "decoder-gains", "ia3", "comodulation", "paper",
    ]  # fmt: skip
    assert Row.parse("comodulation distractors=1") in PLANS["cifar100"].regimes
