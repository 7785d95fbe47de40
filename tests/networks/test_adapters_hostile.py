"""Adapters that were written long ago load; files made to do harm are refused in one line, and nothing changes."""

import hashlib
import json
import pickle
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch

from adapters.make import FEATURES, network
from comodulation.errors import InputError
from comodulation.files import MAX_HEADER, MAX_TENSORS, parse_json, read_json
from comodulation.networks.adapters import load_adapter, save_adapter
from comodulation.networks.methods import all_tasks
from comodulation.runs import Run, shared_folder
from comodulation.tensors import read_tensors
from support.synthetic import snapshot

ADAPTERS = sorted((Path(__file__).parents[1] / "adapters").glob("*.safetensors"))


# ---- adapters of past releases ----


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_adapters_of_past_releases_load(path):
    """Into a network whose numbers no generator decides, with the answers they gave when they were written."""
    release, method, kind = path.stem.split("-")
    fresh = network(method, kind)
    expected = torch.tensor(json.loads(path.with_suffix(".json").read_text()))
    fresh.settle([(fresh.prepare(FEATURES).detach(), torch.arange(len(FEATURES)) % fresh.family.num_tasks)])
    assert not torch.allclose(all_tasks(fresh, FEATURES), expected, atol=1e-2)
    metadata = load_adapter(fresh, path, backbone="0" * 64)
    torch.testing.assert_close(all_tasks(fresh, FEATURES), expected, rtol=1e-4, atol=1e-5)
    assert metadata["versions"]["comodulation"] == release
    assert path.stat().st_size < 4096


def test_there_are_adapters_of_past_releases():
    assert len(ADAPTERS) >= 3


# ---- hostile safetensors ----


def packed(header, data=b"", claimed=None):
    """A safetensors file with any header (text, or a value) and any data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def parts(content):
    """Header and data of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def sealed(header, data):
    """A file whose checksum is right: whoever writes a hostile one can compute it."""
    blank = "sha256:" + 64 * "0"
    header["__metadata__"] = {**header.get("__metadata__", {}), "checksum": json.dumps(blank)}
    text = json.dumps(header).encode()
    return packed(text.replace(blank.encode(), b"sha256:" + hashlib.sha256(text + data).hexdigest().encode()), data)


def changed(content, **fields):
    """The file with fields of its first tensor changed."""
    header, data = parts(content)
    name = next(name for name in header if name != "__metadata__")
    header[name] |= fields
    return sealed(header, data)


def with_metadata(content, **fields):
    header, data = parts(content)
    header["__metadata__"] |= fields
    return sealed(header, data)


def with_first_value(content, value):
    """The file with another first value, and the checksum that goes with it."""
    header, data = parts(content)
    data = struct.pack("<f", value) + data[4:]
    return sealed(header, data)


class Exploit:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def torch_file(tmp_path):
    torch.save({"controller": Exploit()}, tmp_path / "x.pt")
    return (tmp_path / "x.pt").read_bytes()


NOT_READABLE = "is not a readable safetensors file: "
HOSTILE = {
    "pickle": (lambda good, folder: pickle.dumps(Exploit()), NOT_READABLE),
    "torch file": (lambda good, folder: torch_file(folder), NOT_READABLE),
    "header of gigabytes": (
        lambda good, folder: packed(b"{}", claimed=2**33),
        "its header claims 8589934592 bytes, the file has 10",
    ),
    "header of 2^64": (lambda good, folder: packed(b"{}", claimed=2**64 - 1), "its header claims 18446744073709551615"),
    "header beyond the file": (
        lambda good, folder: packed(b"{}", claimed=100),
        "header claims 100 bytes, the file has",
    ),
    "header too long": (
        lambda good, folder: packed(b"{}" + b" " * MAX_HEADER),
        f"at most {MAX_HEADER} are read",
    ),
    "header no JSON": (lambda good, folder: packed(b"\xff\xfe{}"), NOT_READABLE),
    "header a list": (lambda good, folder: packed([1, 2]), NOT_READABLE),
    "header a bomb": (lambda good, folder: packed(b"[" * 100_000), NOT_READABLE),
    "offsets out of range": (lambda good, folder: changed(good, data_offsets=[0, 2**40]), NOT_READABLE),
    "offsets turned round": (lambda good, folder: changed(good, data_offsets=[40, 0]), NOT_READABLE),
    "offsets below 0": (lambda good, folder: changed(good, data_offsets=[-8, 32]), NOT_READABLE),
    "shape of terabytes": (lambda good, folder: changed(good, shape=[2**20, 2**20]), NOT_READABLE),
    "shape that overflows": (lambda good, folder: changed(good, shape=[2**63, 2**63]), NOT_READABLE),
    "shape below 0": (lambda good, folder: changed(good, shape=[-2, -5]), NOT_READABLE),
    "unknown type": (lambda good, folder: changed(good, dtype="OBJECT"), NOT_READABLE),
    "another type": (lambda good, folder: changed(good, dtype="I32"), "torch.int32 .*, expected torch.float32"),
    "another shape": (lambda good, folder: changed(good, shape=[5, 2]), r"\(5, 2\), expected torch.float32 \(2, 5\)"),
    "data cut": (lambda good, folder: good[:-4], NOT_READABLE),
    "data added": (lambda good, folder: good + bytes(4), NOT_READABLE),
    "NaN": (lambda good, folder: with_first_value(good, float("nan")), "values that are not finite"),
    "infinite": (lambda good, folder: with_first_value(good, float("-inf")), "values that are not finite"),
    "a page of zeros": (
        lambda good, folder: good[:-8] + bytes(8),
        "is damaged: its content is not what was written",
    ),
    "deep metadata": (
        lambda good, folder: with_metadata(good, family="[" * 900 + "]" * 900),
        "was not written by comodulation",
    ),
    "deeper metadata": (
        lambda good, folder: with_metadata(good, versions="[" * 10**6),
        "was not written by comodulation",
    ),
    "deep modulation": (
        lambda good, folder: with_metadata(good, modulation='{"a":' * 500 + "1" + "}" * 500),
        "was not written by comodulation",
    ),
    "long number": (lambda good, folder: with_metadata(good, schema="1" * 10_000), "was not written by comodulation"),
    "schema of another kind": (lambda good, folder: with_metadata(good, schema="1.0"), "is not an adapter"),
    "metadata that hides the layers": (lambda good, folder: with_metadata(good, head='""'), "belongs to another head"),
    "outputs that are not there": (
        lambda good, folder: with_metadata(good, added_outputs="[1000000000]", num_tasks="1000000000"),
        "belongs to another num_tasks",
    ),
    "names of paths": (
        lambda good, folder: packed(
            {("../../x" if name != "__metadata__" else name): value for name, value in parts(good)[0].items()},
            parts(good)[1],
        ),
        r"missing|not a readable",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_adapters(name, tmp_path):
    """One line, no file made, no tensor changed, and no memory taken for what a header claims."""
    make, message = HOSTILE[name]
    method, path = network("comodulation", "classes"), tmp_path / "a.safetensors"
    inputs = method.prepare(FEATURES).detach()
    method.settle([(inputs, torch.tensor([0, 1, 0]))])
    save_adapter(method, path)
    path.write_bytes(make(path.read_bytes(), tmp_path))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    files, used = snapshot(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message) as error:
        load_adapter(method, path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert snapshot(tmp_path) == files
    assert all(torch.equal(method.state_dict()[key], value) for key, value in before.items())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**18  # KiB


def test_files_too_large_are_not_read(tmp_path):
    """Files with holes, whose size is claimed and not there."""
    for path, size, read in (
        (tmp_path / "a.safetensors", MAX_TENSORS + 1, read_tensors),
        (tmp_path / "a.json", 2**30, read_json),
    ):
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", 2) + b"{}")
            file.truncate(size)
        with pytest.raises(InputError, match=f"it has {size} bytes, at most"):
            read(path)


def test_deep_json_is_refused_and_broad_json_is_not():
    assert parse_json("[" * 30 + "]" * 30)
    assert len(parse_json(json.dumps({"a": [[n] for n in range(10_000)]}))["a"]) == 10_000
    for depth in (40, 900, 10**6):
        with pytest.raises(ValueError, match="nested"):
            parse_json("[" * depth + "]" * depth)


# ---- hostile folders ----


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Not to be damaged."""
    return Run.open(run).save_pretrained(tmp_path_factory.mktemp("made") / "shared")


@pytest.fixture
def shared(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "shared"))


def link(folder, name, target):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def edit(folder, old, new):
    text = (folder / "config.yaml").read_text()
    assert old in text
    (folder / "config.yaml").write_text(text.replace(old, new))


FOLDERS = {
    "link outside": (lambda f: link(f, "adapter.safetensors", "/etc/hostname"), "leads outside its folder; refused"),
    "link up": (lambda f: link(f, "config.yaml", "../secret.yaml"), "leads outside its folder; refused"),
    "link nowhere": (lambda f: link(f, "metrics.json", "/nowhere/at/all"), "leads outside its folder; refused"),
    "card outside": (lambda f: link(f, "README.md", "/etc/hostname"), "leads outside its folder; refused"),
    "endless link": (lambda f: link(f, "head.safetensors", "head.safetensors"), "leads outside|is not a file"),
    "a device": (lambda f: link(f, "head.safetensors", "/dev/zero"), "leads outside its folder"),
    "a folder": (
        lambda f: ((f / "metrics.json").unlink(), (f / "metrics.json").mkdir()),
        r"metrics\.json is not a file",
    ),
    "file gone": (lambda f: (f / "metrics.json").unlink(), r"is not a shared run: it has no metrics\.json"),
    "weights elsewhere": (
        lambda f: edit(f, "weights: random", "weights: /etc/passwd"),
        "names weights '/etc/passwd'; a shared run may name 'backbone.safetensors' alone",
    ),
    "weights above": (lambda f: edit(f, "weights: random", "weights: ../x/backbone.safetensors"), "may name"),
    "labels elsewhere": (
        lambda f: [
            edit(f, *change)
            for change in (
                ("labels: null", "labels: /etc/passwd"),
                ("group: coarse_label", "group: null"),
                ("\nlabel: fine_label", "\nlabel: null"),
                ("readout: open", "readout: restricted"),
            )
        ],
        "names labels '/etc/passwd'; a shared run names no place outside its folder",
    ),
    "deep YAML with aliases": (
        lambda f: (f / "config.yaml").write_text("a: &a 1\nb: " + "[" * 10**6 + "*a"),
        "nested deeper than 32 levels|while increasing flow level",  # libyaml has a limit of its own, or none
    ),
    "data above": (
        lambda f: edit(f, "data: small", "data: ../../x"),
        "names data '../../x'; a shared run names no place",
    ),
    "weights missing": (
        lambda f: edit(f, "weights: random", "weights: backbone.safetensors"),
        r"it has no backbone\.safetensors",
    ),
    "weights linked": (
        lambda f: (
            edit(f, "weights: random", "weights: backbone.safetensors"),
            link(f, "backbone.safetensors", "/etc/passwd"),
        ),
        "leads outside its folder; refused",
    ),
    "aliases of aliases": (
        lambda f: (f / "config.yaml").write_text(
            "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)) + "data: *a59\n"
        ),
        r"config\.yaml cannot be read as YAML: it holds an alias",
    ),
    "YAML that makes objects": (
        lambda f: (f / "config.yaml").write_text("data: !!python/object/apply:os.system ['touch pwned']\n"),
        "cannot be read as YAML",
    ),
    "deep YAML": (lambda f: (f / "config.yaml").write_text("[" * 5000), "cannot be read as YAML"),
    "huge YAML": (
        lambda f: (f / "config.yaml").write_bytes(b"#" * (2**22 + 1)),
        r"config\.yaml has 4194305 bytes, at most",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_hostile_folders(name, shared, tmp_path):
    """Refused before anything else is read, and nothing is written."""
    damage, message = FOLDERS[name]
    (tmp_path / "secret.yaml").write_text((shared / "config.yaml").read_text())
    damage(shared)
    listed = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message) as error:
        Run.from_pretrained(shared)
    assert "\n" not in str(error.value)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == listed
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("encoder_channels: 16", "encoder_channels: 65536"),
        ("kernel_size: 3", "kernel_size: 31"),
        ("hidden: 256", "hidden: 65536"),
    ],
)
def test_configurations_that_claim_more_than_the_files_hold(old, new, shared):
    """Layers of terabytes are not allocated to find out that the file has kilobytes."""
    edit(shared, old, new)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"does not fit head\.safetensors of this configuration"):
        _ = Run.from_pretrained(shared).method
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**18  # KiB


@pytest.mark.parametrize("added", ["[0]", "[-1]", '["a"]', "[1, 1]", "{}", "[true]", "[" * 40 + "]" * 40])
def test_runs_that_claim_added_outputs(added, shared):
    """A family of classes has none, and the numbers must be numbers."""
    path = shared / "adapter.safetensors"
    path.write_bytes(with_metadata(path.read_bytes(), added_outputs=added))
    with pytest.raises(
        InputError, match=r"do(es)? not fit its tasks|was not written by comodulation|belongs to another"
    ):
        _ = Run.from_pretrained(shared).method


def test_links_within_the_hubs_cache_are_its_own(shared, tmp_path):
    """The hub keeps files beside the folder and links to them: that is no way out."""
    snapshots, blobs = tmp_path / "cache" / "snapshots" / "abc", tmp_path / "cache" / "blobs"
    snapshots.mkdir(parents=True)
    blobs.mkdir()
    for path in shared.iterdir():
        path.rename(blobs / path.name)
        (snapshots / path.name).symlink_to(f"../../blobs/{path.name}")
    shared_folder.check_shared(snapshots, snapshots.parents[1])
    with pytest.raises(InputError, match="leads outside"):
        shared_folder.check_shared(snapshots)
