"""`fit --log`: what a tracker holds of a run, read back by the tracker's own reader."""

import json

import pytest

from comodulation.errors import InputError
from comodulation.runs import trackers
from comodulation.runs.trackers import check_trackers, curves_of, final_metrics, leaves, track
from support.command import fit


def measured(nll, tasks=("a", "b")):
    values = {"accuracy": 0.5, "nll": nll, "brier": 0.1, "ece": 0.2, "count": 4}
    return {**values, "tasks": {name: {**values, "balanced_accuracy": 0.25} for name in tasks}, "macro": dict(values)}


def test_names_are_such_as_every_tracker_takes():
    found = final_metrics({"test": measured(1.5, ("größe: §1", "b")), "linear": {"test": measured(2.5)}})
    assert found["test/nll"] == 1.5
    assert found["linear/test/nll"] == 2.5
    assert found["test/b/balanced_accuracy"] == 0.25
    assert "test/gr_e_ _1/nll" in found
    assert all(name.isascii() for name in found)


def test_of_many_tasks_the_means_alone():
    found = final_metrics({"validation": measured(1.0, [str(n) for n in range(101)])})
    assert set(found) == {
        f"validation{part}/{name}" for part in ("", "/mean over tasks") for name in ("accuracy", "nll", "brier", "ece")
    }


def test_curves_have_their_epochs_and_steps():
    metrics = {
        "pretraining": [{"epoch": 1, "loss": 2.0, "seconds": 1.0}], "history": [{"epoch": 1, "nll": 3.0}, {"epoch": 2, "nll": 2.0}],
        "readouts": {"committees": {"committee, pooled": [{"step": 60, "nll": 0.5}]}},
    }  # fmt: skip
    assert curves_of(metrics) == {
        "pretraining/loss": [(1, 2.0)], "fine-tuning/nll": [(1, 3.0), (2, 2.0)], "committee_ pooled/nll": [(60, 0.5)],
    }  # fmt: skip
    assert curves_of({}) == {}


def test_trackers_that_are_not_there(monkeypatch, refused, data):
    refused(lambda out, cache: fit(data, out, cache, "--log", "tensorbord"), "did you mean 'tensorboard'")
    monkeypatch.setattr(trackers, "_TRACKERS", {"mlflow": ("no_such_package", None)})
    with pytest.raises(
        InputError,
        match=r"tracker 'mlflow' needs the package no_such_package; pip install no_such_package, or all trackers: ",
    ):
        check_trackers(["mlflow"])


def expected(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics, curves_of(metrics), final_metrics(metrics)


def test_tensorboard_holds_the_run(data, cache, tmp_path):
    """The file of events, read back: every point of every curve, every metric, every setting, and where the page is."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = fit(data, tmp_path / "run", cache, "--log", "tensorboard")
    assert outcome.status == 0, outcome.err
    assert f"logged {tmp_path / 'run'} to {tmp_path / 'run' / 'tensorboard'}" in outcome.err
    _, curves, final = expected(tmp_path / "run")
    assert {"pretraining/loss", "fine-tuning/nll"} <= set(curves)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name, pairs in curves.items():
        assert [(event.step, event.value) for event in events.Scalars(name)] == [
            (step, pytest.approx(value, rel=1e-6)) for step, value in pairs
        ]
    for name, value in final.items():
        assert events.Scalars(name)[-1].value == pytest.approx(value, rel=1e-6)
    assert "report/text_summary" in events.Tags()["tensors"]
    plugin = events.PluginTagToContent("hparams")
    assert any(b"head.encoder_channels" in content for content in plugin.values())


def test_mlflow_holds_the_run(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    track(run, "mlflow")
    client = mlflow.MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("comodulation").experiment_id])
    _, curves, final = expected(run)
    for name, pairs in curves.items():
        assert [(point.step, point.value) for point in client.get_metric_history(kept.info.run_id, name)] == pairs
    assert {name: kept.data.metrics[name] for name in final} == pytest.approx(final)
    assert kept.data.params["head.encoder_channels"] == "16"
    assert [one.path for one in client.list_artifacts(kept.info.run_id)] == ["report.html"]


def test_wandb_holds_the_run(run, tmp_path, monkeypatch):
    """Offline: a file of the run, and no word on the network."""
    pytest.importorskip("wandb")
    import shutil

    monkeypatch.delenv("WANDB_MODE", raising=False)
    shutil.copytree(run, tmp_path / "run")
    where = track(tmp_path / "run", "wandb")
    assert where == str(tmp_path / "run" / "wandb")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    content = kept.read_bytes()
    assert b"head.encoder_channels" in content
    assert b"fine-tuning/nll" in content


def test_settings_have_dotted_keys():
    assert leaves({"a": {"b": None, "c": True}, "d": [1]}) == {"a.b": "None", "a.c": True, "d": "[1]"}
