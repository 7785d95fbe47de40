"""Options of `comodulate fit`: flags in groups, keys of the configuration, and which flag stands for which key."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from ...errors import InputError, choose
from .given import given_inputs

if TYPE_CHECKING:
    from ...runs import RunConfig

DATA, ENCODER, METHOD, TRAINING, OUTPUT = "Data", "Encoder", "Method", "Training", "Output"
data_option, encoder_option, method_option, training_option, output_option = (
    partial(typer.Option, rich_help_panel=panel) for panel in (DATA, ENCODER, METHOD, TRAINING, OUTPUT)
)
HIDDEN = typer.Option(hidden=True)  # a flag of the first release whose key is listed below the flags

# Flags that are keys of the configuration under another name.
KEYS: dict[str, tuple[str, ...]] = {
    "task": ("tasks",), "attribute": ("attributes",), "backbone": ("backbone.name",), "weights": ("backbone.weights",),
    "image_size": ("backbone.image_size",), "layer": ("backbone.layer",), "feature_size": ("backbone.feature_size",),
    "residual": ("head.residual",), "batch_norm": ("head.batch_norm",), "kernel_size": ("head.kernel_size",),
    "channels": ("head.encoder_channels", "head.decoder_channels"), "sigma": ("modulation.std",),
    **{name: (f"modulation.{name}",)
       for name in ("link", "beta", "normalizer", "level", "estimator", "encoder", "training_encoder")},
    "controller_hidden": ("controller.hidden",), "epochs": ("tuning.epochs",), "patience": ("tuning.patience",),
    "learning_rate": ("tuning.learning_rate",), "pretraining_epochs": ("pretraining.epochs",),
    "pretraining_learning_rate": ("pretraining.learning_rate",),
}  # fmt: skip
# Flags that are keys under their own name.
OWN = (
    "data", "labels", "ignore", "balance", "group", "label", "image_column", "train_split", "test_split", "readout",
    "protocol", "quality", "calibrate", "metric", "task_bias", "precision", "seed", "skip_bad", "embeddings", "text",
)  # fmt: skip

# What --set and a file can say and no flag in the help does: a line each.
LINES: dict[str, dict[str, str]] = {
    DATA: {
        "image_column": "column of images or their paths, if there are several",
        "train_split": "split to train and validate on [train]",
        "test_split": "split to test on once, if it is there [test]",
        "split_seed": "draws the halves and the validation images [the seed]",
        "validation_fraction": "share of each half to validate on [0.1]",
        "disjoint_halves": "layers and tasks learn from disjoint halves, in protocol claims [true]",
    },
    ENCODER: {
        "backbone.layer": "feature stage (-1: the last) [-1]",
        "backbone.feature_size": "side of the stored feature map (0: as it is) [2]",
        "backbone.output": "map, or vector: pre-logits, mean and map [what the method reads]",
        "precision": "backbone arithmetic: float32 or bfloat16 [float32]",
    },
    METHOD: {
        "readout": "open (all classes) or restricted (the task's own) [open; of label columns: restricted]",
        "protocol": "table: everything learns from all images; claims: layers and tasks learn from disjoint halves "
        "[table where the method can]",
        "task_bias": "also learn a bias for each task and output [false]",
        "options.NAME": "the method's own options, such as options.sharing",
        "head.start": "probe: layers begin at logistic regression on the features; random: the paper's "
        "[probe; where a size is given: random]",
        "head.encoder_channels": "encoder neurons, of layers that begin at random [256]",
        "head.decoder_channels": "decoder neurons, likewise [256]",
        "head.residual": "skip connections [true]",
        "head.kernel_size": "size of the convolution kernels [1; of layers that begin at random: 3]",
        "head.hidden": "width of the readout's hidden layer, likewise [256]",
        "head.dropout": "dropout in the readout, in pretraining [0.2]",
        "head.feature_dropout": "dropout of whole feature channels, likewise [0.3]",
        "head.encoder_skip": "strength of the encoder's skip connection, 0 to 1 [1]",
        "head.decoder_skip": "strength of the decoder's skip connection, 0 to 1 [1]",
        "head.batch_norm": "normalise encoder and decoder layers (in one process) [false]",
        "head.depth": "decoder layers [1]",
        "controller.hidden": "widths of hidden layers, such as [64, 32]: an MLP [none]",
        "controller.embedding_size": "size of a task's embedding, before hidden layers [32]",
        "controller.activation": "activation function of hidden layers [relu]",
        "controller.rank": "rank of the couplings of all tasks [full]",
        "controller.task_vectors": "a given vector for each task, in place of an embedding",
        "modulation.std": "standard deviation of the modulator [0.3]",
        "modulation.estimator": "derivative, quadrature or monte_carlo [derivative]",
        "modulation.normalizer": "relative, covariance or correlation [relative]",
        "modulation.link": "rectified or exponential [exponential]",
        "modulation.level": "task (gains for each task) or input (gains for each input) [task]",
        "modulation.beta": "strength of the decoder gains [1]",
        "modulation.encoder": "what the encoder does: gain, none or stochastic [gain]",
        "modulation.training_encoder": "the same while training, if different",
        "modulation.after_gain": "the decoder's statistics at the encoder's activity after its gain [false]",
        "modulation.response": "the decoder's response to couplings: computed for each task, or one shared by all [task]",
        "modulation.num_nodes": "nodes of quadrature [5]",
        "modulation.num_samples": "samples of the modulator, where it is sampled [16]",
    },
    TRAINING: {
        "tuning.learning_rate": "learning rate of fine-tuning, the peak of a one-cycle schedule [the method's]",
        "tuning.batch_size": "examples in each step [256]",
        "tuning.weight_decay": "decoupled weight decay [0]",
        "tuning.warmup": "share of the steps in which the rate rises [0.3]",
        "tuning.patience": "stop after this many epochs without improvement (0: never) [0]",
        "pretraining.epochs": "passes over the data before fine-tuning [8; of layers that begin at random: 10]",
        "pretraining.learning_rate": "peak learning rate [0.001; of layers that begin at random: 0.0015]",
        "pretraining.batch_size": "images in each step [256]",
        "pretraining.weight_decay": "decoupled weight decay [0.05; of layers that begin at random: 0.1]",
        "pretraining.warmup": "share of the steps in which the rate rises [0.3]",
        "pretraining.patience": "stop after this many epochs without improvement (0: never) [0]",
    },
}  # fmt: skip


class FitCommand(TyperCommand):
    """Its help lists flags in groups, and then the keys that have none."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options; called by Typer."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                groups.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(record)
        for name in sorted(groups, key=[DATA, ENCODER, METHOD, TRAINING, OUTPUT, "Options"].index):
            with formatter.section(name):
                formatter.write_dl(groups[name])
        for name, lines in LINES.items():
            with formatter.section(f"{name}: keys without a flag, for --set KEY=VALUE and --config"):
                formatter.write_dl(list(lines.items()))


def configurations(
    config: Path | None,
    settings: Sequence[str],
    flags: Mapping[str, Any],
    methods: Sequence[str],
    option: Sequence[str],
) -> list[RunConfig]:
    """The configuration of each method: flags win over settings, and these over the file.

    Args:
        config: file, or None. settings: KEY=VALUE each. flags: by name; None and nothing mean not given.
        methods: their names; none takes that of the settings or the file. option: NAME=VALUE of the methods' own.

    Raises:
        InputError: one line that says what is wrong.
    """
    from ...networks.methods import METHODS
    from ...runs import RunConfig, make_config, of_method, parse_setting, read_settings, with_settings

    stored = {} if config is None else read_settings(config)
    said = dict(map(parse_setting, settings))
    flags = {**flags, **given_inputs(flags, stored)}
    for name in (*OWN, *KEYS):
        value = flags[name]
        if value is not None and value != [] and value != ():
            said |= dict.fromkeys(KEYS.get(name, (name,)), value)
    said |= dict(map(_method_option, option))
    usual = RunConfig.model_fields["method"].default
    names = list(dict.fromkeys(methods)) or [said.get("method", stored.get("method", usual))]
    found = []
    for name in names:
        choose(name, METHODS, "method")
        values = with_settings(of_method(stored, name), {**said, "method": name})
        if "data" not in values:
            raise InputError(
                "missing option '--data': a folder or a dataset id; or give a file that names it, by --config"
            )
        found.append(make_config(values))
    return found


def _method_option(pair: str) -> tuple[str, int | float | str]:
    """NAME=VALUE as a key of the configuration and its value, a number where it can be one."""
    name, equals, text = pair.partition("=")
    if not (name and equals and text):
        raise InputError(f"--option {pair!r} is not NAME=VALUE")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return f"options.{name}", kind(text)
    return f"options.{name}", text
