"""The paper's network behind a frozen backbone: encoder layer, decoder layer, readout; base and residual variants.

    features -> 1x1 projection, ReLU -> encoder 3x3 -> [modulation] -> decoder 3x3 -> [gains] -> pooling -> MLP -> logits

With h the encoder's activity after its ReLU and d = relu(K h + skip(h)) the decoder's, comodulation computes the gain
of each decoder neuron from Cov_m(m, d_j(m)) (gains.py). With estimator `derivative` this fuses into one more
convolution: the derivative of d at m = 0 is [K h + skip(h) > 0] * (K (h w) + skip(h w)).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..errors import InputError, choose
from ..mathematics import (
    Decode,
    DecoderStatistics,
    Modulation,
    MonteCarlo,
    ResponseByColumns,
    TaskResponse,
    autocasts,
    average_over_tasks,
    derived_seed,
    modulate,
    modulator_noise,
    only_coupled,
    outside_autocast,
    population,
    some_of_each,
    spatial_mean,
    statistics_by,
    statistics_of_samples,
    task_response,
)
from ..processes import ALONE, Processes
from ..tensors import hash_tensors
from .controller import Controller, checked_task_ids, coupling
from .encoder_decoder import EncoderDecoder
from .layers import normalisation_scale
from .settings import HeadSettings
from .stored_gains import MAX_RESPONSE, Mode, TaskGains, pairs
from .task_averages import TaskAverages

DECODER_NOISE = 1  # the noise layer of monte_carlo gains; 0 is the encoder's
ADDED_OUTPUTS = "readout.added."  # names of what methods/added_tasks.py adds to the readout
RESPONSE_INPUTS = 40  # inputs of each task that the response of several decoder layers is averaged over
RESPONSE_ROWS = 1024  # of them that go through the decoder at once
RESPONSE = "response_"  # names of the response that all tasks share


class ComodulatedHead(EncoderDecoder, TaskGains):
    """Encoder layer, decoder layer and readout, with a controller that adapts them to tasks once they are frozen.

    Args:
        in_channels: channels of the backbone's features.
        num_outputs: number C of outputs, shared by all tasks.
        num_tasks: number K of tasks.
        settings: the layers: their sizes, and what they begin with; see ``HeadSettings``.
        controller: options of ``Controller`` (hidden, embedding_size, activation, task_vectors).
        modulation: options of the mechanism; see ``Modulation``.
        seed: of the modulator's noise, in [0, 2^32).
        **options: fields of ``HeadSettings`` and ``Modulation`` given one by one, in place of ``settings`` and ``modulation``.

    Raises:
        ValueError: sizes that are not positive, an even kernel size, options out of range.
        TypeError: an option that does not exist.
    """

    response_jacobian: Tensor | None
    response_mean: Tensor | None

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        num_tasks: int,
        *,
        settings: HeadSettings | None = None,
        controller: dict[str, Any] | None = None,
        modulation: Modulation | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        layers = {name: options.pop(name) for name in tuple(options) if name in HeadSettings.__dataclass_fields__}
        for name, whole, parts in (("settings", settings, layers), ("modulation", modulation, options)):
            if whole is not None and parts:
                raise ValueError(f"give {name} or its fields, not both; got {', '.join(parts)}")
        super().__init__(in_channels, num_outputs, settings or HeadSettings(**layers))
        if not isinstance(num_tasks, int) or num_tasks < 1:
            raise ValueError(f"num_tasks must be a positive integer, got {num_tasks!r}")
        self.modulation = modulation or Modulation(**options)
        self.num_tasks, self.seed = num_tasks, seed
        self.controller = Controller(num_tasks, self.encoder_channels, **(controller or {}))
        shared = self.modulation.response == "shared"
        width = self.decoder_channels
        sizes = {"response_jacobian": (width, self.encoder_channels), "response_mean": (width,)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size) if shared else None)
        self.processes = ALONE

    # ---- with a task ----------------------------------------------------------------------------------------------

    def forward(
        self,
        features: Tensor,
        task_ids: Tensor | None = None,
        mode: Mode = "comodulation",
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
        mode: Mode,
        *,
        sample_ids: Tensor | None = None,
        step: int = 0,
    ) -> Tensor:
        """Logits from encoder activity ``(B, E, H, W)``, one set per modulator sample: ``(T, B, C)``, T = 1 unless stochastic."""
        choose(mode, get_args(Mode), "mode")
        if mode == "base":
            return self.read(self.decode(activity))[None]
        tasks = self.check_tasks(task_ids, activity.shape[0])
        u = self.controller(tasks)
        encoder_gain = u.exp()[:, :, None, None]
        if mode == "attention":
            return self.read(self.decode(activity * encoder_gain))[None]
        encoder = self.modulation.encoder_in(self.training)
        if encoder == "stochastic":
            modulated, modulator = self._modulated(activity, u, tasks, sample_ids, step)
            decoded = self.decode(modulated.flatten(0, 1)).unflatten(0, modulated.shape[:2])
            statistics = self._statistics_of(decoded, modulator, activity, u)
            return self.read(decoded, self.gains(activity, u, tasks, statistics))
        gains = self.gains(activity, u, tasks)
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

    def gains(self, activity: Tensor, u: Tensor, tasks: Tensor, statistics: DecoderStatistics | None = None) -> Tensor:
        """Decoder gains ``(B, D)`` of a batch; ``statistics`` of its inputs, fields ``(B, D)``, where they are known already.

        Level `task`, in training: from the observed response (``observe``) if there is one, else from the statistics of
        the batch's own inputs of each task. Level `task`, in evaluation: the stored gains. Otherwise, and as long as no
        gains are stored, one gain per input: no prediction ever depends on the rest of its batch.
        """
        by_task = self.modulation.level == "task" and not tasks.is_floating_point()
        if by_task and not self.training and self.task_gains is not None:
            return self.stored_gains(u, tasks)
        if by_task and self.training:
            self.task_gains = None  # stored gains belong to a coupling that training is about to change
            if (known := self.known_response()) is not None:
                return self._exact_gains(known, tasks)
            statistics = statistics or self._statistics_at(activity, u)
            if self.processes.several:
                averaged, _ = TaskAverages(self.num_tasks).add(statistics, tasks).result(self.processes)
            else:
                averaged = average_over_tasks(statistics, tasks, self.num_tasks)
            return self._link(averaged).index_select(0, tasks)
        if self.modulation.response == "shared" and (known := self.known_response()) is not None:
            return self._link(known.expand(len(u)).statistics(coupling(u, self.modulation.link)))
        return self._link(statistics or self._statistics_at(activity, u))

    def known_response(self) -> TaskResponse | None:
        """The response of each task ``(K, D, E)``, or the one that all share; None before ``observe``."""
        if self.response_jacobian is None or self.response_mean is None or not bool(self.response_mean.any()):
            return self.response
        return TaskResponse(self.response_jacobian[None], self.response_mean[None]).expand(self.num_tasks)

    def observe(self, batches: Iterable[tuple[Tensor, Tensor]], *, shared: bool = False) -> bool:
        """See the inputs of every task once, so that training uses exact task gains (level `task`, `derivative` only).

        Args:
            batches: of (encoder activity ``(B, E, H, W)``, task ids ``(B,)``), such as the controller's training images.
            shared: every task has the very images of the batches (binary tasks without missing labels): their task ids
                are not read, and the response, which depends on the images alone, is computed once for all tasks.

        Returns:
            Whether the response is used: False for other levels and estimators, statistics after the task gain, or where K D E
            numbers are too many (more than 2^28); training then estimates task gains from each batch.

        Raises:
            InputError: batches that are no pairs, or of something other than encoder activity.
            ValueError, IndexError: no inputs; task ids of wrong shape or type, or out of range.

        With one decoder layer the response is over all inputs, with more of them over 40 a task, drawn by the head's seed (of each
        process): column by column, it takes one pass through the decoder for each encoder neuron. A response that all tasks share,
        once known, is kept: it belongs to the layers.
        """
        self.response, kept = None, self.modulation.response == "shared"
        if kept and self.known_response() is not None:
            return True
        shared = shared or kept
        size = self.num_tasks * self.decoder_channels * self.encoder_channels
        m = self.modulation
        if m.level != "task" or m.estimator != "derivative" or m.after_gain or size > MAX_RESPONSE:
            return False
        weight = self.decoder.weight
        seen = (
            # Checked: -1, a missing task elsewhere, would be counted with the last one.
            (h.to(weight.dtype), torch.zeros_like(tasks) if shared else checked_task_ids(tasks, self.num_tasks, len(h)))
            for h, tasks in self._activities(batches)
        )
        outside = outside_autocast(weight.device) if autocasts(weight.device) else contextlib.nullcontext()
        # Outside inference mode, whose tensors no later training could use.
        with torch.inference_mode(False), torch.no_grad(), outside:
            response = (self._deep_response if self.deeper else self._response)(seen, shared)
        if self.response_jacobian is not None and self.response_mean is not None:
            self.response_jacobian.copy_(response.jacobian[0])
            self.response_mean.copy_(response.mean[0])
        else:
            self.response = response.expand(self.num_tasks) if shared else response
        return True

    def _activities(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches whose first part is seen to be encoder activity. Raises InputError where it is something else."""
        for activity, tasks in pairs(batches, "(encoder activity, task_ids)"):
            if not isinstance(activity, Tensor) or activity.ndim != 4 or activity.shape[1] != self.encoder_channels:
                found = tuple(activity.shape) if isinstance(activity, Tensor) else type(activity).__name__
                raise InputError(
                    f"encoder activity must be (B, {self.encoder_channels}, H, W), got {found}; expected head.encode(features)"
                )
            if bool((activity < 0).any()):
                raise InputError(
                    f"encoder activity must be rectified, got values from {activity.min().item():.3g}; expected "
                    "head.encode(features), not the features"
                )
            yield activity, tasks

    def _response(self, batches: Iterable[tuple[Tensor, Tensor]], shared: bool) -> TaskResponse:
        """Of one decoder layer, over all inputs."""
        kernel = self.decoder.weight
        if self.decoder_normalisation is not None:
            kernel = kernel * normalisation_scale(self.decoder_normalisation)[:, None, None, None]
        seen = ((h, self.decode(h), tasks) for h, tasks in batches)
        return task_response(seen, 1 if shared else self.num_tasks, kernel, self._skip_matrix(), self.processes)

    def _deep_response(self, batches: Iterable[tuple[Tensor, Tensor]], shared: bool) -> TaskResponse:
        """Of several decoder layers, over some inputs of each task."""
        groups, most = (1, RESPONSE_INPUTS * self.num_tasks) if shared else (self.num_tasks, RESPONSE_INPUTS)
        few, tasks = some_of_each(batches, groups, most, derived_seed(self.seed, "response"))

        found = ResponseByColumns(groups, self.encoder_channels)
        for h, own in zip(few.split(RESPONSE_ROWS), tasks.split(RESPONSE_ROWS), strict=True):
            decoded, change = self.linearised(h)
            found.add(partial(_slopes, change, h), decoded.mean((-2, -1)), own)
        return found.result(self.processes)

    @torch.no_grad()
    def store_task_gains(self, batches: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        """Compute and store the gains ``(K, D)`` of every task at the present coupling, for evaluation.

        Args:
            batches: as in ``observe``; not needed after it. Those that can be read again are referred to: where the controller's
                weights are later changed outside training, the next prediction computes the gains again.
        """
        if self.modulation.level != "task":
            return
        if (response := self.known_response()) is not None:
            self.task_gains = self._gains_by(response)
            self.origin.note(self.controller, ())
            return
        averages = TaskAverages(self.num_tasks)
        for activity, given in self._activities(batches):
            tasks = checked_task_ids(given, self.num_tasks, len(activity))
            averages.add(self._statistics_at(activity, self.controller(tasks)), tasks)
        statistics, counts = averages.result(self.processes)
        if not bool(counts.any()):
            raise ValueError("no inputs to estimate task gains from")
        self.task_gains = self._link(statistics)
        # Several processes would have to read them together, and one of them alone may be asked for an answer.
        self.origin.note(self.controller, None if self.processes.several else batches)

    def decoder_width(self) -> int:
        return self.decoder_channels

    # ---- as an adapter ----------------------------------------------------------------------------------------------

    def added_outputs(self) -> list[nn.Parameter]:
        """Parameters of outputs that came with tasks added later (methods/added_tasks.py); none in a head as it is built."""
        return [value for name, value in self.named_parameters() if name.startswith(ADDED_OUTPUTS)]

    def added_output_sizes(self) -> tuple[int, ...]:
        """Number of outputs of each block that was added later."""
        return tuple(len(value) for value in self.added_outputs() if value.ndim == 1)

    def paired_outputs(self) -> int:
        """Number of outputs, from the first, that are binary tasks' logits of yes in a family of columns (added_tasks.py)."""
        return getattr(self.readout, "paired", 0)

    def fingerprint(self) -> str:
        """Identity of the pretrained layers that an adapter belongs to."""
        return hash_tensors(self.pretrained_tensors())

    def pretrained_tensors(self) -> dict[str, Tensor]:
        """The pretrained part by name: layers and feature scaling, without controller, gains and outputs added later."""
        skipped = ("controller.", "task_gains", RESPONSE, ADDED_OUTPUTS)
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(skipped)}

    def adapter_identity(self) -> dict[str, Any]:
        """What an adapter and the head it is loaded into must agree in."""
        return {
            "method": "head",
            "num_tasks": self.num_tasks,
            "residual": self.residual,
            **({"skips": list(self.skips)} if self.residual and self.skips != (1.0, 1.0) else {}),
            "head": self.fingerprint(),
            "modulation": self.modulation.identity(),
            **({"added_outputs": list(added)} if (added := self.added_output_sizes()) else {}),
            **({"paired_outputs": paired} if (paired := self.paired_outputs()) else {}),
        }

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Controller, stored task gains, a shared response and outputs added later, by name."""
        own = ("controller.", "task_gains", RESPONSE, ADDED_OUTPUTS)
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(own)}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``adapter_tensors``. Raises InputError for missing, unknown, misshapen or non-finite tensors."""
        own = {name: tensor for name, tensor in self.adapter_tensors().items() if name != "task_gains"}
        self.copy_with_gains(own, tensors, "task_gains", "this head")

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
            gains = self._gains_by(response)
        else:
            present, tasks = tasks.unique(return_inverse=True)
            couplings = coupling(self.controller(present), self.modulation.link)
            gains = self._link(response.of(present).statistics(couplings))
        # Not gains[tasks]: its gradient adds up in the order in which threads arrive, another one each run.
        return gains.index_select(0, tasks)

    def _statistics_at(self, activity: Tensor, u: Tensor) -> DecoderStatistics:
        """Statistics ``(B, D)`` at the encoder activity before its task gain, or after it (option ``after_gain``)."""
        at = activity * u.exp()[:, :, None, None] if self.modulation.after_gain else activity
        return self.statistics(at, coupling(u, self.modulation.link))

    def statistics(self, activity: Tensor, coupling: Tensor) -> DecoderStatistics:
        """Decoder statistics ``(B, D)`` at given encoder activity; the derivative is fused."""
        if autocasts(activity.device):  # what is asked for is a difference between nearly equal numbers
            with outside_autocast(activity.device):
                return self.statistics(activity.to(self.decoder.weight.dtype), coupling)
        if self.modulation.estimator != "derivative":
            return self._sampled(self.decode, activity, coupling)
        decoded, change = self.linearised(activity)
        slope = _slopes(change, activity, coupling)
        return DecoderStatistics(slope, decoded.mean((-2, -1)), slope.abs())

    def position_statistics(self, activity: Tensor, coupling: Tensor) -> tuple[Tensor, DecoderStatistics]:
        """Decoder activity ``(B, D, H, W)`` and the statistics of its positions, fields ``(B, H W)``; see mathematics/positions.py.

        Args:
            activity: of the encoder, ``(B, E, H, W)``. coupling: ``(B, E)``.
        """
        activity = activity.to(self.decoder.weight.dtype)
        if autocasts(activity.device):
            with outside_autocast(activity.device):
                return self.position_statistics(activity, coupling)
        if self.modulation.estimator != "derivative":
            return self.decode(activity), self._sampled(population(self.decode), activity, coupling)
        decoded, change = self.linearised(activity)
        slope = change(activity * coupling[:, :, None, None]).flatten(2).sum(1)
        return decoded, DecoderStatistics(slope, decoded.flatten(2).sum(1), slope.abs())

    def _sampled(self, decode: Decode, activity: Tensor, coupling: Tensor) -> DecoderStatistics:
        """Statistics of a decoder by nodes or samples."""
        estimator, weight = self.modulation.estimation, self.decoder.weight
        if isinstance(estimator, MonteCarlo):
            # The same draws for every input: a gain then depends on its input alone, not on its place in a batch.
            one = torch.zeros(1, dtype=torch.int64, device=activity.device)
            draws = modulator_noise(one, one, estimator.samples, seed=self.seed, layer=DECODER_NOISE)
            estimator = replace(estimator, draws=draws.expand(-1, activity.shape[0]))
        activity, coupling = activity.to(weight.dtype), coupling.to(weight.dtype)
        return statistics_by(estimator, decode, activity, coupling, self.modulation.std)

    def _statistics_of(
        self, decoded: Tensor, modulator: Tensor, activity: Tensor, u: Tensor
    ) -> DecoderStatistics | None:
        """Statistics ``(B, D)`` from the very samples ``(T, B, D, H, W)`` that answer, as in the paper: one fluctuation is
        label and answer. None where they are to be had otherwise: by another estimator, or at other activity or precision."""
        m = self.modulation
        if m.estimator != "monte_carlo" or m.after_gain or autocasts(activity.device):
            return None
        return only_coupled(
            statistics_of_samples(spatial_mean(decoded), modulator, m.std), activity, coupling(u, m.link)
        )

    def _modulated(
        self, activity: Tensor, u: Tensor, tasks: Tensor, sample_ids: Tensor | None, step: int
    ) -> tuple[Tensor, Tensor]:
        """Encoder activity under T modulator samples, ``(T, B, E, H, W)``, and the samples, ``(T, B)``."""
        if sample_ids is None:
            raise ValueError(
                "a stochastic encoder needs sample_ids (B,), so that noise belongs to the input and not to its place "
                "in the batch"
            )
        m = self.modulation
        # Task vectors have no number.
        ids = tasks.new_zeros(len(tasks), dtype=torch.int64) if tasks.is_floating_point() else tasks
        noise = modulator_noise(sample_ids, ids, m.num_samples, seed=self.seed, step=step)
        modulator = m.std * noise.to(activity.dtype)
        return modulate(activity, coupling(u, m.link), modulator, m.std), modulator


def _slopes(change: Callable[[Tensor], Tensor], activity: Tensor, coupling: Tensor) -> Tensor:
    """Slopes ``(B, D)`` at encoder activity ``(B, E, H, W)``, for couplings ``(B, E)``; ``change`` is the decoder's derivative."""
    return change(activity * coupling[:, :, None, None]).mean((-2, -1))
