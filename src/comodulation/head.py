"""The paper's network behind a frozen backbone: encoder layer, decoder layer, readout; base and residual variants.

    features -> 1x1 projection, ReLU -> encoder 3x3 -> [modulation] -> decoder 3x3 -> [gains] -> pooling -> MLP -> logits

With h the encoder's activity after its ReLU and d = relu(K h + skip(h)) the decoder's, comodulation computes the gain
of each decoder neuron from Cov_m(m, d_j(m)) (gains.py). With estimator `derivative` this fuses into one more
convolution: the derivative of d at m = 0 is [K h + skip(h) > 0] * (K (h w) + skip(h w)).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .controller import Controller, checked_task_ids, coupling
from .convolution import convolve, dense_matrix, is_small
from .dropout import ChannelDropout, Dropout
from .errors import choose
from .gains import DecoderStatistics, average_over_tasks, decoder_statistics, gains_from_statistics
from .layers import RectifiedLayer, normalisation_scale, normalised_bias
from .mechanism import Modulation as Modulation
from .modulation import modulate
from .named_tensors import copy_checked, hash_tensors
from .noise import modulator_noise
from .processes import ALONE, Processes
from .response import TaskResponse, task_response
from .task_averages import TaskAverages

MODES = ("base", "attention", "comodulation")
DECODER_NOISE = 1  # the noise layer of monte_carlo gains; 0 is the encoder's
ADDED_OUTPUTS = "readout.added."  # names of what growing.py adds to the readout
MAX_RESPONSE = 2**28  # numbers in a stored response (1 GiB in float32)


class ComodulatedHead(nn.Module):
    """Encoder layer, decoder layer and readout, with a controller that adapts them to tasks once they are frozen.

    Args:
        in_channels: channels of the backbone's features.
        num_outputs: number C of outputs, shared by all tasks.
        num_tasks: number K of tasks.
        encoder_channels: number E of encoder neurons.
        decoder_channels: number D of decoder neurons.
        residual: whether encoder and decoder layer each have a skip connection (identity; a 1x1 projection where E != D).
        kernel_size: odd; 1 makes the layers fully connected on pooled features.
        hidden: width of the readout's hidden layer.
        dropout: in the readout, while the layers are being pretrained.
        feature_dropout: of whole feature channels, likewise.
        encoder_skip, decoder_skip: factors of the two skip connections, in [0, 1].
        batch_norm: normalise what encoder and decoder layers add to their skip connections, over the batch in pretraining, by
            fixed statistics once frozen.
        depth: number of decoder layers; the last one has the gains. With more than one, task gains are estimated from batches.
        controller: options of ``Controller`` (hidden, embedding_size, activation, task_vectors).
        modulation: options of the mechanism; see ``Modulation``.
        seed: of the modulator's noise, in [0, 2^32).
        **options: fields of ``Modulation`` given one by one, in place of ``modulation``.

    Raises:
        ValueError: sizes that are not positive, an even kernel size, options out of range.
        TypeError: an option that does not exist.
    """

    feature_mean: Tensor
    feature_std: Tensor
    task_gains: Tensor | None

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        num_tasks: int,
        *,
        encoder_channels: int = 256,
        decoder_channels: int = 256,
        residual: bool = True,
        kernel_size: int = 3,
        hidden: int = 256,
        dropout: float = 0.2,
        feature_dropout: float = 0.3,
        encoder_skip: float = 1.0,
        decoder_skip: float = 1.0,
        batch_norm: bool = False,
        depth: int = 1,
        controller: dict[str, Any] | None = None,
        modulation: Modulation | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        sizes = {
            "in_channels": in_channels,
            "num_outputs": num_outputs,
            "num_tasks": num_tasks,
            "encoder_channels": encoder_channels,
            "decoder_channels": decoder_channels,
            "hidden": hidden,
            "depth": depth,
        }
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive integer, got {size!r}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        for name, factor in (("encoder_skip", encoder_skip), ("decoder_skip", decoder_skip)):
            if not 0 <= factor <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {factor!r}")
        if modulation is not None and options:
            raise ValueError(f"give modulation or its fields, not both; got {', '.join(options)}")
        self.modulation = modulation or Modulation(**options)
        self.num_outputs, self.num_tasks, self.residual, self.seed = num_outputs, num_tasks, residual, seed
        self.in_channels, self.encoder_channels, self.decoder_channels = in_channels, encoder_channels, decoder_channels
        padding = kernel_size // 2
        self.register_buffer("feature_mean", torch.zeros(in_channels))
        self.register_buffer("feature_std", torch.ones(in_channels))
        self.feature_dropout = ChannelDropout(feature_dropout)
        self.projection = nn.Conv2d(in_channels, encoder_channels, 1)
        self.encoder = nn.Conv2d(encoder_channels, encoder_channels, kernel_size, padding=padding)
        self.decoder = nn.Conv2d(encoder_channels, decoder_channels, kernel_size, padding=padding)
        self.decoder_skip: nn.Module | None = None
        if residual:
            same = encoder_channels == decoder_channels
            self.decoder_skip = nn.Identity() if same else nn.Conv2d(encoder_channels, decoder_channels, 1, bias=False)
        self.skips = (encoder_skip, decoder_skip) if residual else (0.0, 0.0)
        self.encoder_normalisation = nn.BatchNorm2d(encoder_channels) if batch_norm else None
        self.decoder_normalisation = nn.BatchNorm2d(decoder_channels) if batch_norm else None
        self.deeper = nn.ModuleList(
            RectifiedLayer(encoder_channels, kernel_size, skip=self.skips[1], batch_norm=batch_norm)
            for _ in range(depth - 1)
        )
        self.readout: nn.Module = nn.Sequential(
            Dropout(dropout),
            nn.Linear(decoder_channels, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, num_outputs),
        )
        self.controller = Controller(num_tasks, encoder_channels, **(controller or {}))
        self.register_buffer("task_gains", None)
        self.response: TaskResponse | None = None
        self.processes = ALONE
        self._matrices: dict[nn.Module, tuple[tuple[Any, ...], Tensor]] = {}
        self.frozen = False

    # ---- the network without a task -------------------------------------------------------------------------------

    @property
    def layers(self) -> list[nn.Module]:
        """What pretraining trains and freezing freezes: everything but the controller."""
        parts: list[nn.Module] = [self.feature_dropout, self.projection, self.encoder, self.decoder, self.readout]
        optional = (self.decoder_skip, self.encoder_normalisation, self.decoder_normalisation)
        return [*parts, *(part for part in optional if part is not None), *self.deeper]

    def freeze(self) -> ComodulatedHead:
        """Freeze every layer but the controller, and keep dropout off from now on."""
        for layer in self.layers:
            layer.requires_grad_(False)
        self.frozen = True
        return self.train(self.training)

    def train(self, mode: bool = True) -> ComodulatedHead:
        super().train(mode)
        if self.frozen:
            for layer in self.layers:
                layer.eval()
        return self

    def added_outputs(self) -> list[nn.Parameter]:
        """Parameters of outputs that came with tasks added later (growing.py); none in a head as it is built."""
        return [value for name, value in self.named_parameters() if name.startswith(ADDED_OUTPUTS)]

    def added_output_sizes(self) -> tuple[int, ...]:
        """Number of outputs of each block that was added later."""
        return tuple(len(value) for value in self.added_outputs() if value.ndim == 1)

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Set the per-channel mean and standard deviation, each ``(in_channels,)``, that features are scaled by."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 0, std, 1))

    def encode(self, features: Tensor) -> Tensor:
        """Features ``(B, in_channels, H, W)`` or ``(B, in_channels)`` -> encoder activity h >= 0, ``(B, E, H, W)``."""
        if features.ndim == 2:
            features = features[:, :, None, None]
        if features.ndim != 4 or features.shape[1] != self.in_channels:
            raise ValueError(
                f"features must be (B, {self.in_channels}, H, W) or (B, {self.in_channels}), got {tuple(features.shape)}"
            )
        scaled = (features - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]
        projected = self.projection(self.feature_dropout(scaled)).relu()
        assert self.encoder.bias is not None
        encoded = self._convolve(projected, self.encoder) + self.encoder.bias[:, None, None]
        if self.encoder_normalisation is not None:
            encoded = self.encoder_normalisation(encoded)
        return (encoded + self._scaled(projected, self.skips[0]) if self.residual else encoded).relu()

    def drive(self, activity: Tensor) -> Tensor:
        """The linear part of the last decoder layer, K h + skip(h) without bias: ``(N, E, H, W) -> (N, D, H, W)``."""
        drive = self._convolve(activity, self.decoder)
        if self.decoder_normalisation is not None:
            drive = drive * normalisation_scale(self.decoder_normalisation)[:, None, None]
        return self._with_skip(drive, activity)

    @property
    def decoder_bias(self) -> Tensor:
        """What the last decoder layer adds to ``drive`` before its ReLU, ``(D,)``."""
        bias, normalisation = self.decoder.bias, self.decoder_normalisation
        assert bias is not None
        return bias if normalisation is None else normalised_bias(bias, normalisation)

    def _with_skip(self, drive: Tensor, activity: Tensor) -> Tensor:
        return drive if self.decoder_skip is None else drive + self._scaled(self.decoder_skip(activity), self.skips[1])

    @staticmethod
    def _scaled(activity: Tensor, factor: float) -> Tensor:
        return activity if factor == 1 else factor * activity

    def _convolve(self, activity: Tensor, layer: nn.Conv2d) -> Tensor:
        """A layer's convolution without bias; a frozen layer's matrix for small maps is built once."""
        weight, (height, width) = layer.weight, activity.shape[2:]
        if (
            torch.compiler.is_compiling()
        ):  # a graph is for one convolution and any number of inputs; it keeps no matrices
            return nn.functional.conv2d(activity, weight, padding=weight.shape[-1] // 2)
        if weight.requires_grad or not is_small(height, width, weight.shape[-1]):
            return convolve(activity, weight)
        key = (weight.data_ptr(), weight._version, weight.dtype, height, width)
        if layer not in self._matrices or self._matrices[layer][0] != key:
            with torch.no_grad():
                self._matrices[layer] = (key, dense_matrix(weight, height, width))
        return convolve(activity, weight, self._matrices[layer][1])

    def decode(self, activity: Tensor) -> Tensor:
        """Encoder activity ``(N, E, H, W)`` -> rectified decoder activity ``(N, D, H, W)``."""
        activity = self.deepen(activity)
        if self.decoder_normalisation is not None and self.decoder_normalisation.training:
            assert self.decoder.bias is not None
            block = self._convolve(activity, self.decoder) + self.decoder.bias[:, None, None]
            return self._with_skip(self.decoder_normalisation(block), activity).relu()
        return (self.drive(activity) + self.decoder_bias[:, None, None]).relu()

    def deepen(self, activity: Tensor) -> Tensor:
        """Encoder activity -> what the last decoder layer reads, both ``(N, E, H, W)``; the same where it is the only one."""
        for layer in self.deeper:
            activity = layer(activity)
        return activity

    def read(self, activity: Tensor, gains: Tensor | None = None) -> Tensor:
        """Decoder activity ``(..., D, H, W)`` -> logits ``(..., C)``, by global pooling and the MLP.

        With ``gains`` ``(B, D)``, of neurons whose gain they are: after pooling, where it is the same and costs less.
        """
        pooled = activity.mean((-2, -1))
        return self.readout(pooled if gains is None else pooled * gains)

    # ---- with a task ----------------------------------------------------------------------------------------------

    def forward(
        self,
        features: Tensor,
        task_ids: Tensor | None = None,
        mode: str = "comodulation",
        *,
        sample_ids: Tensor | None = None,
        step: int = 0,
    ) -> Tensor:
        """Logits of each input under its task.

        Args:
            features: ``(B, in_channels, H, W)``, or ``(B, in_channels)`` if already pooled.
            task_ids: task of each input, integers ``(B,)``, mixed freely; or task vectors ``(B, V)`` if the controller
                has them. Not used by mode `base`.
            mode: `base` (no task signal), `attention` (encoder gains) or `comodulation` (encoder and decoder gains).
            sample_ids: identity of each input, integers ``(B,)``; needed where the encoder is stochastic.
            step: pass over the data; new noise for each.

        Returns:
            ``(B, C)``. With a stochastic encoder, log of the mean probability over modulator samples.

        Raises:
            ValueError: task_ids of wrong shape or type, an unknown mode, sample_ids missing.
            IndexError: task_ids out of range, with the value and the range.
        """
        return self.over_samples(self.logits(self.encode(features), task_ids, mode, sample_ids=sample_ids, step=step))

    @staticmethod
    def over_samples(logits: Tensor) -> Tensor:
        """Logits of T modulator samples ``(T, B, C)`` -> ``(B, C)``: as they are for T = 1, else log of the mean probability."""
        return logits[0] if len(logits) == 1 else logits.log_softmax(-1).logsumexp(0) - torch.tensor(len(logits)).log()

    def logits(
        self,
        activity: Tensor,
        task_ids: Tensor | None,
        mode: str,
        *,
        sample_ids: Tensor | None = None,
        step: int = 0,
    ) -> Tensor:
        """Logits from encoder activity ``(B, E, H, W)``, one set per modulator sample: ``(T, B, C)``, T = 1 unless stochastic."""
        choose(mode, MODES, "mode")
        if mode == "base":
            return self.read(self.decode(activity))[None]
        tasks = self.check_tasks(task_ids, activity.shape[0])
        u = self.controller(tasks)
        encoder_gain = u.exp()[:, :, None, None]
        if mode == "attention":
            return self.read(self.decode(activity * encoder_gain))[None]
        gains = self.gains(activity, u, tasks)
        encoder = self.modulation.encoder_in(self.training)
        if encoder == "stochastic":
            modulated = self._modulated(activity, u, tasks, sample_ids, step)
            decoded = self.decode(modulated.flatten(0, 1)).unflatten(0, modulated.shape[:2])
            return self.read(decoded, gains)
        return self.read(self.decode(activity * encoder_gain if encoder == "gain" else activity), gains)[None]

    def check_tasks(self, task_ids: Tensor | None, batch: int) -> Tensor:
        """``task_ids`` as int64, or task vectors as they are; see ``forward`` for what is raised."""
        if task_ids is None or not isinstance(task_ids, Tensor):
            raise ValueError(f"task_ids must be an integer tensor of shape ({batch},), got {type(task_ids).__name__}")
        if task_ids.is_floating_point() and self.controller.task_vectors is not None:
            if task_ids.shape[0] != batch:
                raise ValueError(f"task vectors must be ({batch}, V), got {tuple(task_ids.shape)}")
            return task_ids
        return checked_task_ids(task_ids, self.num_tasks, batch)

    def gains(self, activity: Tensor, u: Tensor, tasks: Tensor) -> Tensor:
        """Decoder gains ``(B, D)`` of a batch.

        Level `task`, in training: from the observed response (``observe``) if there is one, else from the statistics of
        the batch's own inputs of each task. Level `task`, in evaluation: the stored gains. Otherwise, and as long as no
        gains are stored, one gain per input: no prediction ever depends on the rest of its batch.
        """
        by_task = self.modulation.level == "task" and not tasks.is_floating_point()
        if by_task and not self.training and self.task_gains is not None:
            return self.task_gains.index_select(0, tasks)
        if by_task and self.training:
            self.task_gains = None  # stored gains belong to a coupling that training is about to change
            if self.response is not None:
                return self._exact_gains(self.response, tasks)
            statistics = self._statistics_at(activity, u)
            if self.processes.several:
                averaged, _ = TaskAverages(self.num_tasks).add(statistics, tasks).result(self.processes)
            else:
                averaged = average_over_tasks(statistics, tasks, self.num_tasks)
            return self._link(averaged).index_select(0, tasks)
        return self._link(self._statistics_at(activity, u))

    def observe(self, batches: Iterable[tuple[Tensor, Tensor]], *, shared: bool = False) -> bool:
        """See the inputs of every task once, so that training uses exact task gains (level `task`, `derivative` only).

        Args:
            batches: of (encoder activity ``(B, E, H, W)``, task ids ``(B,)``), such as the controller's training images.
            shared: every task has the very images of the batches (binary tasks without missing labels): their task ids
                are not read, and the response, which depends on the images alone, is computed once for all tasks.

        Returns:
            Whether the response is used: False for other levels and estimators, statistics after the task gain, more than one
            decoder layer, or where K D E numbers are too many (more than 2^28); training then estimates task gains from each
            batch.
        """
        self.response = None
        size = self.num_tasks * self.decoder_channels * self.encoder_channels
        m = self.modulation
        if m.level != "task" or m.estimator != "derivative" or m.after_gain or len(self.deeper) or size > MAX_RESPONSE:
            return False
        seen = ((h, self.decode(h), torch.zeros_like(tasks) if shared else tasks) for h, tasks in batches)
        with torch.no_grad():
            kernel = self.decoder.weight
            if self.decoder_normalisation is not None:
                kernel = kernel * normalisation_scale(self.decoder_normalisation)[:, None, None, None]
            response = task_response(seen, 1 if shared else self.num_tasks, kernel, self._skip_matrix(), self.processes)
        self.response = response.expand(self.num_tasks) if shared else response
        return True

    @torch.no_grad()
    def store_task_gains(self, batches: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        """Compute and store the gains ``(K, D)`` of every task at the present coupling, for evaluation.

        Args:
            batches: as in ``observe``; not needed after it.
        """
        if self.modulation.level != "task":
            return
        if self.response is not None:
            self.task_gains = self._link(self.response.statistics(self._all_couplings()))
            return
        averages = TaskAverages(self.num_tasks)
        for activity, tasks in batches:
            averages.add(self._statistics_at(activity, self.controller(tasks)), tasks)
        statistics, counts = averages.result(self.processes)
        if not bool(counts.any()):
            raise ValueError("no inputs to estimate task gains from")
        self.task_gains = self._link(statistics)

    # ---- as an adapter ----------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """Identity of the pretrained layers that an adapter belongs to."""
        return hash_tensors(self.pretrained_tensors())

    def pretrained_tensors(self) -> dict[str, Tensor]:
        """The pretrained part by name: layers and feature scaling, without controller, gains and outputs added later."""
        skipped = ("controller.", "task_gains", ADDED_OUTPUTS)
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(skipped)}

    def adapter_identity(self) -> dict[str, Any]:
        """What an adapter and the head it is loaded into must agree in."""
        return {
            "method": "head",
            "num_tasks": self.num_tasks,
            "residual": self.residual,
            **({"skips": list(self.skips)} if self.residual and self.skips != (1.0, 1.0) else {}),
            "head": self.fingerprint(),
            "modulation": vars(self.modulation),
            **({"added_outputs": list(added)} if (added := self.added_output_sizes()) else {}),
        }

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Controller, stored task gains and outputs added later, by name."""
        own = ("controller.", "task_gains", ADDED_OUTPUTS)
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(own)}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``adapter_tensors``. Raises InputError for missing, unknown, misshapen or non-finite tensors."""
        own, gains = self.adapter_tensors(), None
        own.pop("task_gains", None)
        if "task_gains" in tensors:
            like = self.decoder.weight
            gains = torch.ones(self.num_tasks, self.decoder_channels, device=like.device, dtype=like.dtype)
            own["task_gains"] = gains
        copy_checked(own, tensors, "this head")
        self.task_gains = gains  # only now: tensors that do not fit change nothing

    @contextlib.contextmanager
    def among(self, processes: Processes) -> Iterator[None]:
        """While it is open, batches and data are those processes' together, of which this one has its share."""
        before, self.processes = self.processes, processes
        try:
            yield
        finally:
            self.processes = before

    def _exact_gains(self, response: TaskResponse, tasks: Tensor) -> Tensor:
        """Gains ``(B, D)`` under tasks ``(B,)``: computed for all K tasks, or for those that occur where K is above B."""
        if len(tasks) >= self.num_tasks:
            gains = self._link(response.statistics(self._all_couplings()))
        else:
            present, tasks = tasks.unique(return_inverse=True)
            gains = self._link(response.of(present).statistics(self._couplings(present)))
        # Not gains[tasks]: its gradient adds up in the order in which threads arrive, another one each run.
        return gains.index_select(0, tasks)

    def _all_couplings(self) -> Tensor:
        return self._couplings(torch.arange(self.num_tasks, device=self.decoder.weight.device))

    def _couplings(self, tasks: Tensor) -> Tensor:
        return coupling(self.controller(tasks), self.modulation.link)

    def _skip_matrix(self) -> Tensor | None:
        if isinstance(self.decoder_skip, nn.Conv2d):
            return self._scaled(self.decoder_skip.weight[:, :, 0, 0], self.skips[1])
        if self.decoder_skip is None:
            return None
        return self._scaled(torch.eye(self.encoder_channels, device=self.decoder.weight.device), self.skips[1])

    def _statistics_at(self, activity: Tensor, u: Tensor) -> DecoderStatistics:
        """Statistics ``(B, D)`` at the encoder activity before its task gain, or after it (option ``after_gain``)."""
        at = activity * u.exp()[:, :, None, None] if self.modulation.after_gain else activity
        return self.statistics(at, coupling(u, self.modulation.link))

    def statistics(self, activity: Tensor, coupling: Tensor) -> DecoderStatistics:
        """Decoder statistics ``(B, D)`` at given encoder activity; the derivative is fused."""
        m = self.modulation
        if m.estimator != "derivative":
            draws = None
            if m.estimator == "monte_carlo":
                # The same draws for every input: a gain then depends on its input alone, not on its place in a batch.
                one = torch.zeros(1, dtype=torch.int64, device=activity.device)
                draws = modulator_noise(one, one, m.num_samples, seed=self.seed, layer=DECODER_NOISE)
                draws = draws.expand(-1, activity.shape[0])
            # Not in half precision: what is asked for is a difference between nearly equal numbers.
            with torch.autocast(activity.device.type, enabled=False):
                return decoder_statistics(
                    self.decode, activity.to(self.decoder.weight.dtype), coupling.to(self.decoder.weight.dtype), m.std,
                    estimator=m.estimator, num_nodes=m.num_nodes, draws=draws,
                )  # fmt: skip
        tangent, reached = activity * coupling[:, :, None, None], activity
        for layer in self.deeper:
            assert isinstance(layer, RectifiedLayer)
            reached = layer(reached)
            tangent = layer.tangent(reached, tangent)
        decoded = (self.drive(reached) + self.decoder_bias[:, None, None]).relu()
        slope = torch.where(decoded > 0, self.drive(tangent), 0).mean((-2, -1))
        return DecoderStatistics(slope, decoded.mean((-2, -1)), slope.abs())

    def _link(self, statistics: DecoderStatistics) -> Tensor:
        m = self.modulation
        return gains_from_statistics(statistics, normalizer=m.normalizer, link=m.link, beta=m.beta)

    def _modulated(self, activity: Tensor, u: Tensor, tasks: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        """Encoder activity under T modulator samples, ``(T, B, E, H, W)``."""
        if sample_ids is None:
            raise ValueError(
                "a stochastic encoder needs sample_ids (B,), so that noise belongs to the input and not to its place "
                "in the batch"
            )
        m = self.modulation
        ids = (
            tasks if not tasks.is_floating_point() else torch.zeros(len(tasks), dtype=torch.int64, device=tasks.device)
        )
        noise = modulator_noise(sample_ids, ids, m.num_samples, seed=self.seed, step=step)
        return modulate(activity, coupling(u, m.link), m.std * noise.to(activity.dtype), m.std)
