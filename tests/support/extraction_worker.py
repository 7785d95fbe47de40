"""One process of an extraction: `python extraction_worker.py DATA CACHE RANK WORLD [STOP]`.

Prints "started", and at the end the rows it extracted. With STOP it prints "stopped" and waits for its end once STOP rows are
there: it then has claimed its next block and holds it.
"""

import sys
import time

import torch

from comodulation.data import open_split
from comodulation.data.features import Backbone, BackboneSettings
from comodulation.data.features import extraction as features

BLOCK, BATCH = 16, 8  # ten blocks


def backbone() -> Backbone:
    return Backbone(BackboneSettings("test_resnet", "random", 32, layer=-2))


if __name__ == "__main__":
    data, cache, rank, world, *stop = sys.argv[1:]
    features.BLOCK, features.BATCH = BLOCK, BATCH
    torch.set_num_threads(1)

    def report(done: int, total: int) -> None:
        if stop and done >= int(stop[0]):
            print("stopped", flush=True)
            time.sleep(600)

    network, split = backbone(), open_split(data, "train")
    print("started", flush=True)
    result = features.extract(network, split, features.Path(cache), report=report, rank=int(rank), world=int(world))
    print(result.extracted_rows, flush=True)
