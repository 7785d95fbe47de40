"""The same work in three libraries: tasks on one pretrained head, features cached, batches of 256 images with all tasks mixed.

    python benchmarks/peers.py --data CIFAR100_FOLDER [--libmtl PYTHON] [--epochs 3] [CONTENDER ...]

Contenders: attention, ia3 and comodulation of this library; peft, peft-tail and peft-one-task (peers_peft.py); libmtl and
libmtl-one-input (peers_libmtl.py), which run under the interpreter that --libmtl names: LibMTL 1.1.5, torch and safetensors in
an environment of their own. Without it LibMTL is left out. All begin at the same pretrained layers, train the same number of
epochs on the same images with Adam, and have a process each. Ratios are to this library's comodulation, those of training per
image. Seconds are the processor's; with one thread, the default, other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peers_common import SETTINGS, TENSORS, Settings
from peers_ours import CONFIG, FAMILY, HEAD
from safetensors.torch import save_file
from torch import Tensor, nn

from comodulation.data.features import Backbone, cache_folder, extract
from comodulation.files import write_bytes, write_json
from comodulation.networks import ComodulatedHead
from comodulation.runs import (
    Encoded,
    RunConfig,
    Session,
    TaskData,
    make_config,
    open_splits,
    read_family,
    read_labels,
    write_config,
)
from comodulation.tasks import TaskFamily
from comodulation.tensors import write_tensors
from comodulation.training import Venue

OURS = ("attention", "ia3", "comodulation")
PEFT = ("peft", "peft-tail", "peft-one-task")
LIBMTL = ("libmtl", "libmtl-one-input")
HERE = Path(__file__).parent


def open_session(config: RunConfig, cache: Path) -> Session:
    """Features, partition and pretrained layers of a seed, as the command line has them."""
    from lightning_fabric import Fabric

    splits = open_splits(config, [config.train_split])
    family = read_family(config, splits[config.train_split])
    labelled = {name: read_labels(config, split, family) for name, split in splits.items()}
    backbone = Backbone(config.backbone)
    features = {name: extract(backbone, data.split, cache) for name, data in labelled.items()}
    fabric = Fabric(accelerator="cpu", devices=1)
    return Session(config, TaskData(family, labelled), Encoded(backbone, features), Venue(fabric), cache)


def write_work(folder: Path, session: Session, settings: Settings) -> None:
    """The folder that every contender reads; see peers_common.py."""
    config = session.config
    # A method that learns nothing: what is left is the pretrained head.
    head = session.adapt(config.model_copy(update={"method": "base"})).method.head
    data = session.tuning_data()
    images = torch.cat([data.tuning.image, data.validation.image]).unique()
    tensors = {"features": torch.cat([data.features.rows(part).half() for part in images.split(1024)])}
    for name, pairs in (("tuning", data.tuning), ("validation", data.validation)):
        places = torch.searchsorted(images, pairs.image)
        tensors |= {f"{name}.image": places, f"{name}.task": pairs.task, f"{name}.target": pairs.target}
    tensors |= {f"layers.{name}": value for name, value in plain_layers(head).items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS)
    (folder / SETTINGS).write_text(json.dumps(asdict(settings)))
    write_bytes(folder / CONFIG, write_config(config).encode())
    write_json(folder / FAMILY, session.family.to_json())
    write_tensors(folder / HEAD, head.pretrained_tensors())


@torch.no_grad()
def plain_layers(head: ComodulatedHead) -> dict[str, Tensor]:
    """A head's weights for ``PlainHead``, by name.

    A skip connection is one more tap of the convolution: x + K x is a convolution by K with 1 added at its centre. So the
    plain network needs no addition for it, and IA3 scales the input of kernel and skip alike, as this library does.
    """

    def convolution(name: str, layer: nn.Conv2d, skip: Tensor | None) -> dict[str, Tensor]:
        kernel = layer.weight.clone()
        if skip is not None:
            kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += skip
        assert layer.bias is not None
        return {f"{name}.weight": kernel, f"{name}.bias": layer.bias}

    assert isinstance(head.readout, nn.Sequential)
    hidden, output = (layer for layer in head.readout if isinstance(layer, nn.Linear))
    return {
        "mean": head.feature_mean,
        "std": head.feature_std,
        **convolution("projection", head.projection, None),
        **convolution("encoder", head.encoder, head.skips[0] * torch.eye(head.encoder_channels)),
        **convolution("decoder", head.decoder, head._skip_matrix()),
        **{f"{name}.{part}": value for name, layer in (("hidden", hidden), ("output", output))
           for part, value in layer.state_dict().items()},
    }  # fmt: skip


def run_contender(name: str, folder: Path, libmtl: str | None, rate: float | None) -> dict[str, Any]:
    """What a contender measured, in a process of its own. Raises RuntimeError where that fails."""
    script = "peers_ours.py" if name in (*OURS, "in-turn") else "peers_peft.py" if name in PEFT else "peers_libmtl.py"
    interpreter = libmtl if name in LIBMTL and libmtl else sys.executable
    command = [interpreter, str(HERE / script), str(folder), name, *([] if rate is None else [str(rate)])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed under {interpreter}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, a row a contender; times also as multiples of comodulation's, or of the first row's without it."""
    base = next((one for one in results if one["contender"] == "comodulation"), results[0])

    def per_image(one: dict[str, Any]) -> float:
        return one["epoch_cpu_seconds"] / one["images"]

    rows = [
        f"| {one['contender']} {one['version']} | {one['epoch_cpu_seconds']:.2f} | {per_image(one) / per_image(base):.2f} "
        f"| {one['observe_cpu_seconds']:.2f} | {one['inference_cpu_ms']:.1f} "
        f"| {one['inference_cpu_ms'] / base['inference_cpu_ms']:.2f} | {one['peak_mib']:.0f} "
        f"| {one['peak_mib'] - one['start_mib']:.0f} | {one['learnable']:,} | {one['steps']} | {one['learning_rate']:g} "
        f"| {100 * one['accuracy']:.2f} | {one['nll']:.3f} |"
        for one in results
    ]
    head = (
        "contender", "epoch, s", "ratio", "once before, s", "256 mixed, ms", "ratio", "peak MiB", "above start", "learned",
        "steps", "rate", "accuracy", "NLL",
    )  # fmt: skip
    return "\n".join([f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows])


def described(config: RunConfig, family: TaskFamily, settings: Settings) -> str:
    return (
        f"{family.num_tasks} tasks, {family.num_outputs} outputs, head {config.head.encoder_channels} channels, seed "
        f"{settings.seed}, {settings.epochs} epochs, batch {settings.batch_size}, {settings.threads} threads, torch "
        f"{torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help="all by default")
    parser.add_argument("--data", required=True, help="folder of parquet files with images and labels")
    parser.add_argument("--group", default="coarse_label")
    parser.add_argument("--label", default="fine_label")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights", help="of the backbone, as for `comodulate fit`")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--pretraining-epochs", type=int, default=10)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, help="learning rate of all contenders, in place of their own")
    parser.add_argument("--libmtl", metavar="PYTHON", help="interpreter of an environment with LibMTL")
    parser.add_argument("--json", type=Path, help="file to which results are added")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    known = (*OURS, *PEFT, *LIBMTL)
    for name in given.contenders:
        if name not in known:
            sys.exit(f"unknown contender {name!r}; expected {', '.join(known)}")
        if name in LIBMTL and not given.libmtl:
            sys.exit(f"{name} needs --libmtl PYTHON, an interpreter that has LibMTL 1.1.5, torch and safetensors")
    config = make_config({
        "data": given.data, "group": given.group, "label": given.label, "method": "base", "seed": given.seed,
        "backbone": {"name": given.backbone, "image_size": given.image_size,
                     **({"weights": given.weights} if given.weights else {})},
        "head": {"encoder_channels": given.channels, "decoder_channels": given.channels, "hidden": given.channels},
        "pretraining": {"epochs": given.pretraining_epochs, "learning_rate": 1.5e-3, "weight_decay": 0.1},
    })  # fmt: skip
    session = open_session(config, cache_folder(given.cache))
    family = session.family
    settings = Settings(family.num_tasks, family.num_outputs, 256, given.epochs, given.seed, given.threads)
    chosen = given.contenders or [name for name in known if given.libmtl or name not in LIBMTL]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_work(folder, session, settings)
        print(described(config, family, settings), flush=True)
        results = []
        for name in chosen:
            results.append(run_contender(name, folder, given.libmtl, given.rate))
            print(f"  {name} done", flush=True)
        close = None if given.contenders else run_contender("in-turn", folder, None, None)
    if given.json:
        before = json.loads(given.json.read_text()) if given.json.exists() else []
        given.json.write_text(json.dumps([*before, *results], indent=1) + "\n")
    print(table(results))
    for what, times in (close or {}).items():
        ratios = ", ".join(f"{name} {one:.2f} ms ({one / times['attention']:.3f})" for name, one in times.items())
        print(f"{what} in turn, one process, multiples of attention: {ratios}")
    if not given.libmtl and not given.contenders:
        print("LibMTL was left out: give an interpreter that has it as --libmtl PYTHON")


if __name__ == "__main__":
    main()
