"""Names of backbones, and the architectures that they stand for."""

from __future__ import annotations

from ...errors import choose
from .small_resnets import SMALL_RESNETS

EFFICIENTNET_LITE0 = "efficientnet-lite0"


def architecture_of(name: str) -> str:
    """timm's name of a backbone's architecture, or the package's own. Raises InputError for one that is not known."""
    import timm

    if name == EFFICIENTNET_LITE0:
        return "tf_efficientnet_lite0"
    return choose(name.split(".")[0], [EFFICIENTNET_LITE0, *SMALL_RESNETS, *timm.list_models()], "backbone")
