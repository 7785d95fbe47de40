"""Scenes in which a colour names the digit to report."""

import numpy as np
import torch
from PIL import Image

from comodulation.data.sets import (
    COLOURS,
    CUED,
    TURNS,
    cued_family,
    cued_pairs,
    cued_scenes,
    load_digits,
    patches,
    tinted,
    turned,
)

DIGITS = load_digits()


def halves(scenes):
    """Brightness by colour and place, ``(N, 3, 2)``."""
    return scenes.images.unflatten(3, (2, 8)).sum((2, 4))


def test_the_colour_alone_says_which_digit_is_asked_for():
    """One digit a place, each in one colour, never the same; the target stands in the task's colour, as it is in the data."""
    scenes = cued_scenes(DIGITS, 400, 0, distractor=True)
    lit = halves(scenes) > 0
    assert (lit.sum(1) == 1).all()
    assert (lit.sum(2) <= 1).all()
    known = {image.numpy().tobytes(): int(label) for image, label in zip(DIGITS.images, DIGITS.labels, strict=True)}
    examples = scenes.examples
    for row, task, target in zip(examples.image, examples.task, examples.target, strict=True):
        place = int(lit[row, task].nonzero()[0, 0])
        drawn = scenes.images[row, task, :, 8 * place : 8 * place + 8]
        assert known[drawn.contiguous().numpy().tobytes()] == target
        (other,) = (colour for colour in range(3) if lit[row, colour, 1 - place])
        drawn = scenes.images[row, other, :, 8 - 8 * place : 16 - 8 * place]
        assert known[drawn.contiguous().numpy().tobytes()] != target


def test_nothing_but_the_cue_tells():
    """Colours, places, digits and tasks are drawn evenly and apart; a task forbids no output."""
    scenes = cued_scenes(DIGITS, 6000, 1, distractor=True)
    examples, lit = scenes.examples, halves(scenes) > 0
    for values, number in ((examples.task, 3), (examples.target, 10), (lit[:, :, 0].int().argmax(1), 3)):
        share = torch.bincount(values, minlength=number) / 6000
        assert (share - 1 / number).abs().max() < 0.03
    table = torch.zeros(3, 10).index_put((examples.task, examples.target), torch.ones(6000), accumulate=True) / 6000
    assert (table - 1 / 30).abs().max() < 0.01
    left = lit[torch.arange(6000), examples.task, 0].double().mean()
    assert abs(left - 0.5) < 0.03
    assert CUED.member_mask().all()
    assert len(CUED.tasks) == len(COLOURS)


def test_single_digits():
    scenes = cued_scenes(DIGITS, 50, 2, distractor=False)
    lit = halves(scenes) > 0
    assert (lit.sum((1, 2)) == 1).all()
    assert lit.any(2)[torch.arange(50), scenes.examples.task].all()
    again = cued_scenes(DIGITS, 50, 2, distractor=False)
    assert torch.equal(scenes.images, again.images)
    assert patches(scenes.images).shape == (50, 48, 4, 8)


def test_a_tint_keeps_the_brightness_and_its_colour():
    """The named channel is the brightness, the other two a part of it; the colour that was there is gone."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    for colour in range(3):
        found = np.asarray(tinted(Image.fromarray(pixels), colour)).astype(int)
        assert (found[:, :, colour] == grey).all()
        for other in {0, 1, 2} - {colour}:
            assert np.abs(found[:, :, other] - 0.35 * grey).max() <= 0.5 + 1e-9


def test_turned_pictures():
    """Upright is the picture itself, sideways has its right edge on top, inverted its first pixel last."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    upright, sideways, inverted = (np.asarray(turned(Image.fromarray(pixels), turn)) for turn in range(len(TURNS)))
    assert (upright == pixels).all()
    assert (sideways[0] == pixels[:, -1]).all()
    assert sideways.shape == (7, 5, 3)
    assert (inverted == pixels[::-1, ::-1]).all()
    assert cued_family("picture", ["cat", "dog"], TURNS).tasks == (
        "the upright picture",
        "the sideways picture",
        "the inverted picture",
    )


def test_pairs_of_pictures():
    """Row 3 i + c is picture i in colour c: one of the pair has the task's colour and shows the answer, the other neither."""
    labels = torch.randint(5, (200,), generator=torch.Generator().manual_seed(0)) + 3
    pairs, examples = cued_pairs(labels, 3000, 1)
    colour, shown = pairs % 3, labels[pairs // 3]
    named = colour == examples.task[:, None]
    assert (named.sum(1) == 1).all()
    assert torch.equal(shown[named], examples.target)
    assert (shown[~named] != examples.target).all()
    assert abs(named[:, 0].double().mean() - 0.5) < 0.03
    for values, number in ((examples.task, 3), (examples.target - 3, 5)):
        assert (torch.bincount(values, minlength=number) / 3000 - 1 / number).abs().max() < 0.03
    assert all(map(torch.equal, cued_pairs(labels, 3000, 1)[0], pairs))
