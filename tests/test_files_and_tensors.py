"""Adapters and files on disk: what is saved is what is loaded, and nothing else is, and nothing is half-written."""

import errno
import hashlib
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from comodulation.errors import InputError, RunError
from comodulation.files import writable, write_bytes, write_json
from comodulation.networks import ComodulatedHead, load_adapter, save_adapter
from comodulation.networks.methods import WITH_LAYERS, make_method
from comodulation.tasks import TaskFamily
from comodulation.tensors import read_tensors, write_tensors
from support.synthetic import snapshot

FAMILY = TaskFamily("classes", ("pets", "birds"), ("cat", "dog", "owl", "gull"), ((0, 1), (2, 3)))
FACES = TaskFamily.from_attributes(["smiling", "young", "glasses"])
LAYERS = {"in_channels": 6, "encoder_channels": 8, "decoder_channels": 10, "hidden": 5, "kernel_size": 1}
FEATURES = torch.rand(7, 6, 2, 2, generator=torch.Generator().manual_seed(0))


def new_head(family=FAMILY, *, seed=0, **options):
    """A head whose layers are those of `seed`, with a controller at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"num_outputs": family.num_outputs, "num_tasks": family.num_tasks}
        return ComodulatedHead(**{**LAYERS, **sizes, **options}).eval()


def new_method(name="comodulation", family=FAMILY, *, readout="open", **options):
    return make_method(name, new_head(family, **{**WITH_LAYERS[name].modulation, **options}), family, readout).eval()


def learn(adapted, seed=1):
    """Stand in for training: what is learned gets other values, and gains are stored."""
    head = getattr(adapted, "head", adapted)
    parameters = adapted.learnable() if hasattr(adapted, "learnable") else head.controller.parameters()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    tasks = torch.arange(len(FEATURES)) % head.num_tasks
    head.store_task_gains([(head.encode(FEATURES).detach(), tasks)])
    return adapted


def answers(adapted):
    """Predictions of a method, or logits of a head, for every input under every task."""
    head = getattr(adapted, "head", adapted)
    results = []
    for task in range(head.num_tasks):
        tasks, ids = torch.full((len(FEATURES),), task), torch.arange(len(FEATURES))
        with torch.no_grad():
            if head is adapted:
                results.append(head(FEATURES, tasks, sample_ids=ids))
            else:
                results.append(adapted.log_probabilities(adapted.prepare(FEATURES), tasks, ids))
    return torch.cat(results)


def state(adapted):
    """Everything of a network that loading may change."""
    return {name: tensor.clone() for name, tensor in adapted.state_dict().items()}


def assert_refused(adapted, path, message, **options):
    """Loading raises one clear line and changes nothing."""
    before = state(adapted)
    with pytest.raises(InputError, match=message) as error:
        load_adapter(adapted, path, **options)
    assert "\n" not in str(error.value)
    after = state(adapted)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# ---- saved equals loaded ----


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (name, family)
        for name, method in WITH_LAYERS.items()
        for family in (FAMILY, FACES)
        if family.kind in method.kinds
    ],
)
def test_a_saved_method_is_the_loaded_one(name, family, tmp_path):
    """Bit for bit, for every method and kind of family; the header says what it is."""
    method = learn(new_method(name, family))
    save_adapter(method, tmp_path / "a.safetensors", backbone="abc")
    fresh = new_method(name, family)
    assert method.num_learnable() == 0 or not torch.equal(answers(fresh), answers(method))
    metadata = load_adapter(fresh, tmp_path / "a.safetensors", backbone="abc")
    assert torch.equal(answers(fresh), answers(method))
    assert (metadata["method"], metadata["backbone"], metadata["schema"]) == (name, "abc", 1)
    assert TaskFamily.from_json(metadata["family"]) == family
    assert set(metadata["versions"]) == {"comodulation", "torch", "safetensors"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"level": "input"},
        {"link": "rectified", "normalizer": "correlation", "estimator": "quadrature"},
        {"encoder": "stochastic", "num_samples": 4},
        {"residual": False},
        {"controller": {"hidden": (4,), "embedding_size": 3}},
        {"controller": {"task_vectors": torch.eye(2)}},
    ],
)
def test_a_saved_head_is_the_loaded_one(options, tmp_path):
    head = learn(new_head(**options))
    save_adapter(head, tmp_path / "a.safetensors", family=FAMILY)
    fresh = new_head(**options)
    assert load_adapter(fresh, tmp_path / "a.safetensors")["method"] == "head"
    assert torch.equal(answers(fresh), answers(head))
    if not isinstance(options.get("controller"), dict):
        save_adapter(learn(new_method(**options)), tmp_path / "m.safetensors")
        method = new_method(**options)
        load_adapter(method, tmp_path / "m.safetensors")
        torch.testing.assert_close(answers(method), answers(head).log_softmax(-1))


def test_loading_replaces_what_was_learned_before(tmp_path):
    """An adapter without stored gains clears those of the one before it."""
    head = new_head()
    save_adapter(head, tmp_path / "untrained.safetensors")
    expected = answers(head)
    learn(head)
    load_adapter(head, tmp_path / "untrained.safetensors")
    assert head.task_gains is None
    assert torch.equal(answers(head), expected)


def test_an_adapter_is_a_few_kilobytes_a_task(tmp_path):
    """At full size, 256 encoder and decoder neurons: 2 KiB a task, and a header of a few more."""
    names = tuple(f"task {number}" for number in range(20))
    family = TaskFamily("classes", names, tuple(map(str, range(100))), tuple((5 * k, 5 * k + 1) for k in range(20)))
    head = ComodulatedHead(320, 100, 20)
    head.task_gains = torch.ones(20, 256)
    save_adapter(make_method("comodulation", head, family), tmp_path / "a.safetensors", backbone="0" * 64)
    size = (tmp_path / "a.safetensors").stat().st_size
    assert 20 * 2 * 256 * 4 <= size <= 20 * 2 * 256 * 4 + 4096


# ---- what is refused, and changes nothing ----


@pytest.fixture
def adapter(tmp_path):
    save_adapter(learn(new_method()), tmp_path / "a.safetensors", backbone="abc")
    return tmp_path / "a.safetensors"


@pytest.fixture
def head_adapter(tmp_path):
    save_adapter(learn(new_head()), tmp_path / "h.safetensors", family=FAMILY, backbone="abc")
    return tmp_path / "h.safetensors"


BIRDS = replace(FAMILY, tasks=("birds", "pets"))
ONE = TaskFamily("classes", ("pets",), FAMILY.outputs, ((0, 1),))
OTHERS = {
    "head": ({"seed": 5}, r"belongs to another head: it has '[0-9a-f]+'?.*, here is"),
    "residual": ({"residual": False}, "belongs to another residual: it has True, here is False"),
    "sigma": ({"std": 0.6}, r"belongs to another modulation\.std: it has 0\.3, here is 0\.6"),
    "level": ({"level": "input"}, r"belongs to another modulation\.level: it has 'task', here is 'input'"),
    "width": ({"encoder_channels": 9}, "belongs to another head"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_adapter_of_another_network(other, adapter, head_adapter):
    options, message = OTHERS[other]
    assert_refused(learn(new_method(**options), 9), adapter, message)
    assert_refused(learn(new_head(**options), 9), head_adapter, message)


def test_an_adapter_of_another_backbone(adapter, head_adapter):
    message = "belongs to another backbone: it has 'abc', here is 'abd'"
    assert_refused(new_method(), adapter, message, backbone="abd")
    assert_refused(new_head(), head_adapter, message, backbone="abd")
    load_adapter(new_method(), adapter)  # without a backbone at hand, the head alone decides


def test_an_adapter_of_another_family_or_method(adapter, head_adapter):
    assert_refused(new_method(family=BIRDS), adapter, r"belongs to another family\.tasks: it has \['pets', 'birds'\]")
    assert_refused(new_method(family=ONE), adapter, "belongs to another num_tasks: it has 2, here is 1")
    assert_refused(new_head(ONE), head_adapter, "belongs to another num_tasks")
    assert_refused(new_method("attention"), adapter, "another method: it has 'comodulation', here is 'attention'")
    assert_refused(new_head(), adapter, "another method: it has 'comodulation', here is 'head'")
    assert_refused(new_method(), head_adapter, "another method: it has 'head', here is 'comodulation'")


def rewrite(path, tensors=None, **metadata):
    """Write an adapter again with some tensors (None: removed) and header fields changed."""
    own, header = read_tensors(path)
    own.update(tensors or {})
    text = {key: json.dumps(value) for key, value in {**header, **metadata}.items() if value is not None}
    save_file({name: tensor for name, tensor in own.items() if tensor is not None}, path, text)


GAINS, CONTROLLER = "task_gains", "controller.embedding.weight"
TENSORS = {
    "gains missing": ({GAINS: None}, r"holds no head\.task_gains"),
    "controller missing": ({CONTROLLER: None}, rf"missing \['(head\.)?{CONTROLLER}'\]"),
    "unknown": ({"extra": torch.ones(2)}, r"unknown \['(head\.)?extra'\]"),
    "misshapen": ({CONTROLLER: torch.ones(2, 9)}, r"\(2, 9\), expected .* \(2, 8\)"),
    "gains misshapen": ({GAINS: torch.ones(3, 10)}, r"\(3, 10\), expected .* \(2, 10\)"),
    "another type": ({CONTROLLER: torch.ones(2, 8).double()}, r"float64 .*, expected torch\.float32"),
    "NaN": ({CONTROLLER: torch.full((2, 8), torch.nan)}, "holds values that are not finite"),
    "infinite gains": ({GAINS: torch.full((2, 10), torch.inf)}, "holds values that are not finite"),
}


@pytest.mark.parametrize("learned", [True, False], ids=["learned", "fresh"])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit(name, learned, adapter, head_adapter):
    """Refused whole, whichever tensor it is, into a network with stored gains as into one without."""
    tensors, message = TENSORS[name]
    rewrite(adapter, {f"head.{key}": value for key, value in tensors.items()})
    assert_refused(learn(new_method(), 9) if learned else new_method(), adapter, message)
    if name != "gains missing":  # a head may have been saved before gains were stored
        rewrite(head_adapter, tensors)
        assert_refused(learn(new_head(), 9) if learned else new_head(), head_adapter, message)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"schema": 2}, "has schema 2, this release reads up to 1; upgrade comodulation"),
        ({"schema": None}, "is not an adapter: its header has no schema version"),
        ({"schema": "1"}, "is not an adapter"),
        ({"schema": True}, "is not an adapter"),
        ({"schema": 0}, "is not an adapter"),
        ({"modulation": {}}, "belongs to another modulation"),
        ({"modulation": 3}, "belongs to another modulation"),
        ({"method": None}, "belongs to another method"),
        ({"head": [1]}, "belongs to another head"),
        ({"family": {"kind": 3}}, "belongs to another family"),
    ],
)
def test_headers_that_do_not_fit(metadata, message, adapter, head_adapter):
    for path, adapted in ((adapter, new_method()), (head_adapter, new_head())):
        if "family" in metadata and adapted.__class__ is ComodulatedHead:
            continue  # a head has no names of tasks to compare
        rewrite(path, **metadata)
        assert_refused(adapted, path, message)


class Exploit:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda good: good[: len(good) // 2], "not a readable safetensors file"),
        (lambda good: good[:4], "not a readable safetensors file"),
        (lambda good: b"", "not a readable safetensors file"),
        (lambda good: pickle.dumps(Exploit()), "not a readable safetensors file"),
        (lambda good: (1 << 62).to_bytes(8, "little") + good[8:], "not a readable safetensors file"),
    ],
)
def test_files_that_are_no_adapters(content, message, adapter):
    adapter.write_bytes(content(adapter.read_bytes()))
    assert_refused(new_method(), adapter, message)
    assert_refused(new_head(), adapter, message)


def test_other_peoples_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    assert_refused(new_method(), path, r"was not written by comodulation: its header holds \{'format': 'pt'\}")
    save_file({"weight": torch.ones(2)}, path, {"format": "[" * 100_000})
    assert_refused(new_method(), path, "was not written by comodulation")
    save_file({"weight": torch.ones(2)}, path)
    assert_refused(new_method(), path, "is not an adapter: its header has no schema version")
    assert_refused(new_method(), tmp_path / "none.safetensors", "no such file")
    assert_refused(new_method(), tmp_path, "no such file")


# ---- nothing half-written ----


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A disk that is full at any step leaves the old file, and no partial one beside it."""
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    before = snapshot(tmp_path)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(RunError, match=r"cannot write .*file\.json: No space left on device"):
                write_json(path, {"a": 2})
        assert snapshot(tmp_path) == before
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_a_file_and_its_name_reach_the_disk_in_order(tmp_path, monkeypatch):
    """The content before the name, the name before whatever is written next: what follows a file is never there without it."""
    path, seen = tmp_path / "file.json", []
    real = os.fsync

    def watched(handle):
        at = os.fstat(handle)
        folder = os.path.samestat(at, os.stat(tmp_path))
        seen.append(("folder" if folder else at.st_size, path.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_bytes(path, b"four")
    assert seen == [(4, False), ("folder", True)]

    def without(handle):
        if os.path.samestat(os.fstat(handle), os.stat(tmp_path)):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", without)  # a file system that keeps names in its own order
    write_bytes(path, b"others")
    assert path.read_bytes() == b"others"


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("kept")
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match="cannot write"):
        write_bytes(tmp_path / "file" / "inside", b"x")
    with pytest.raises(RunError, match="cannot write"):
        save_adapter(new_head(), tmp_path / "nowhere" / "a.safetensors")
    for folder in (tmp_path / "file", tmp_path / "file" / "a" / "b", Path("/proc/nowhere/a"), tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot write to"), writable(folder):
            pytest.fail("this folder cannot be made")
    assert snapshot(tmp_path) == before


def test_folders_made_for_bad_input_go_again(tmp_path):
    """Those that are still empty; what fails on the way, rather than being bad input, leaves its folder to be resumed."""

    def use(folder, error, keep=None):
        with writable(folder):
            assert folder.is_dir()
            if keep:
                keep.write_text("")
            raise error

    with pytest.raises(InputError, match="later"):
        use(tmp_path / "a" / "b", InputError("found later"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="later"):
        use(tmp_path / "a" / "b", InputError("found later"), keep=tmp_path / "a" / "kept")
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["kept"]
    with pytest.raises(RunError):
        use(tmp_path / "c", RunError("failed"))
    assert (tmp_path / "c").is_dir()


def test_tensors_are_read_as_they_were_written(tmp_path):
    """Views, other orders of memory and empty tensors too, and metadata of every JSON type."""
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"view": whole[:, 1:3], "turned": whole.T, "empty": torch.zeros(0, 3), "scalar": torch.tensor(2)}
    metadata = {"a": [1, None, {"b": 0.1 + 0.2}], "c": "text ü\n"}
    write_tensors(tmp_path / "t.safetensors", tensors, metadata)
    read, header = read_tensors(tmp_path / "t.safetensors")
    assert header == metadata
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "t.safetensors", "pt") as handle:
        assert set(handle.keys()) == set(tensors)


def test_equal_contents_make_equal_files(tmp_path):
    """Otherwise a resumed run could not be compared with an uninterrupted one by its files."""
    metadata = {f"field {number}": number for number in range(20)}
    for name in "ab":
        write_tensors(tmp_path / name, {"x": torch.arange(3.0), "y": torch.ones(2).half()}, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_bit_of_a_file_can_be_lost(adapter, tmp_path):
    """Every byte of the header, one at a time, and some of the tensors: refused, and nothing else is read from it."""
    path = tmp_path / "tensors.safetensors"
    write_tensors(path, {"a": torch.arange(6.0)}, {"seed": 3, "names": ["red", "blue"]})
    whole = path.read_bytes()
    assert read_tensors(path)[1] == {"seed": 3, "names": ["red", "blue"]}
    for place in range(len(whole)):
        for bit in (1, 2, 16):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(InputError):
                read_tensors(path)


def test_files_of_the_first_release(tmp_path):
    """Their checksum is that of the tensors alone, or they have none; both are read, and the first is still looked at."""
    path = tmp_path / "tensors.safetensors"
    values = torch.arange(6.0)
    for field in ({}, {"checksum": json.dumps(hashlib.sha256(values.numpy().tobytes()).hexdigest())}):
        save_file({"a": values}, path, {"seed": "3", **field})
        tensors, metadata = read_tensors(path)
        assert torch.equal(tensors["a"], values)
        assert metadata == {"seed": 3}
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\7")
    with pytest.raises(InputError, match="is damaged"):
        read_tensors(path)
