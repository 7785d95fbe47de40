"""The attributes of CIFAR-100: consistent with one another and with the superclasses, and turned into tasks."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from comodulation.data.labels import class_column, label_names
from comodulation.data.opening import open_split
from comodulation.data.sets.cifar100_attributes import (
    CIFAR100_ATTRIBUTES,
    attribute_columns,
    attribute_family,
    attribute_groups,
    cifar100_classes,
    class_attributes,
)
from comodulation.errors import InputError

NAMES = [attribute.name for attribute in CIFAR100_ATTRIBUTES]
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
MEMBERS = {name: set(text.split()) for name, text in SUPERCLASSES.items()}
HOLDERS = {
    name: {c for c, v in zip(cifar100_classes(), class_attributes([name])[:, 0], strict=True) if v} for name in NAMES
}
DATA = Path(__file__).parents[4] / "shared" / "data" / "cifar100"

# What every class of a superclass has, and what none has.
OF_SUPERCLASSES = {
    "aquatic_mammals": (
        "animal lives_in_water",
        "scaly plant man_made metal wheels indoors eaten six_or_more_legs young",
    ),
    "fish": ("animal lives_in_water limbless tail", "furry has_legs plant man_made wheels carries_people hard_shell"),
    "flowers": (
        "plant fits_in_hand",
        "animal man_made furry has_legs heavier_than_person wheels powered lives_in_water metal",
    ),
    "food_containers": (
        "man_made indoors fits_in_hand",
        "animal plant powered wheels has_legs carries_people eaten wooden",
    ),
    "fruit_and_vegetables": (
        "eaten fits_in_hand",
        "animal man_made wheels has_legs furry heavier_than_person metal indoors",
    ),
    "household_electrical_devices": (
        "man_made indoors powered",
        "animal plant wheels furry heavier_than_person eaten has_legs",
    ),
    "household_furniture": ("man_made indoors", "animal plant powered wheels metal fits_in_hand carries_people eaten"),
    "insects": (
        "animal six_or_more_legs has_legs fits_in_hand",
        "furry four_legs plant man_made wheels limbless tail eaten",
    ),
    "large_carnivores": (
        "animal furry four_legs has_legs",
        "plant man_made lives_in_water indoors fits_in_hand eaten eats_plants",
    ),
    "large_man-made_outdoor_things": (
        "man_made heavier_than_person",
        "animal plant wheels powered indoors fits_in_hand has_legs",
    ),
    "large_natural_outdoor_scenes": (
        "heavier_than_person",
        "animal man_made wheels powered indoors fits_in_hand has_legs metal",
    ),
    "large_omnivores_and_herbivores": (
        "animal has_legs",
        "plant man_made scaly lives_in_water indoors fits_in_hand eats_animals",
    ),
    "medium_mammals": (
        "animal furry four_legs tail has_legs",
        "plant man_made lives_in_water heavier_than_person eaten indoors",
    ),
    "non-insect_invertebrates": (
        "animal",
        "furry plant man_made four_legs tail heavier_than_person wheels kept_as_pet",
    ),
    "people": (
        "animal bare_skin has_legs",
        "furry plant man_made four_legs tail wheels eaten carries_people lives_in_water",
    ),
    "reptiles": ("animal scaly", "furry plant man_made bare_skin wheels eaten six_or_more_legs carries_people"),
    "small_mammals": (
        "animal furry four_legs has_legs",
        "plant man_made lives_in_water heavier_than_person scaly eaten",
    ),
    "trees": (
        "plant wooden taller_than_house heavier_than_person green",
        "animal man_made powered wheels indoors fits_in_hand",
    ),
    "vehicles_1": (
        "man_made metal wheels carries_people",
        "animal plant furry has_legs indoors eaten fits_in_hand lives_in_water",
    ),
    "vehicles_2": ("man_made metal powered", "animal plant furry has_legs indoors eaten fits_in_hand lives_in_water"),
}
# Whatever has the first has the second.
IMPLIES = """furry animal; scaly animal; hard_shell animal; bare_skin animal; four_legs animal; six_or_more_legs animal;
limbless animal; tail animal; lives_in_water animal; kept_as_pet animal; young animal; eats_animals animal; eats_plants animal;
four_legs has_legs; six_or_more_legs has_legs; metal man_made; glass_parts man_made; wheels man_made; wheels metal;
powered man_made; boxy man_made; people_inside man_made; people_inside heavier_than_person;
taller_than_house heavier_than_person; in_town_streets man_made"""
# Nothing has both.
EXCLUDES = """furry scaly; furry bare_skin; furry hard_shell; scaly bare_skin; hard_shell bare_skin;
animal plant; animal man_made; plant man_made; metal wooden; has_legs limbless; four_legs six_or_more_legs; limbless four_legs;
heavier_than_person fits_in_hand; taller_than_house fits_in_hand; eats_animals eats_plants; green brown_or_tan;
green grey_or_silver; green red_orange_or_yellow; brown_or_tan grey_or_silver; brown_or_tan red_orange_or_yellow;
grey_or_silver red_orange_or_yellow; indoors of_the_woods; indoors in_town_streets; indoors in_gardens; of_the_woods in_gardens;
in_town_streets in_gardens; of_the_woods in_town_streets; plant wheels; eaten man_made; furry powered; wheels wooden;
indoors of_the_sea; indoors heavier_than_person; tail hard_shell; young man_made"""


def pairs(text):
    return [tuple(pair.split()) for pair in text.split(";")]


# ---- the table ----


def test_classes_and_groups():
    assert cifar100_classes() == tuple(sorted(set().union(*MEMBERS.values())))
    assert len(cifar100_classes()) == 100
    assert class_attributes().shape == (100, 40)
    assert set(np.unique(class_attributes())) == {0, 1}
    assert list(attribute_groups()) == [
        "covering",
        "colour",
        "body",
        "size_and_shape",
        "make",
        "habitat",
        "use",
        "life",
    ]
    assert list(itertools.chain(*attribute_groups().values())) == NAMES
    assert all(4 <= len(names) <= 6 for names in attribute_groups().values())


def test_definitions_are_one_sentence():
    for attribute in CIFAR100_ATTRIBUTES:
        assert attribute.definition.endswith(".")
        assert ". " not in attribute.definition
        assert len(attribute.definition) > 25
    assert len({attribute.definition for attribute in CIFAR100_ATTRIBUTES}) == 40


def test_every_attribute_holds_for_some_classes_and_not_for_others():
    assert all(4 <= len(classes) <= 70 for classes in HOLDERS.values())
    assert (class_attributes().sum(1) >= 2).all()


def test_no_attribute_repeats_another():
    """Nor its complement; nor one superclass, or all but one."""
    table = class_attributes().T
    for a, b in itertools.combinations(range(40), 2):
        assert not np.array_equal(table[a], table[b])
        assert not np.array_equal(table[a], 1 - table[b])
    everything = set(cifar100_classes())
    for name, members in itertools.product(NAMES, MEMBERS.values()):
        assert HOLDERS[name] not in (members, everything - members)


def test_attributes_cut_across_superclasses():
    """All but two, ``animal`` and ``man_made``, hold for a part of some superclass; most for parts of several."""
    parts = {
        name: sum(0 < len(classes & members) < len(members) for members in MEMBERS.values())
        for name, classes in HOLDERS.items()
    }
    assert [name for name in NAMES if not parts[name]] == ["man_made", "animal"]
    assert sum(count >= 2 for count in parts.values()) >= 30


@pytest.mark.parametrize("superclass", MEMBERS)
def test_superclasses_have_what_they_must(superclass):
    every, none = (text.split() for text in OF_SUPERCLASSES[superclass])
    for name in every:
        assert MEMBERS[superclass] <= HOLDERS[name], name
    for name in none:
        assert not MEMBERS[superclass] & HOLDERS[name], name


@pytest.mark.parametrize(("a", "b"), pairs(IMPLIES))
def test_implications(a, b):
    assert HOLDERS[a] <= HOLDERS[b]


@pytest.mark.parametrize(("a", "b"), pairs(EXCLUDES))
def test_exclusions(a, b):
    assert not HOLDERS[a] & HOLDERS[b]


def test_legs():
    """Every animal has legs or is limbless; beside animals, only furniture has legs."""
    furniture = MEMBERS["household_furniture"]
    assert HOLDERS["has_legs"] | HOLDERS["limbless"] == HOLDERS["animal"] | (furniture - {"wardrobe"})


# ---- columns and tasks ----


def test_columns_of_images():
    labels = np.array([99, -1, 0, 8, 8])  # worm, missing, apple, bicycle twice
    table = attribute_columns(labels)
    assert (table.shape, table.dtype) == ((5, 40), np.int64)
    assert (table[1] == -1).all()
    assert np.array_equal(table[[0, 2, 3, 4]], class_attributes()[[99, 0, 8, 8]])
    assert attribute_columns(labels, ["wheels", "animal"]).tolist() == [[0, 1], [-1, -1], [0, 0], [1, 0], [1, 0]]
    assert attribute_columns(np.array([], np.int64)).shape == (0, 40)
    table[:] = 7
    assert class_attributes().max() == 1


def test_labels_that_count_other_names():
    """A data set of some classes, in another order."""
    table = attribute_columns(np.array([0, 1, 0]), ["animal", "wheels"], classes=["wolf", "bus"])
    assert table.tolist() == [[1, 0], [0, 1], [1, 0]]


def test_columns_that_cannot_be_made():
    with pytest.raises(InputError, match="row 1: fine label 100 is out of range, expected 0 to 99, or -1"):
        attribute_columns(np.array([3, 100]))
    with pytest.raises(InputError, match="row 0: fine label -2"):
        attribute_columns(np.array([-2]))
    with pytest.raises(InputError, match=r"shape \(2, 1\) and type int64; expected integers \(N,\)"):
        attribute_columns(np.array([[3], [4]]))
    with pytest.raises(InputError, match="type float64"):
        attribute_columns(np.array([3.0]))
    with pytest.raises(InputError, match="unknown attribute 'wheel'; did you mean 'wheels'"):
        attribute_columns(np.array([3]), ["wheel"])
    with pytest.raises(InputError, match="unknown CIFAR-100 class 'wulf'; did you mean 'wolf'"):
        attribute_columns(np.array([0]), classes=["wulf"])


def test_a_family_of_binary_tasks():
    family = attribute_family()
    assert (family.kind, family.num_tasks, family.tasks) == ("binary", 40, tuple(NAMES))
    examples = family.examples(list(attribute_columns(np.array([0, -1, 8])).T))
    assert len(examples) == 80
    assert set(examples.image.tolist()) == {0, 2}
    assert examples.target.tolist() == [*class_attributes()[0], *class_attributes()[8]]
    assert attribute_family(["wheels", "furry"]).tasks == ("wheels", "furry")
    with pytest.raises(InputError, match="unknown attribute 'fury'; did you mean 'furry'"):
        attribute_family(["fury"])


@pytest.mark.skipif(not DATA.is_dir(), reason="CIFAR-100 is not beside this checkout")
def test_on_the_data_set():
    """Names and order of the classes, the superclasses above, and prevalence over images: that over classes."""
    split = open_split(str(DATA), "test")
    names = label_names(split, "fine_label")
    assert tuple(names) == cifar100_classes()
    fine, coarse = class_column(split, "fine_label", names), split.column("coarse_label")
    superclasses = label_names(split, "coarse_label")
    assert {(names[f], superclasses[c]) for f, c in zip(fine, coarse, strict=True)} == {
        (member, superclass) for superclass, members in MEMBERS.items() for member in members
    }
    assert len(set(Counter(fine.tolist()).values())) == 1
    prevalence = attribute_columns(fine, classes=names).mean(0)
    assert np.allclose(prevalence, class_attributes().mean(0))


def test_the_documentation_lists_every_attribute():
    """docs/attributes.md: group, name, prevalence and definition, as they are in the package."""
    text = (Path(__file__).parents[3] / "docs" / "attributes.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "%" in line]
    assert rows == [
        f"| {attribute.group} | `{attribute.name}` | {len(HOLDERS[attribute.name])}% | {attribute.definition} |"
        for attribute in CIFAR100_ATTRIBUTES
    ]
