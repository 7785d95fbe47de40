"""Adapters, heads, run folders, checkpoints and the feature cache, damaged in every way.

What is loaded is what was saved, or valid in itself; everything else is one line, and the network asked to load it is unchanged.
"""

import json
import shutil

import pytest
import torch
from hypothesis import strategies as st

from adapters.make import FEATURES, network
from comodulation.data.features import FeatureStore
from comodulation.errors import InputError
from comodulation.files import read_json
from comodulation.networks import load_adapter, save_adapter
from comodulation.processes import ALONE
from comodulation.runs.run import Run
from comodulation.tensors import read_tensors, write_tensors
from comodulation.training.checkpoint import State
from support.command import comodulate
from support.mutations import ABSURD, changed, damaged, few_or_hundreds, few_or_many, hunt, is_refusal, refused_or
from support.packed import repacked, unpacked
from support.synthetic import picture


@few_or_many
@pytest.mark.parametrize("how", ["bytes", "header"])
@pytest.mark.parametrize("name", ["comodulation", "attention"])
def test_damaged_adapters(name, how, cases, tmp_path):
    method, path = network(name, "classes"), tmp_path / "a.safetensors"
    method.settle([(method.prepare(FEATURES).detach(), torch.tensor([0, 1, 0]))])
    save_adapter(method, path)
    good = path.read_bytes()
    before = {key: value.clone() for key, value in method.state_dict().items()}

    def check(content):
        path.write_bytes(content)
        refused_or(lambda: read_tensors(path))
        found = refused_or(lambda: load_adapter(method, path))
        state = method.state_dict()
        if is_refusal(found):
            assert all(torch.equal(state[key], value) for key, value in before.items())
        else:
            assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())
            method.load_state_dict(before)

    header, data = unpacked(good)
    hunt(cases, check, damaged(good) if how == "bytes" else changed(header).map(lambda value: repacked(value, data)))


DTYPES = ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32",
          "C64", "F64", "I64", "U64")  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_type(dtype, tmp_path):
    """Also of those that this version of torch does not know."""
    method, path = network("comodulation", "classes"), tmp_path / "a.safetensors"
    save_adapter(method, path)
    header, data = unpacked(path.read_bytes())
    name = next(key for key in header if key != "__metadata__")
    header["__metadata__"].pop("checksum", None)
    bits = {"F4": 4, "F6_E2M3": 6}.get(dtype) or (
        8 if dtype in ("BOOL", "U8") or "8" in dtype else int(dtype.strip("BCFIU"))
    )
    size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
    header[name] |= {"dtype": dtype, "shape": [8 * size // bits]}
    path.write_bytes(repacked(header, data))
    refused_or(lambda: read_tensors(path))
    assert is_refusal(refused_or(lambda: load_adapter(method, path)))


# ---- run folders ----


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "red.png"
    picture("red", 0).save(path)
    return path


def check_answers(folder, photo):
    """Probabilities, or one line and status 1 or 2."""
    outcome = comodulate("predict", folder, photo, "--json")
    assert outcome.status in (0, 1, 2)
    if outcome.status:
        assert outcome.line
    else:
        for answer in outcome.json["images"][0]["tasks"].values():
            assert 0 <= answer["confidence"] <= 1
            assert abs(sum(answer["probabilities"].values())) <= 1 + 1e-3


FILES = ("config.yaml", "metrics.json", "adapter.safetensors", "head.safetensors")


@few_or_hundreds
def test_damaged_run_folders(cases, run, photo, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    good = {name: (folder / name).read_bytes() for name in FILES}

    def check(name, content):
        for other, whole in good.items():
            (folder / other).write_bytes(whole)
        (folder / name).write_bytes(content)
        check_answers(folder, photo)

    for name in FILES:
        kinds = [damaged(good[name])]
        if name == "metrics.json":
            kinds.append(changed(json.loads(good[name])).map(lambda value: json.dumps(value).encode()))
        elif name.endswith("safetensors"):
            header, data = unpacked(good[name])
            kinds.append(changed(header).map(lambda value, data=data: repacked(value, data)))
        hunt(cases, check, st.just(name), st.one_of(kinds))


@few_or_hundreds
def test_metrics_of_any_kind(cases, run, photo, tmp_path):
    """They are shown by `serve`, by the model card, and taken over by `add-task`."""
    folder = shutil.copytree(run, tmp_path / "run")
    from comodulation.app.server import Service
    from comodulation.runs.card import model_card

    opened = Run.open(folder)
    _ = opened.method

    def check(value):
        (folder / "metrics.json").write_text(json.dumps(value))
        refused_or(lambda: json.dumps(Service(opened).describe()))
        refused_or(lambda: model_card(opened.config, opened.family, opened.metrics).encode())

    hunt(cases, check, changed(read_json(folder / "metrics.json")))


SWAPS = [(a, b) for a in FILES for b in (*FILES, "predictions.parquet", "report.html") if a != b]


@pytest.mark.parametrize("pair", SWAPS, ids="-for-".join)
def test_swapped_files(pair, run, photo, tmp_path):
    """Every file in the place of every other."""
    folder = shutil.copytree(run, tmp_path / "run")
    shutil.copy(run / pair[1], folder / pair[0])
    if pair[0] == "metrics.json":
        assert is_refusal(refused_or(lambda: Run.open(folder).metrics))
    else:
        outcome = comodulate("predict", folder, photo)
        assert outcome.status == 2
        assert outcome.line


# ---- checkpoints ----


@few_or_many
def test_damaged_checkpoints(cases, tmp_path):
    """Taken up as they were written, or training starts over; one of another training is refused."""
    path = tmp_path / "checkpoint.safetensors"
    torch.manual_seed(0)
    tensors = {"now.0": torch.randn(3, 4), "best.0": torch.randn(3, 4)}
    tensors |= {f"optimizer.0.{key}": torch.randn(3, 4) for key in ("exp_avg", "exp_avg_sq")}
    tensors["optimizer.0.step"] = torch.tensor(5.0)
    write_tensors(
        path, tensors, {"identity": "this", "history": [{"epoch": 1, "loss": 0.5, "nll": 0.4, "seconds": 1.0}]}
    )
    good = path.read_bytes()
    parameter = torch.nn.Parameter(torch.zeros(3, 4))
    state = State([parameter], [], torch.optim.AdamW([parameter]), ALONE)

    def check(content):
        path.write_bytes(content)
        found = refused_or(lambda: state.read(path, "this"))
        if found is not None and not is_refusal(found):
            assert all(torch.equal(found[0][name], value) for name, value in tensors.items())

    hunt(cases, check, damaged(good))


# ---- the feature cache ----


@few_or_many
@pytest.mark.parametrize("name", ["journal.jsonl", "identity.json", "data.bin"])
def test_damaged_feature_caches(name, cases, tmp_path):
    """What is used of a cache is what was written; the rest is extracted again."""
    rows, block = 24, 16
    identity = {"version": 1, "shape": [rows, 2, 1, 1]}
    folder = tmp_path / "features"
    values = torch.arange(2 * rows).reshape(rows, 2, 1, 1).half().numpy()
    with FeatureStore(folder, identity, block) as store:
        for bad in ([3], []):
            number = store.claim()
            start, stop = store.rows(number)
            store.write(number, values[start:stop], bad)
        store.merge()
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = [json.loads(line) for line in good["journal.jsonl"].splitlines()]

    def check(content):
        for other, whole in good.items():
            (folder / other).write_bytes(whole)
        (folder / name).write_bytes(content)
        again = FeatureStore(folder, identity, block)
        again.refresh()
        for number in torch.from_numpy(again.done.copy()).nonzero()[:, 0].tolist():
            start, stop = again.rows(number)
            kept = (folder / "data.bin").read_bytes()[4 * start : 4 * stop]
            assert kept == values[start:stop].tobytes()
            assert [row for row in again.bad_rows if start <= row < stop] == ([3] if number == 0 else [])
        with again:  # what cannot be used is put aside, and can be filled again
            assert again.complete or again.claim() is not None

    kinds = [damaged(good[name])]
    if name == "journal.jsonl":
        kinds.append(changed(lines).map(as_lines))
    if name == "identity.json":
        kinds.append(changed(identity).map(lambda value: json.dumps(value).encode()))
    hunt(cases, check, st.one_of(kinds))


def as_lines(value):
    return "".join(json.dumps(line) + "\n" for line in (value if isinstance(value, list) else [value])).encode()


@few_or_many
def test_json_of_any_kind(cases, tmp_path):
    path = tmp_path / "a.json"

    def check(content):
        path.write_bytes(content)
        found = refused_or(lambda: read_json(path))
        if not is_refusal(found):
            json.dumps(found)

    text = json.dumps({"a": [1, 2.5, None, {"b": "x"}], "c": list(ABSURD)}).encode()
    hunt(cases, check, damaged(text))


def test_a_refusal_of_the_network_names_no_more_than_fits(tmp_path):
    with pytest.raises(InputError) as error:
        read_json(tmp_path / ("x" * 5000))
    assert len(str(error.value)) < 2000
