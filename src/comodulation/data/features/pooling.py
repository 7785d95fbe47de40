"""From the vectors of a text's tokens to one: as the model's files say, in the layout of sentence-transformers; else their mean.

Source: Reimers, Gurevych, "Sentence-BERT" (EMNLP 2019), and the files of the library sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, brief
from ...files import read_json

# In the order in which sentence-transformers puts them behind one another.
_MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")


@dataclass(frozen=True)
class Pooling:
    """How one vector is made of a text.

    Attributes:
        modes: of pooling; several stand behind one another.
        normalize: whether the vector is scaled to length 1.
        prompt: what stands before each text. lower: whether texts are written in lower case first.
        longest: tokens of a text, where the files say.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    prompt: str = ""
    lower: bool = False
    longest: int | None = None

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Vectors of tokens ``(B, L, H)`` and their mask ``(B, L)`` -> ``(B, H)`` a mode; padding, masked 0, counts for nothing."""
        weight = mask[:, :, None].to(hidden.dtype)
        return torch.cat([_POOLED[mode](hidden, weight) for mode in self.modes], 1)


def _mean(hidden: Tensor, weight: Tensor) -> Tensor:
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def _weighted_mean(hidden: Tensor, weight: Tensor) -> Tensor:
    return _mean(hidden, weight * weight.cumsum(1))


def _last(hidden: Tensor, weight: Tensor) -> Tensor:
    """The last token that is no padding, on whichever side that is."""
    places = torch.arange(hidden.shape[1], device=hidden.device)[None, :, None]
    last = (places * weight).amax(1, keepdim=True)
    return (hidden * (places == last)).sum(1)


_POOLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda hidden, weight: hidden[:, 0],
    "max": lambda hidden, weight: hidden.masked_fill(weight == 0, torch.finfo(hidden.dtype).min).amax(1),
    "mean": _mean,
    "mean_sqrt_len": lambda hidden, weight: (hidden * weight).sum(1) / weight.sum(1).clamp(min=1).sqrt(),
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


def read_pooling(folder: Path) -> Pooling:
    """The pooling of a model's files.

    Raises:
        InputError: files that are damaged, or name a step that is not known here.
    """
    modules = _json(folder / "modules.json", list)
    if modules is None:
        return Pooling()
    values: dict[str, Any] = {}
    for number, module in enumerate(modules):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        path = folder / str(module.get("path", "")) if isinstance(module, dict) else folder
        if kind == "Pooling":
            values["modes"] = _modes(_json(path / "config.json", dict) or {}, path)
        elif kind == "Normalize":
            values["normalize"] = True
        elif kind != "Transformer" or number:
            raise InputError(
                f"{folder} has the step {brief(kind)}, which is not read here; expected Transformer, Pooling and Normalize"
            )
    about = _json(folder / "sentence_bert_config.json", dict) or {}
    if isinstance(about.get("max_seq_length"), int):
        values["longest"] = about["max_seq_length"]
    prompts = _json(folder / "config_sentence_transformers.json", dict) or {}
    named = prompts.get("prompts")
    prompt = named.get(prompts.get("default_prompt_name")) if isinstance(named, dict) else None
    return Pooling(**values, prompt=prompt if isinstance(prompt, str) else "", lower=about.get("do_lower_case") is True)


def _modes(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Of a file that names the modes, or that says of each whether it is one."""
    given = config.get("pooling_mode")
    if given is None:
        given = [
            name.removeprefix("pooling_mode_")
            for name, value in config.items()
            if value is True and "pooling_mode_" in name
        ]
    names = [given] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else []
    found = {str(name).removesuffix("_tokens").removesuffix("_token") for name in names}
    if not found or not found <= set(_MODES):
        raise InputError(f"{path} pools by {brief(sorted(found))}, expected some of {', '.join(_MODES)}")
    return tuple(mode for mode in _MODES if mode in found)


def _json(path: Path, kind: type) -> Any:
    """The value of a JSON file, None where there is none. Raises InputError for another kind of value."""
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, kind):
        raise InputError(f"{path} is damaged: it holds {brief(value)}")
    return value
