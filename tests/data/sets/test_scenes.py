"""Scenes: whose images they hold, what the network sees of them, and that they are the same each time."""

import numpy as np
import pytest
import torch

from comodulation.data.sets.scenes import SceneFeatures, make_scenes
from comodulation.errors import InputError
from comodulation.tasks import Examples


class Maps:
    """Random maps of single images."""

    key, shape = "maps", (5, 2, 3)

    def __init__(self, images=30):
        self.maps = torch.rand(images, *self.shape, generator=torch.Generator().manual_seed(0))

    def rows(self, rows):
        return self.maps[rows]


def part(images, tasks=3):
    """One example an image, tasks in turn."""
    images = torch.tensor(list(images))
    return Examples(images, images % tasks, images % 7)


@pytest.fixture
def parts():
    return [part(range(0, 18)), part(range(18, 30))]


@pytest.mark.parametrize("distractors", [1, 3])
def test_members(parts, distractors):
    """Each scene holds its own image once, others of other tasks, all of the same part."""
    features, examples = make_scenes(Maps(), parts, distractors, 0)
    assert features.members.shape == (30, 1 + distractors)
    seen = set()
    for before, after in zip(parts, examples, strict=True):
        assert torch.equal(before.task, after.task)
        assert torch.equal(before.target, after.target)
        for image, task, scene in zip(before.image.tolist(), before.task.tolist(), after.image.tolist(), strict=True):
            members = features.members[scene].tolist()
            assert members.count(image) == 1
            assert set(members) <= set(before.image.tolist())
            assert all(other % 3 != task for other in members if other != image)
            seen.add(members.index(image))
    assert torch.equal(torch.cat([e.image for e in examples]), torch.arange(30))
    assert seen == set(range(1 + distractors))  # the image stands in every place


def test_joined_maps_are_the_single_maps_in_order(parts):
    maps = Maps()
    features, _ = make_scenes(maps, parts, 2, 0)
    assert features.shape == (5, 2, 9)
    for rows in (torch.tensor([4, 0, 29]), slice(3, 6)):
        joined = features.rows(rows)
        members = features.members[rows]
        assert joined.shape == (3, 5, 2, 9)
        for scene, images in zip(joined, members, strict=True):
            assert torch.equal(scene, torch.cat([maps.maps[image] for image in images], -1))


def test_every_other_image_can_distract(parts):
    """Distractors are drawn evenly: 1,000 draws over 12 images of other tasks."""
    many = Examples(
        torch.zeros(1000, dtype=torch.int64), torch.zeros(1000, dtype=torch.int64), torch.zeros(1000).long()
    )
    others = part(range(1, 13), tasks=2)
    whole = Examples(
        *(torch.cat([getattr(many, n), getattr(others, n) + (n == "task")]) for n in ("image", "task", "target"))
    )
    features, _ = make_scenes(Maps(), [whole], 1, 0)
    drawn = features.members[:1000].sum(1)
    counts = np.bincount(drawn.numpy(), minlength=13)[1:]
    assert counts.sum() == 1000
    assert counts.min() > 1000 / 12 - 5 * np.sqrt(1000 / 12)  # five standard deviations


def test_the_seed_decides(parts):
    first, again, other = (make_scenes(Maps(), parts, 1, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first.members, again.members)
    assert first.key == again.key
    assert not torch.equal(first.members, other.members)
    assert first.key != other.key


def test_the_key_depends_on_the_single_features_and_on_who_stands_where():
    maps, other = Maps(), Maps()
    other.key = "other maps"
    members = torch.tensor([[0, 1], [2, 3]])
    keys = {SceneFeatures(single, order).key for single in (maps, other) for order in (members, members.flip(1))}
    assert len(keys) == 4


@pytest.mark.parametrize("distractors", [0, -1])
def test_no_distractor(parts, distractors):
    with pytest.raises(InputError, match=f"at least one distractor, got {distractors}"):
        make_scenes(Maps(), parts, distractors, 0)


@pytest.mark.parametrize("images", [range(0, 30, 3), []], ids=["one task", "empty"])
def test_nothing_to_distract_with(images):
    with pytest.raises(InputError, match="all images are of one"):
        make_scenes(Maps(), [part(range(9)), part(images)], 1, 0)
