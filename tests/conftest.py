"""Tests run on one thread: their tensors are small, and two threads only get in each other's way."""

import torch

torch.set_num_threads(1)
