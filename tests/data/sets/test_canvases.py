"""Canvases of several images: who stands where, what is asked, and that nothing but the task says it."""

import numpy as np
import pytest
import torch
from scipy import stats

from comodulation.data.sets.canvases import KINDS, MEMBERS, digit_splits, draw_canvases, side_by_side
from comodulation.errors import InputError

GROUPS = torch.tensor([0] * 40 + [1] * 30 + [2] * 20 + [3] * 6 + [4] * 4)
LABELS = GROUPS * 10 + torch.arange(100) % 2
ROWS = torch.arange(0, 100, 2)


def drawn(count=400, seed=1):
    return draw_canvases(ROWS, GROUPS, count, seed)


def test_four_images_of_different_superclasses():
    """Also where most images are of one superclass; from the rows given; the same again with the same seed."""
    canvases = drawn()
    assert canvases.members.shape == (400, MEMBERS)
    assert {len(set(row)) for row in GROUPS[canvases.members].tolist()} == {MEMBERS}
    assert torch.isin(canvases.members, ROWS).all()
    assert torch.equal(canvases.members, drawn().members)
    assert not torch.equal(canvases.members, drawn(seed=2).members)


def test_every_place_is_asked_equally_often_and_knows_nothing():
    """Superclasses of unequal size are spread over places by chance alone."""
    canvases = drawn(4000)
    assert torch.bincount(canvases.asked).tolist() == [1000] * MEMBERS
    table = np.stack([np.bincount(GROUPS[canvases.members[:, place]], minlength=5) for place in range(MEMBERS)])
    assert stats.chi2_contingency(table).pvalue > 1e-3
    asked = np.stack([np.bincount(GROUPS[canvases.reported[canvases.asked == p]], minlength=5) for p in range(MEMBERS)])
    assert stats.chi2_contingency(asked).pvalue > 1e-3


def test_the_task_names_one_image_of_the_canvas():
    """A superclass occurs once on a canvas, so that it names an image as a place does; all kinds report the same one."""
    canvases = drawn()
    found = {kind: canvases.examples(kind, LABELS, GROUPS) for kind in KINDS}
    for kind, examples in found.items():
        for number, (members, task) in enumerate(zip(canvases.members, examples.task, strict=True)):
            named = GROUPS[members] == task if kind == "category" else torch.arange(MEMBERS) == task
            assert named.sum() == 1
            assert LABELS[members[named]] == examples.target[number]
    assert torch.equal(found["spatial"].task, found["temporal"].task)
    with pytest.raises(InputError, match="did you mean 'spatial'"):
        canvases.examples("spacial", LABELS, GROUPS)


def test_images_stand_two_by_two():
    """Pixel by pixel: the first two above, left and right, the others below."""
    images = torch.randn(3, MEMBERS, 2, 5, 5)
    canvas = side_by_side(images)
    assert canvas.shape == (3, 2, 10, 10)
    for y in range(10):
        for x in range(10):
            place = 2 * (y >= 5) + (x >= 5)
            assert torch.equal(canvas[:, :, y, x], images[:, place, :, y % 5, x % 5])


def test_too_few_superclasses_are_refused():
    with pytest.raises(InputError, match="4 images of different superclasses, but the images are of 3 only"):
        draw_canvases(torch.arange(90), GROUPS, 10, 0)


def test_digits_as_a_data_set():
    """All of them, in two splits, under their own names; the image is the digit, larger."""
    splits = digit_splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 1297, "test": 500}
    for split in splits.values():
        labels = np.array(split.column("fine_label"))
        assert np.array_equal(labels // 2, split.column("coarse_label"))
        assert split.image(0).size == (16, 16)
    from comodulation.data.sets.digits import load_digits

    seen = np.concatenate([[np.asarray(s.image(r))[:, :, 0].mean() for r in range(len(s))] for s in splits.values()])
    assert seen.mean() == pytest.approx(255 * float(load_digits().images.mean()), abs=1)
