"""Batches by length: features in the order of the inputs, whatever else is in a batch, and little padding."""

import pytest
import torch

from comodulation.data.features import Backbone, BackboneSettings, TextSettings, in_batches

TEXTS = [f"{'very ' * (number * 7 % 23)}late, number {number}" for number in range(150)]


@pytest.fixture(scope="module")
def encoder():
    return TextSettings("text").encoder()


def test_features_are_in_the_order_of_the_texts(encoder):
    """Those of each text alone, up to the rounding of float16: neither neighbours nor padding count."""
    prepared = [encoder.preprocess(text) for text in TEXTS]
    found = in_batches(encoder, prepared).features(encoder)
    assert found.shape == (150, *encoder.feature_shape)
    for place in (0, 3, 63, 64, 149):
        alone = in_batches(encoder, prepared[place : place + 1]).features(encoder)[0]
        torch.testing.assert_close(found[place], alone, rtol=2**-10, atol=1e-6)


def test_texts_of_similar_length_share_a_batch(encoder):
    prepared = [encoder.preprocess(text) for text in TEXTS]
    batches = in_batches(encoder, prepared)
    widths = [ids.shape[1] for ids, _ in batches.parts]
    lengths = sorted(map(len, prepared))
    assert widths == [lengths[63], lengths[127], lengths[149]]
    assert [len(part[0]) for part in batches.parts] == [64, 64, 22]
    assert sorted(batches.order.tolist()) == list(range(150))


def test_pictures_stay_in_their_order():
    backbone = Backbone(BackboneSettings("test_resnet", "random", 32))
    (images,) = backbone.example(70)
    batches = in_batches(backbone, list(images))
    assert batches.order is None
    assert torch.equal(torch.cat([part for (part,) in batches.parts]), images)
