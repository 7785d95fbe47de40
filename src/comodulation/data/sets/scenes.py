"""Scenes of several real images in which the task names the one to report; the others distract.

The images stand side by side in random order. The backbone sees each of them alone, at its own place, and the head sees
the maps joined to one: its convolutions reach across, and its pooling mixes all of them. So the features of single images
serve, and a network pretrained on single images runs on scenes as it is. A class mask knows that a distractor's name is a
wrong answer; it cannot keep the distractor out of the pooled activity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...tasks import Examples

if TYPE_CHECKING:
    from ..features import FeatureRows


@dataclass(frozen=True)
class SceneFeatures:
    """Features of scenes, by scene number.

    Attributes:
        single: features of single images, ``(C, s, s)`` each.
        members: rows of the images of each scene, in the order in which they stand, int64 ``(S, 1 + n)``.
    """

    single: FeatureRows
    members: Tensor

    @property
    def key(self) -> str:
        return f"{self.single.key} scenes {hashlib.sha256(self.members.numpy().tobytes()).hexdigest()[:16]}"

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.single.shape
        return channels, height, width * self.members.shape[1]

    def rows(self, rows: Tensor | slice) -> Tensor:
        """Joined maps ``(n, C, s, s * images)``."""
        members = self.members[rows]
        maps = self.single.rows(members.flatten()).unflatten(0, members.shape)
        return torch.cat(list(maps.unbind(1)), -1)


def make_scenes(
    single: FeatureRows, parts: list[Examples], distractors: int, seed: int
) -> tuple[SceneFeatures, list[Examples]]:
    """One scene for each example: its image, and others of other tasks from the same part.

    Args:
        single: features of single images.
        parts: examples of one task an image, such as those to train on and those to validate on; images never cross.
        distractors: other images in each scene, each of another task than the one asked for.
        seed: of all choices.

    Returns:
        Features of all scenes, and the examples of each part, whose ``image`` is the number of the scene.

    Raises:
        InputError: no distractor, or a part with images of one task only.
    """
    if distractors < 1:
        raise InputError(f"a scene needs at least one distractor, got {distractors}")
    rng = np.random.default_rng(seed)
    members, examples, start = [], [], 0
    for part in parts:
        tasks, images = part.task.numpy(), part.image.numpy()
        if len(np.unique(tasks)) < 2:
            raise InputError("a distractor must be of another task, but all images are of one")
        chosen = rng.integers(len(part), size=(len(part), distractors))
        while (same := tasks[chosen] == tasks[:, None]).any():
            chosen[same] = rng.integers(len(part), size=int(same.sum()))
        stand = np.concatenate([images[:, None], images[chosen]], 1)
        members.append(rng.permuted(stand, axis=1))
        numbers = torch.arange(start, start + len(part))
        examples.append(Examples(numbers, part.task, part.target))
        start += len(part)
    return SceneFeatures(single, torch.from_numpy(np.concatenate(members))), examples
