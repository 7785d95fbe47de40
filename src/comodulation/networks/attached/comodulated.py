"""A model with task modulation between some of its layers: what ``comodulate`` (attach.py) makes.

A call without stored gains is: run up to the encoder once; from there to the decoder for the statistics, once for a derivative or
once a node for quadrature; from there to the end, encoder and decoder multiplied by their gains. With stored gains it is one plain
call with two products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ...errors import InputError, brief, choose, first_difference
from ...mathematics import Modulation, average_over_tasks, position_labels
from ...tensors import hash_tensors
from ..controller import Controller
from ..position_weights import LEARNED, Weights, gains_by_labels
from ..stored_gains import Mode, pairs
from ..task_averages import TaskAverages
from .between import Between, Unrectified, times_factor
from .call_state import copied
from .calls import arguments, joined_answers, number_of_inputs, split_arguments, takes_further_keywords, tasks_of
from .dimensions import look
from .neurons import Neurons
from .observing import calibrated, couplings_by, exact_response
from .options import Labels, check_labels
from .padding import AUTO
from .pooled import check_mean_is_read
from .rectified import NotRectified, nearest_rectified
from .replay import Call, Edit, Layer, Recording, edited

# Networks that are switched off, in this thread (or asynchronous task) alone.
_DISABLED: ContextVar[frozenset[int]] = ContextVar("disabled networks", default=frozenset())
# Networks whose gains stay in place (``under``), likewise.
_PLACED: ContextVar[frozenset[int]] = ContextVar("networks with gains in place", default=frozenset())

BATCH = "(inputs, task_ids)"


class Comodulated(Between):
    """A frozen model with task modulation between some of its layers; made by ``comodulate``.

    Called like the model, with task ids, and from any thread: a call changes nothing for what runs in others, be it this network,
    another one on the same model, or the model itself.

    Attributes:
        model: the model itself.
        controller: task -> u, for all encoder layers in one row ``(K, E)``, E their neurons in all. The only learnable part.
        modulation: options of the mechanism; ``modulation.estimator`` is the one in use.
        task_gains: decoder gains stored for evaluation, ``(K, D)``, or None.
        strengths: how strongly each task's labels of positions weigh, ``(K,)``; only where there are any.
        middles: for weights of kind ``each``, the label at which a position is as likely as not to show what the task asks for,
            ``(K,)``; else None.
    """

    strengths: Tensor
    middles: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        encoders: Sequence[Layer],
        decoder: Layer,
        sites: Sequence[Neurons],
        controller: Controller,
        modulation: Modulation,
        *,
        unrectified: Unrectified,
        may_fall_back: bool,
        mask: str | None = AUTO,
        labels: Labels = "channels",
        couplings: str = LEARNED,
        strength: float = 1.0,
        weights: Weights = "one",
    ) -> None:
        super().__init__(
            model, encoders, decoder, sites, controller, modulation,
            unrectified=unrectified, may_fall_back=may_fall_back, mask=mask,
        )  # fmt: skip
        check_labels(labels, couplings, weights, self.unrectified)
        self.labels, self.couplings, self.weights = labels, couplings, weights
        if self.couplings != LEARNED:
            controller.check_rows(couplings)
        if self.labels != "channels":
            self.register_buffer("strengths", torch.full((controller.num_tasks,), float(strength)))
        self.register_buffer("middles", torch.zeros(controller.num_tasks) if weights == "each" else None)
        self._looked = False  # whether neurons have been found in activity
        self._pools = False  # whether what follows the decoder has been seen to read the mean of its positions
        self.num_arguments: int | None = None  # positional ones of the model, as an example had them
        like = next((value for value in model.parameters() if value.is_floating_point()), torch.empty(0))
        controller.to(like.device)
        self._changed: set[nn.Module] = set()

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the model takes keywords that it does not name. The Trainer of transformers asks, before it adds some."""
        return takes_further_keywords(self.model)

    @property
    def num_tasks(self) -> int:
        return self.controller.num_tasks

    # ---- calls ------------------------------------------------------------------------------------------------------

    @torch.compiler.disable(
        reason="comodulate changes the outputs of a model's layers by hooks that it sets in each call, so "
        "that it is not compiled; for a graph, export the network (comodulation.runs.export.export_program)"
    )
    def forward(self, *args: Any, task_ids: Tensor | None = None, mode: Mode = "comodulation", **kwargs: Any) -> Any:
        """What the model returns for its arguments, under tasks.

        Args:
            *args, **kwargs: of the model.
            task_ids: task of each input, integers ``(B,)``, mixed freely. Also taken from the last positional argument, if
                that is a one-dimensional integer tensor, and one more than the model's own: more than in the example that the
                network was made with; without one, more than its ``forward`` takes.
            mode: ``comodulation``, ``attention`` (encoder gains alone) or ``base`` (as in ``disabled()``).

        Raises:
            ValueError, IndexError: task ids that are missing, of wrong shape or type, out of range.
            InputError: what ``comodulate`` had no example to find; a last argument that may be the model's or the tasks.
        """
        if task_ids is None:
            args, task_ids = split_arguments(self.model, args, kwargs, self.num_arguments)
        self._refuse_placed()
        self._hold_still()
        if self._is_base(mode):
            return self.model(*args, **kwargs)
        tasks = self._checked(task_ids, args)
        # One pass will do where no gain has to be computed from this input: nothing to keep then.
        if mode == "attention" or (self.labels == "channels" and self._stored()):
            self._look(args, kwargs)
            return self._answer(Call(self.model, args, kwargs), tasks, mode)
        with self._recording(args, kwargs) as call:
            return self._answer(call, tasks, mode)

    @contextmanager
    def disabled(self) -> Iterator[Comodulated]:
        """While it lasts, the model itself answers in this thread, with task ids or without."""
        token = _DISABLED.set(_DISABLED.get() | {id(self)})
        try:
            yield self
        finally:
            _DISABLED.reset(token)

    def all_tasks(self, *args: Any, tasks: Tensor | None = None, mode: Mode = "comodulation", **kwargs: Any) -> Any:
        """What the model returns for its arguments under each of some tasks; all before the encoder is computed once.

        Args:
            *args, **kwargs: of the model, B inputs.
            tasks: task numbers ``(k,)``; None takes all.
            mode: as in a call. In mode ``base``, and in ``disabled()``, the model runs once, and its answer is that of each task.

        Returns:
            As the model, its tensors for each task one after the other along their inputs: all inputs under the first task, then
            under the second, ... ``(k B, ...)``. A number (a loss) becomes ``(k,)``, an object that differs between tasks a list.
        """
        tasks = torch.arange(self.num_tasks, device=self._device) if tasks is None else self._checked(tasks)
        batch_dim = self.decoder_site.batch_dim
        if self._is_base(mode):
            self._refuse_placed()
            self._hold_still()
            answer = self.model(*args, **kwargs)
            return joined_answers([answer] * len(tasks), batch_dim, number_of_inputs((args, kwargs), batch_dim))
        with self._recording(args, kwargs) as call:
            rows = call.activity.shape[batch_dim]
            call.given = False  # each task begins with what was given
            answers = [self._answer(call, task.repeat(rows), mode) for task in tasks]
        return joined_answers(answers, batch_dim, rows)

    @contextmanager
    def under(self, task: int | Tensor) -> Iterator[nn.Module]:
        """The model with a task's stored gains in place: while it lasts, every call of the model and of its own methods has them.

            with net.under(2) as model:
                text = model.generate(**prompt)

        Layers may run any number of times then. Calls from other threads go on without these gains.

        Args:
            task: of all inputs, or of each, integers ``(B,)``, where every run of the two layers has these B inputs. Methods that
                repeat inputs (beams, several answers to one prompt) need one task.

        Raises:
            InputError: no stored gains (level `task`, ``store_task_gains``), or loaded ones of a network that has seen no inputs;
                this network itself called, which has the gains twice.
            ValueError, IndexError: as in a call.
        """
        alone = isinstance(task, Integral)
        tasks = self._checked(torch.tensor([int(task)], device=self._device) if isinstance(task, Integral) else task)
        if id(self) in _PLACED.get():
            raise InputError(
                "stored gains of this network are applied already; leave its other `with net.under(...)` block first"
            )
        if self.labels != "channels":
            raise InputError(
                "labels of positions differ between inputs and cannot be stored; `under` needs labels='channels'"
            )
        if self.training or not self._stored():
            raise InputError("`under` applies stored gains; call eval() and store_task_gains(batches) first")
        sites = (*self.encoder_sites, self.decoder_site)
        if not self._looked and any(site.neuron_dim is None for site in sites):
            raise InputError(
                "the dimensions of the neurons are not known yet; give comodulate(...) an example, or call the network once"
            )
        with torch.no_grad():
            u = self.controller(tasks)
            gains = self.stored_gains(u, tasks)
        factors = list(self._by_layer(u.exp())) if self.modulation.encoder == "gain" else []
        self._hold_still()
        token = _PLACED.set(_PLACED.get() | {id(self)})
        try:
            everything = [*factors, (self.decoder, self.decoder_site, gains)]
            with edited({layer: times_factor(site, factor, alone=alone) for layer, site, factor in everything}):
                yield self.model
        finally:
            _PLACED.reset(token)

    @torch.no_grad()
    def observe(self, batches: Iterable[tuple[Any, Tensor]]) -> None:
        """See a few inputs of every task before training: for exact gains, or for couplings in closed form.

        With learned couplings: the gains of channels are then exact in training, whatever inputs share a batch. The derivative's
        slope is linear in the couplings, and its matrix is found column by column: one pass between the layers for each encoder
        neuron, once; some 40 inputs a task will do. With a closed form: the couplings are computed, and the strengths and
        middles of labels of positions; there is nothing to train, and inputs should show what their task asks for and nothing else.

        Args:
            batches: of (inputs, task ids ``(B,)``), as for ``store_task_gains``.

        Raises:
            InputError: no batches; learned couplings with gains that are not linear in them (estimator `quadrature`,
                ``after_gain``, level `input`), without gains of channels, or of too many neurons.
        """
        seen = [
            (partial(self._recording, *arguments(inputs)), self._checked(task_ids))
            for inputs, task_ids in pairs(batches, BATCH)
        ]
        if not seen:
            raise InputError("observe got no batches, expected one or more of (inputs, task_ids)")
        self.response = None
        if self.couplings == LEARNED:
            m = self.modulation
            if self.labels == "positions" or m.level != "task" or m.after_gain:
                raise InputError(
                    "exact task gains are of channels, at level='task', and with after_gain=False; got "
                    f"labels={self.labels!r}, level={m.level!r}, after_gain={m.after_gain}"
                )
            self.response = exact_response(self, seen)
            return
        assert self.controller.embedding is not None
        self.controller.embedding.weight.copy_(couplings_by(self.couplings, self, seen))
        if self.labels != "channels":
            strengths, middles = calibrated(self.weights, self, seen)
            self.strengths.copy_(strengths)
            if self.middles is not None and middles is not None:
                self.middles.copy_(middles)

    @torch.no_grad()
    def store_task_gains(self, batches: Iterable[tuple[Any, Tensor]] = ()) -> None:
        """Estimate task gains at the present coupling, and keep them for evaluation (level `task` only).

        After ``observe`` with learned couplings, no batches are needed: the gains are exact.

        Args:
            batches: of (inputs, task ids ``(B,)``), such as the controller's training data; inputs are a tensor, a tuple of
                positional or a dict of keyword arguments. Tasks that do not occur keep the gains they have, at first 1. Batches
                that can be read more than once (a list, a DataLoader) are referred to: where the controller's weights are later
                changed outside training (an earlier epoch's are loaded), the next call estimates the gains from them again.

        Raises:
            InputError: level `input`, which has no gains to store; no batches.
        """
        if self.modulation.level != "task":
            raise InputError("level 'input' computes a gain for each input; there are no task gains to store")
        if self.labels == "positions":
            raise InputError("labels of positions belong to an input; there are no task gains to store")
        if self.response is not None and isinstance(batches, tuple) and not batches:
            self.task_gains = self._gains_by(self.response)
            self.origin.note(self.controller, ())
            return
        averages = TaskAverages(self.num_tasks)
        for inputs, task_ids in pairs(batches, BATCH):
            args, kwargs = arguments(inputs)
            tasks = self._checked(task_ids)
            with self._recording(args, kwargs) as call:
                found = self.statistics(call, self.controller(tasks))
            averages.add(found, tasks)
        if averages.empty:
            raise InputError("store_task_gains got no batches, expected one or more of (inputs, task_ids)")
        with torch.inference_mode(False):
            statistics, counts = averages.result()
            gains, seen = self._link(statistics), counts > 0
            before = torch.ones_like(gains) if self.task_gains is None else self.task_gains
            origin, known = self.origin, self.origin.couplings
            self.task_gains = torch.where(seen[:, None], gains, before)
            origin.couplings = known
            origin.note(self.controller, batches, seen)

    def learnable(self) -> list[nn.Parameter]:
        """What training trains: the controller, unless its couplings are computed."""
        return list(self.controller.parameters()) if self.couplings == LEARNED else []

    def train(self, mode: bool = True) -> Comodulated:
        """Training mode of the controller: gains of a task from the batch's own inputs. The model stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def check(self, example: Any) -> None:
        """Try one batch of inputs. Raises InputError for whatever a call would; settles the estimator."""
        args, kwargs = arguments(example)
        self.num_arguments, self._looked = len(args), True
        with self._recording(args, kwargs) as call:
            rows = call.activity.shape[self.decoder_site.batch_dim]
            u = self.controller(torch.zeros(rows, dtype=torch.int64, device=self._device))
            if self.labels != "positions":
                self.statistics(call, u)
            call.run({**self._encoder_gains(u), self.decoder: lambda activity: activity})
            if self.labels != "channels":
                self.statistics(call, u, positions=True)
                self._check_pooled(call)

    # ---- adapters ------------------------------------------------------------------------------------------------------

    def adapter_identity(self) -> dict[str, Any]:
        """What an adapter and the network it is loaded into must agree in."""
        options = self.modulation.identity()
        sizes = [site.sizes for site in (*self.encoder_sites, self.decoder_site)]
        return {
            "method": "comodulate",
            "encoder": [layer.name for layer in self.encoders],
            "decoder": self.decoder.name,
            "neurons": [site.width for site in self.encoder_sites],
            "num_tasks": self.num_tasks,
            # Only where it is not the usual kind: adapters written before there were two load for ever.
            **({"neuron": self.decoder_site.kind, "sizes": sizes} if self.decoder_site.kind != "channel" else {}),
            "unrectified": self.unrectified,
            **({"labels": self.labels} if self.labels != "channels" else {}),
            **({"weights": self.weights} if self.weights != "one" else {}),
            "model": hash_tensors(self.model.state_dict()),
            # With `auto`, the estimator is the network's to choose.
            "modulation": {
                name: value for name, value in options.items() if name != "estimator" or not self.may_fall_back
            },
        }

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Controller and stored task gains, by name."""
        self.check_task_gains()
        tensors = self._own_tensors()
        return tensors if self.task_gains is None else {**tensors, "task_gains": self.task_gains}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``adapter_tensors``. Raises InputError for tensors that do not fit; nothing is changed then."""
        own = self._own_tensors()
        if "middles" in tensors and self.middles is None:
            raise InputError(
                "the adapter was made with weights='each'; make the network with comodulate(..., weights='each')"
            )
        self.copy_with_gains(own, tensors, "task_gains", "this network")
        if self.task_gains is not None:
            self.decoder_site = replace(self.decoder_site, width=self.task_gains.shape[1])

    def _own_tensors(self) -> dict[str, Tensor]:
        own = {f"controller.{name}": value for name, value in self.controller.state_dict().items()}
        if self.labels != "channels":
            own["strengths"] = self.strengths
        return own if self.middles is None else {**own, "middles": self.middles}

    def joined(self, learned: Comodulated) -> Comodulated:
        """A network with the tasks of another one, on the same layers of the same model, added to its own.

        New tasks are learned by themselves, with ``comodulate(model, ..., num_tasks=n)``; the answers for the first K tasks keep
        their bits.

        Raises:
            InputError: another model, layers or options; a controller whose weights its tasks share; gains stored on one side
                alone.
        """
        ours, theirs = self.adapter_identity(), learned.adapter_identity()
        del ours["num_tasks"], theirs["num_tasks"]
        if differing := first_difference(ours, theirs):
            raise InputError(
                f"the tasks were learned with another {differing[0]}: {brief(differing[2])}, here {brief(differing[1])}"
            )
        for net in (self, learned):
            if net.controller.mlp is not None:
                raise InputError("tasks cannot be added: the controller's hidden layers are shared by all tasks")
        if (self.task_gains is None) != (learned.task_gains is None):
            raise InputError(
                "one of the two has stored task gains and the other has not; store them in both, or in none"
            )
        like = next(self.controller.parameters())
        controller = Controller(self.num_tasks + learned.num_tasks, self.controller.num_channels).to(like)
        net = Comodulated(
            self.model, self.encoders, self.decoder, [*self.encoder_sites, self.decoder_site], controller, self.modulation,
            unrectified=self.unrectified, may_fall_back=self.may_fall_back, mask=self.mask, labels=self.labels,
            couplings=self.couplings, weights=self.weights,
        )  # fmt: skip
        net.num_arguments, net._looked, net._learns = self.num_arguments, self._looked, self._learns
        a, b = self.adapter_tensors(), learned.adapter_tensors()
        net.load_adapter_tensors({name: torch.cat([a[name], b[name]]) for name in a})
        return net.train(self.training)

    # ---- parts of a call ----------------------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return next(self.controller.parameters()).device

    @contextmanager
    def _recording(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Recording]:
        """A recorded call, outside inference mode.

        In inference mode torch has no forward-mode derivative (it would be zero, silently) and tensors do not count
        their changes in place.
        """
        self._refuse_placed()
        inference = torch.is_inference_mode_enabled()
        outside = torch.inference_mode(False) if inference else nullcontext()
        self._hold_still()
        with outside, torch.no_grad() if inference else nullcontext():
            if inference:
                args, kwargs = tree_map_only(Tensor, torch.clone, (tuple(args), dict(kwargs)))
            self._look(args, kwargs)
            try:
                yield Recording(self.model, args, kwargs, self.encoders, self._changed)
            except NotRectified as refused:
                call = Call(self.model, *copied((tuple(args), dict(kwargs))))
                found = nearest_rectified(call, refused, self.encoders, self.decoder, self.decoder_site.batch_dim)
                raise refused.with_choice(found) from None

    def _is_base(self, mode: Mode) -> bool:
        """Whether the model itself is to answer. Raises InputError for an unknown mode."""
        return id(self) in _DISABLED.get() or choose(mode, get_args(Mode), "mode") == "base"

    def _refuse_placed(self) -> None:
        if id(self) in _PLACED.get():
            raise InputError(
                "inside `with net.under(task) as model`, call that model; call this network after the block"
            )

    def _stored(self) -> bool:
        if self.training:
            self.task_gains = None  # stored gains belong to a coupling that training is about to change
        return self.task_gains is not None and self.modulation.level == "task"

    def _hold_still(self) -> None:
        """The frozen model stays in evaluation mode, whatever has put it, or a module that holds it, into training mode."""
        if any(module.training for module in self.model.modules()):
            self.model.eval()

    def _look(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """At the first call, without an example: which dimensions the neurons are in."""
        sites = (*self.encoder_sites, self.decoder_site)
        if not self._looked and not torch.compiler.is_compiling() and any(site.neuron_dim is None for site in sites):
            layers = [*self.encoders, self.decoder]
            own, named = copied((tuple(args), dict(kwargs)))
            found = look(self.model, own, named, layers, self.decoder_site.batch_dim)
            *encoders, self.decoder_site = (
                site.at(found[layer][1], found[layer][0]) for site, layer in zip(sites, layers, strict=True)
            )
            self.encoder_sites = tuple(encoders)
        self._looked = True

    def _checked(self, task_ids: Any, args: tuple[Any, ...] = ()) -> Tensor:
        return tasks_of(task_ids, self.num_tasks, args)

    def _answer(self, call: Call, tasks: Tensor, mode: Mode = "comodulation") -> Any:
        """What the model returns from the encoder on."""
        u = self.controller(tasks)
        if mode == "attention":
            return call.run(self._encoder_gains(u))
        if self.labels == "positions":
            return call.run({self.decoder: self._pooling(call, tasks, u)})
        edits = self._encoder_gains(u) if self.modulation.encoder == "gain" else {}
        times = times_factor(self.decoder_site, self._gains(call, tasks, u))
        if self.labels == "both":
            pooling = self._pooling(call, tasks, u)
            return call.run({**edits, self.decoder: lambda activity: pooling(times(activity))})
        return call.run({**edits, self.decoder: times})

    def _pooling(self, call: Call, tasks: Tensor, u: Tensor) -> Edit:
        """Multiplies the decoder's positions by their gains."""
        labels = position_labels(self.statistics(call, u, positions=True))
        self._check_pooled(call)
        strengths = self.strengths.to(labels).index_select(0, tasks)
        middles = None if self.middles is None else self.middles.to(labels).index_select(0, tasks)
        site, masks = self.decoder_site, self._masks(call)

        def weigh(activity: Tensor) -> Tensor:
            return site.weighed(activity, gains_by_labels(labels, strengths, middles, masks(site, activity)))

        return weigh

    def _check_pooled(self, call: Call) -> None:
        """At the first labels of positions. Raises InputError unless what follows the decoder reads the mean of its positions."""
        if not self._pools and not torch.compiler.is_compiling():
            check_mean_is_read(call, self.decoder, self.decoder_site, self._masks(call))
            self._pools = True

    def _gains(self, call: Call, tasks: Tensor, u: Tensor) -> Tensor:
        """Gains ``(B, D)``: stored ones; else by task from the batch in training at level `task`, else one for each input."""
        if self._stored():
            return self.stored_gains(u, tasks)
        if self.training and self.modulation.level == "task" and self.response is not None:
            return self._gains_by(self.response).index_select(0, tasks)
        statistics = self.statistics(call, u)
        if self.training and self.modulation.level == "task":
            averaged = average_over_tasks(statistics, tasks, self.num_tasks)
            return self._link(averaged).index_select(0, tasks)
        return self._link(statistics)
