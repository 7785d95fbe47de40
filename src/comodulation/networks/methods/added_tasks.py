"""Tasks added later, without a bit of the others changing.

Behind frozen layers tasks do not know of one another: what a method learns is a row per task. New tasks are therefore learned
alone, by a method of their own on the same layers (``begin_tasks``), and their rows are put below those that are there
(``add_tasks``). A new task of a label column brings outputs of its own, too: a block of its own in the readout, beside the
outputs that are there and not in their matrix, because a matrix product with more rows may add up in another order. Where a
column of classes is added to binary tasks, the family becomes one of columns: "no" is an output whose logit is 0.

Not offered where tasks share what is learned: methods that train the layers, and controllers with hidden layers or task vectors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError, brief, choose, first_difference
from ...mathematics import derived_seed, drawing_from
from ...tasks import NO_YES, TaskFamily
from ..controller import Controller
from ..head import RESPONSE, ComodulatedHead
from .base import Method
from .readouts import NoLayers, ReadoutMethod
from .registry import make_method

Added = Mapping[str, Sequence[str]] | Sequence[str]


class GrownReadout(nn.Module):
    """A readout with outputs that were added later.

    Args:
        layers: the hidden layers, by name, with the layer of the first outputs last.
        blocks: linear maps of the hidden activity to the outputs added, one a time of adding.
        first: whether the first outputs are among the answers; if not, the added ones alone are.
        paired: how many outputs, from the first, are logits of a binary task's yes; each gets an output of no before it, 0.
    """

    def __init__(
        self, layers: dict[str, nn.Module], blocks: Sequence[nn.Module], *, first: bool = True, paired: int = 0
    ) -> None:
        super().__init__()
        self.names = tuple(layers)[: len(layers) if first else -1]
        for name in self.names:
            self.add_module(name, layers[name])
        self.added = nn.ModuleList(blocks)
        self.first, self.paired = first, paired

    def forward(self, activity: Tensor) -> Tensor:
        """Pooled decoder activity ``(..., D)`` -> logits ``(..., C)``, the first outputs before the added ones."""
        hidden = activity
        for name in self.names[:-1] if self.first else self.names:
            hidden = self.get_submodule(name)(hidden)
        first = [self.get_submodule(self.names[-1])(hidden)] if self.first else []
        logits = torch.cat([*first, *(block(hidden) for block in self.added)], -1)
        return _paired(logits, self.paired)


def begin_tasks(method: Method, added: Added) -> Method:
    """A method of new tasks alone, on copies of a fine-tuned method's frozen layers, to be trained and settled as any other.

    Args:
        method: fine-tuned on its own tasks; not changed.
        added: for a family of kind `classes`, the names of the outputs that belong to each new task, by its name. For `binary`
            and `columns`, the names of new binary tasks; or the answers of each new task, at least two, by its name.

    Returns:
        A method whose ``family`` has the n new tasks, with the C outputs of the old ones or, for `binary` and `columns`, outputs
        of its own: one a task if all of them are binary and the old ones, too, else one an answer.

    Raises:
        InputError: the tasks of ``method`` share what is learned; names that are taken or unknown; a family of another kind.
    """
    _check_growable(method)
    family = _family_of(method.family, added)
    joined_family(method.family, family)
    if isinstance(method, ReadoutMethod):
        return _readouts(method, family)
    head = _copy(method.head, family.num_tasks)
    if family.kind != "classes":
        with drawing_from(derived_seed(head.seed, "added outputs", *family.tasks)):
            block = nn.Linear(_hidden_width(head), family.num_outputs)
        _set_readout(head, GrownReadout(_layers(head), [block.to(head.decoder.weight)], first=False))
        head.num_outputs = family.num_outputs
    return _make(method, head, family)


def add_tasks(method: Method, learned: Method) -> Method:
    """A method with the tasks of another one added to its own.

    Args:
        method: fine-tuned, with K tasks; not changed.
        learned: what ``begin_tasks(method, ...)`` gave, trained and settled, with n tasks.

    Returns:
        A method with K + n tasks. Whatever it is asked about the first K, the answers have the bits of ``method``'s.

    Raises:
        InputError: ``learned`` does not stand on the layers and settings of ``method``, or has no stored gains.
    """
    _check_growable(method)
    if isinstance(method, ReadoutMethod):
        return _with_parts(method, learned)
    ours, theirs = method.adapter_identity(), learned.adapter_identity()
    for key in ("method", "residual", "modulation"):
        if differing := first_difference(theirs[key], ours[key], key):
            raise InputError(
                f"the tasks were learned with another {differing[0]}: {differing[1]!r}, here {differing[2]!r}"
            )
    layers, own = learned.head.pretrained_tensors(), method.head.pretrained_tensors()
    if (strange := [name for name in layers if name not in own or not torch.equal(layers[name], own[name])]) or (
        learned.readout != method.readout
    ):
        raise InputError(
            f"the tasks were learned on other layers ({strange[0]})" if strange
            else f"the tasks were learned with readout {learned.readout!r}, here is {method.readout!r}"
        )  # fmt: skip
    family = joined_family(method.family, learned.family)
    paired = method.family.num_outputs if family.kind != method.family.kind else method.head.paired_outputs()
    sizes = learned.head.added_output_sizes()
    head = extend_head(_copy(method.head, family.num_tasks), family.num_tasks, sizes, paired)
    grown = _make(method, head, family)
    grown.load_adapter_tensors(_joined_tensors(method, learned))
    return grown


def extend_head(
    head: ComodulatedHead, num_tasks: int, added_outputs: Sequence[int], paired: int = 0
) -> ComodulatedHead:
    """Give a head, in place, another number of tasks, and blocks of further outputs, all of them 0.

    Args:
        head: with an embedding of tasks as its controller.
        num_tasks: number of tasks it is to have.
        added_outputs: number of outputs of each new block.
        paired: number of outputs that are binary tasks' logits of yes, where the family is one of columns; see ``GrownReadout``.
    """
    head.controller = Controller(num_tasks, head.encoder_channels).to(head.decoder.weight)
    head.num_tasks, head.task_gains, head.response = num_tasks, None, None
    if added_outputs:
        before: list[nn.Module] = list(head.readout.added) if isinstance(head.readout, GrownReadout) else []
        blocks = [nn.Linear(_hidden_width(head), number).to(head.decoder.weight) for number in added_outputs]
        for block in blocks:
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)
        head.num_outputs += sum(added_outputs) + paired - head.paired_outputs()
        _set_readout(head, GrownReadout(_layers(head), [*before, *blocks], paired=paired))
    return head


def first_family(family: TaskFamily, added_outputs: Sequence[int], paired: int) -> TaskFamily:
    """The family that others were added to.

    Args:
        family: of all tasks.
        added_outputs, paired: as in ``extend_head``.

    Raises:
        InputError: the outputs added are not those of whole tasks.
    """
    if not added_outputs:
        return family
    outputs = family.num_outputs - paired - sum(added_outputs)
    if family.kind == "binary" or paired:
        return TaskFamily.from_attributes(family.tasks[:outputs])
    tasks = sum(group[-1] < outputs for group in family.members)
    first = TaskFamily.from_columns(family.tasks[:tasks], [family.answers(task) for task in range(tasks)])
    if first.num_outputs != outputs:
        raise InputError(f"outputs of {brief(list(added_outputs))} are not those of whole tasks")
    return first


def joined_family(family: TaskFamily, added: TaskFamily) -> TaskFamily:
    """The tasks of two families, the second's after the first's: of their kind, or of columns where one of them is binary.

    Raises:
        InputError: names that are taken; kinds that do not go together.
    """
    if (family.kind == "classes") != (added.kind == "classes") or (
        family.kind == "classes" and added.outputs != family.outputs
    ):
        raise InputError(
            f"tasks of kind {added.kind!r} with other outputs cannot be added to a family of {family.kind!r}"
        )
    names = set(family.tasks)
    if taken := [name for name in added.tasks if name in names]:
        raise InputError(f"there is a task {taken[0]!r} already; a new task needs a name of its own")
    tasks = family.tasks + added.tasks
    if family.kind == "classes":
        return TaskFamily(family.kind, tasks, family.outputs, family.members + added.members)
    if family.kind == added.kind == "binary":
        return TaskFamily.from_attributes(tasks)
    return TaskFamily.from_columns(
        tasks, [one.answers(task) for one in (family, added) for task in range(one.num_tasks)]
    )


def _family_of(family: TaskFamily, added: Added) -> TaskFamily:
    """The family of the new tasks alone."""
    if family.kind != "classes":
        if isinstance(added, str) or not all(isinstance(name, str) for name in added):
            raise InputError(f"new binary tasks are given as a list of their names, got {added!r}")
        answers = list(added.values()) if isinstance(added, Mapping) else [NO_YES] * len(added)
        if any(isinstance(own, str) for own in answers):
            raise InputError(f"new tasks of classes are given as lists of answers by task, got {added!r}")
        if family.kind == "binary" and all(tuple(own) == NO_YES for own in answers):
            return TaskFamily.from_attributes(tuple(added))
        return TaskFamily.from_columns(tuple(added), answers)
    if not isinstance(added, Mapping) or any(isinstance(names, str) for names in added.values()):
        raise InputError(f"new tasks are given as lists of output names by task, got {added!r}")
    places = {name: place for place, name in enumerate(family.outputs)}
    members = tuple(tuple(places[choose(name, places, "class")] for name in names) for names in added.values())
    return TaskFamily("classes", tuple(added), family.outputs, members)


def _check_growable(method: Method) -> None:
    if method.trains_layers:
        raise InputError(
            f"tasks cannot be added to method {method.name!r}: it trains the layers that all tasks share; fit it again with all"
        )
    if shared := [name for name in method.adapter_tensors() if ".mlp." in name or name.endswith(".task_vectors")]:
        raise InputError(
            f"tasks cannot be added: the controller's weights are shared by all tasks ({shared[0]}), and learning a new one "
            "would change the others; take a controller without hidden layers"
        )


def _readouts(method: ReadoutMethod, family: TaskFamily) -> ReadoutMethod:
    """A method of the same kind for other tasks: empty, or, for other groups of the same classes, with the same answers."""
    head = NoLayers(method.head.feature_mean.numel(), family.num_outputs, family.num_tasks, seed=method.head.seed)
    made = type(method)(head, family, method.readout)
    if family.kind == "classes":
        made.set_parts(method.parts)
    return made


def _with_parts(method: ReadoutMethod, learned: Method) -> ReadoutMethod:
    """A method with the parts of both; of groups of classes the outputs are shared, and there is nothing to join."""
    assert isinstance(learned, ReadoutMethod)
    grown = _readouts(method, joined_family(method.family, learned.family))
    if method.family.kind != "classes":
        grown.set_parts([*method.parts, *learned.parts])
    return grown.eval()


def _make(method: Method, head: ComodulatedHead, family: TaskFamily) -> Method:
    """A method of the same kind and settings on another head."""
    options = {name: getattr(method, name) for name in method.options}
    made = make_method(method.name, head, family, method.readout, task_bias=method.bias is not None, **options)
    for parameter in head.added_outputs():  # frozen with the layers just now, but learned with the tasks
        parameter.requires_grad_(True)
    return made.to(head.decoder.weight.device).eval()


def _copy(head: ComodulatedHead, num_tasks: int) -> ComodulatedHead:
    """A head with copies of all layers and a new controller."""
    # The response of the old tasks, which may be large, is of no use to the new ones.
    made = copy.deepcopy(head, {id(head.response): None} if head.response is not None else None)
    return extend_head(made, num_tasks, [])


def _layers(head: ComodulatedHead) -> dict[str, nn.Module]:
    """The readout's layers by name, without outputs added later."""
    return {name: layer for name, layer in head.readout.named_children() if name != "added"}


def _hidden_width(head: ComodulatedHead) -> int:
    *_, last = _layers(head).values()
    assert isinstance(last, nn.Linear)
    return last.in_features


def _set_readout(head: ComodulatedHead, readout: GrownReadout) -> None:
    head.readout = readout
    if head.frozen:
        head.freeze()


def _joined_tensors(method: Method, learned: Method) -> dict[str, Tensor]:
    """Adapter tensors of both, a task's row below the other's; the blocks of outputs one after the other."""
    ours, theirs = method.adapter_tensors(), learned.adapter_tensors()
    block = "head.readout.added."
    earlier = sum(name.startswith(block) and name.endswith(".weight") for name in ours)
    tensors = {name: tensor for name, tensor in ours.items() if name.startswith(block)}
    for name, tensor in theirs.items():
        if name.startswith(block):
            place, kind = name.removeprefix(block).split(".")
            tensors[f"{block}{earlier + int(place)}.{kind}"] = tensor
    if method.family.kind == "binary" and learned.family.kind == "columns" and "bias" in ours:
        ours["bias"] = _paired(ours["bias"], len(ours["bias"]))  # of tasks, from now on of outputs
    for name in [name for name in ours if name not in tensors]:
        if name not in theirs:
            raise InputError(f"the new tasks have no {name}; call settle(...) on them after training")
        if name.startswith(f"head.{RESPONSE}"):  # of all tasks, old and new
            if not torch.equal(ours[name], theirs[name]):
                raise InputError(f"the new tasks were learned with another shared response ({name})")
            tensors[name] = ours[name]
        else:
            tensors[name] = torch.cat([ours[name], theirs[name]])
    return tensors


def _paired(logits: Tensor, count: int) -> Tensor:
    """The first ``count`` of ``(..., C)``, each with a 0 before it: ``(..., C + count)``."""
    if not count:
        return logits
    yes, rest = logits[..., :count], logits[..., count:]
    return torch.cat([torch.stack([torch.zeros_like(yes), yes], -1).flatten(-2), rest], -1)
