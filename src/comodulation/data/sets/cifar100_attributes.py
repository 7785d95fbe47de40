"""CIFAR-100 as a family of binary tasks: forty attributes of its hundred classes.

The values are in ``cifar100_attributes.csv``, one row a class; what each attribute means, edge cases included, is here.
They are the authors' own judgements of what is typical and visible, not annotations of images: an image has the attributes
of its class. docs/attributes.md says what such tasks can and cannot measure.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from ...errors import InputError, choose
from ...tasks import TaskFamily


@dataclass(frozen=True)
class Attribute:
    """A binary attribute of classes: its name, its group, and one sentence that settles edge cases."""

    name: str
    group: str
    definition: str


_GROUPS = {
    "covering": {
        "furry": (
            "A mammal whose body is mostly covered with hair; quills count, the hair of a human head, an elephant's "
            "bristles and the fuzz of insects do not."
        ),
        "scaly": (
            "An animal with scales or scutes large enough to see; the skin of sharks and rays, which looks smooth, "
            "does not count; dinosaurs as usually pictured do."
        ),
        "hard_shell": (
            "An animal in a rigid shell, carapace or wing cases; the leathery wings of a cockroach do not count."
        ),
        "bare_skin": "An animal or person whose skin looks bare: no fur, visible scales, shell or jointed armour.",
    },
    "colour": {
        "green": (
            "Green, olive included, is the colour that it is usually pictured in: a tank in camouflage paint, a green "
            "pear, a plain of grass."
        ),
        "red_orange_or_yellow": (
            "Red, orange or yellow is the colour that it is usually pictured in: goldfish, red apple, cooked crab and "
            "lobster; a lion's tan is not yellow."
        ),
        "brown_or_tan": (
            "Brown or tan is the colour that it is usually pictured in: furniture of wood, a golden hamster; where "
            "black, grey or white is as common (cattle, mouse, rabbit), it does not count."
        ),
        "grey_or_silver": (
            "Grey or silver is the colour that it is usually pictured in: stone, asphalt, tin, grey fur or skin; "
            "mountains, of many colours, do not count."
        ),
        "striped_or_spotted": (
            "Stripes, rings or spots of contrasting colour mark practically every individual; classes of which only "
            "some kinds are marked (snake, caterpillar, cattle) do not count."
        ),
    },
    "body": {
        "four_legs": (
            "An animal that normally walks on four legs; kangaroos, chimpanzees, dinosaurs (many went on two), seals "
            "and crawling babies do not count, turtles do."
        ),
        "six_or_more_legs": "An animal with six or more legs, claws included; a caterpillar has six and its prolegs.",
        "limbless": "An animal without legs or arms; fins, flippers and a snail's foot are not limbs.",
        "tail": (
            "A vertebrate with a tail or tail fin that is plain to see from the side; stubs and tufts (bear, hamster, "
            "rabbit, seal, turtle) and a snake's end do not count."
        ),
        "has_legs": "Has legs, of an animal, a person or a piece of furniture; a wardrobe stands on its base.",
    },
    "size_and_shape": {
        "heavier_than_person": (
            "A typical grown or full-size one weighs over 100 kg; seals and motorcycles count, as do landscapes; "
            "leopards, wolves, furniture and push mowers do not."
        ),
        "fits_in_hand": (
            "A grown person can hold a typical whole one in one hand, a flower by its stem, a telephone by its "
            "handset; squirrels, crabs and keyboards do not count."
        ),
        "taller_than_house": (
            "Usually rises more than 8 m, the height of a house of two storeys, from its foot to its top; houses "
            "themselves and dinosaurs do not count."
        ),
        "elongated": (
            "At least four times as long or high as it is wide, tail included; legs, stems and fish do not count."
        ),
        "boxy": (
            "Made up mainly of flat rectangular faces, such as a bus or a table top; castles with their towers, "
            "cushioned couches and pickup trucks do not count."
        ),
    },
    "make": {
        "man_made": "Manufactured or built by people; grown fruit and bred animals are not.",
        "metal": (
            "Its body is mainly of metal; bridges, which are as often of stone or concrete, and appliances in plastic "
            "do not count."
        ),
        "wooden": (
            "Consists mainly of wood, living or worked; beds and couches show cloth, and houses are of many materials."
        ),
        "glass_parts": (
            "Is of glass or shows panes, a screen or a bulb of it; cups and bowls are taken as pottery, castles as "
            "without panes, telephones as without a screen."
        ),
        "wheels": "Runs on wheels; the road wheels in a tank's tracks count.",
        "powered": "Works by electricity or fuel, batteries included; a bicycle does not.",
    },
    "habitat": {
        "lives_in_water": "An animal that spends much of its life in water, fresh or salt.",
        "of_the_sea": (
            "Lives in salt water, or is the sea itself; otters, turtles and trout, mostly of fresh water, and aquarium "
            "fish do not count."
        ),
        "indoors": (
            "Is normally kept or used inside a building; orchids, food, and mice and cockroaches that come uninvited "
            "do not count."
        ),
        "of_the_woods": (
            "Lives or grows mainly in woods or jungle, or is one; beaver, willow and palm, of waters and shores, and "
            "skunk, shrew and rabbit, of open land, do not count."
        ),
        "in_town_streets": (
            "Stands or drives in the streets of an ordinary modern town; people, lamps of a household, castles and "
            "railway trains do not count."
        ),
        "in_gardens": (
            "Belongs to an ordinary garden with lawn and flower beds; orchids, trees, fruit and visiting squirrels or "
            "rabbits do not count."
        ),
    },
    "use": {
        "eaten": (
            "It or its meat is ordinary supermarket food in Europe and North America; rabbits, snails, sharks and "
            "seeds of sunflowers do not count."
        ),
        "kept_as_pet": "Sold as a pet by an ordinary pet shop; spiders, insects and tamed wild mammals do not count.",
        "carries_people": (
            "People commonly ride on it or in it; rockets, mostly without a crew, mowers, mostly pushed, and cattle do "
            "not count."
        ),
        "people_inside": (
            "Made with an enclosed space in which people are; tractors, often without a cab, bridges and rockets do "
            "not count."
        ),
    },
    "life": {
        "animal": "An animal, people included, living or extinct.",
        "plant": (
            "A plant, a part of one such as its fruit, or a stand of them; a mushroom is a fungus, and a plain counts "
            "as land."
        ),
        "young": "Not yet grown up: children and larvae.",
        "eats_animals": (
            "An animal that lives mainly on other animals, insects and krill included; omnivores (bear, raccoon, "
            "possum, skunk, crab, lobster, people) and dinosaurs, of every diet, do not count."
        ),
        "eats_plants": (
            "An animal that lives mainly on plants, nectar, seeds and fruit included; beetles and dinosaurs, of every "
            "diet, do not count."
        ),
    },
}

CIFAR100_ATTRIBUTES = tuple(
    Attribute(name, group, definition) for group, own in _GROUPS.items() for name, definition in own.items()
)


def attribute_groups() -> dict[str, tuple[str, ...]]:
    """Names of the attributes of each of the eight groups, in order.

    >>> attribute_groups()["covering"]
    ('furry', 'scaly', 'hard_shell', 'bare_skin')
    """
    return {group: tuple(own) for group, own in _GROUPS.items()}


def attribute_family(names: Sequence[str] | None = None) -> TaskFamily:
    """One binary task per attribute, all forty by default. Raises InputError for an unknown name."""
    return TaskFamily.from_attributes(_chosen(names))


def cifar100_classes() -> tuple[str, ...]:
    """The hundred fine classes in the order of the data set's labels, which is that of the alphabet."""
    return _table()[0]


def class_attributes(names: Sequence[str] | None = None) -> np.ndarray:
    """Attributes of the classes, int64 ``(100, A)`` of 0 and 1, rows as ``cifar100_classes``, columns as ``names``.

    Raises:
        InputError: an unknown attribute, with the nearest known one.
    """
    known = [attribute.name for attribute in CIFAR100_ATTRIBUTES]
    return _table()[1][:, [known.index(name) for name in _chosen(names)]]


def attribute_columns(
    fine_labels: np.ndarray, names: Sequence[str] | None = None, *, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Attributes of images, from the fine label of each.

    Args:
        fine_labels: integers ``(N,)``, -1 where missing.
        names: attributes, A of them; all forty by default.
        classes: what the labels count, as ``label_names`` gives it; ``cifar100_classes`` by default.

    Returns:
        int64 ``(N, A)`` of 0 and 1, -1 in the rows of missing labels. Its transpose is what ``TaskFamily.examples`` takes.

    Raises:
        InputError: labels that are not integers of one dimension, one out of range, an unknown class or attribute.

    >>> attribute_columns(np.array([0, 8, -1]), ["eaten", "wheels"]).tolist()  # apple, bicycle, missing
    [[1, 0], [0, 1], [-1, -1]]
    """
    labels = np.asarray(fine_labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"fine labels of shape {labels.shape} and type {labels.dtype}; expected integers (N,)")
    order = cifar100_classes()
    classes = order if classes is None else classes
    rows = np.array([order.index(choose(name, order, "CIFAR-100 class")) for name in classes], np.int64)
    wrong = np.flatnonzero((labels < -1) | (labels >= len(rows)))
    if len(wrong):
        raise InputError(
            f"row {wrong[0]}: fine label {labels[wrong[0]]} is out of range, expected 0 to {len(rows) - 1}, or -1"
        )
    # Label -1 reads the last row, of missing values.
    table = np.concatenate([class_attributes(names)[rows], np.full((1, len(_chosen(names))), -1)])
    return table[labels]


def _chosen(names: Sequence[str] | None) -> list[str]:
    known = [attribute.name for attribute in CIFAR100_ATTRIBUTES]
    return known if names is None else [choose(name, known, "attribute") for name in names]


@cache
def _table() -> tuple[tuple[str, ...], np.ndarray]:
    """Classes, and their attributes ``(100, 40)`` in the order of CIFAR100_ATTRIBUTES."""
    text = resources.files(__package__).joinpath("cifar100_attributes.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    values = [[int(row[attribute.name]) for attribute in CIFAR100_ATTRIBUTES] for row in rows]
    table = np.array(values, np.int64)
    table.flags.writeable = False
    return tuple(row["class"] for row in rows), table
