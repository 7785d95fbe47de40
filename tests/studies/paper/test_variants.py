"""A study of one variant of the layers: the same cells and settings as that variant's in the whole study."""

import pytest

from comodulation.errors import InputError
from comodulation.studies.paper.plan import cifar100_plan, narrowed


def cells(plan):
    return {cell for stage in plan.stages((0, 1)) for cell in stage.cells}


def test_a_variant_has_its_cells_of_the_whole_study_and_the_yardstick():
    whole, base = cifar100_plan(), narrowed(cifar100_plan(), (), (), ("base",))
    in_both = narrowed(whole, (), (), ())
    for stage in ("core", "others", "restricted", "layers"):
        expected = {c for s in in_both.stages((0, 1)) if s.name == stage for c in s.cells if c.variant == "base"}
        assert {c for s in base.stages((0, 1)) if s.name == stage for c in s.cells} == expected
    assert {cell.variant for cell in cells(base)} == {"base"}
    assert {cell.row.method for cell in cells(base)} >= {"linear", "comodulation", "fine-tuning"}
    assert {search.variant for search in base.searches()} == {"base"}


def test_parts_of_the_residual_variant_alone_are_left_out_or_refused():
    """No table would show them of another variant."""
    base = narrowed(cifar100_plan(), (), (), ("base",))
    assert (base.regimes, base.options, base.ablation) == ((), (), ())
    with pytest.raises(InputError, match="part 'options' is of the residual variant"):
        narrowed(cifar100_plan(), (), ("core", "options"), ("base",))


def test_an_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'residual'"):
        narrowed(cifar100_plan(), (), (), ("residal",))
