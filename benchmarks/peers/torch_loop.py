"""A plain PyTorch loop: the images in memory, a permutation an epoch, rows by index."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import DROPOUT, LEARNING_RATE, MEAN, STD, Work, images


class _Normalize(nn.Module):
    def forward(self, pixels: Any) -> Any:
        return (pixels.float() / 255.0 - MEAN) / STD


class _Block(nn.Module):
    """A residual block; from the second stage on it halves the image."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.two = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels) for _ in range(3 if stride > 1 else 2)])
        self.shortcut = nn.Conv2d(before, channels, 1, bias=False) if stride > 1 else None

    def forward(self, x: Any) -> Any:
        y = self.norms[1](self.two(functional.relu(self.norms[0](self.one(x)))))
        if self.shortcut is not None:
            x = self.norms[2](self.shortcut(functional.avg_pool2d(x, 2, ceil_mode=True)))
        return functional.relu(x + y)


def build(model: str) -> Any:
    """The model, from uint8 images `[batch, 1, 28, 28]` to logits."""
    if model == "mlp":
        return nn.Sequential(_Normalize(), nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    if model == "resnet":
        stem = [_Normalize(), nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        blocks = [_Block(16, 16, 1), _Block(16, 32, 2), _Block(32, 64, 2)]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    first = [_Normalize(), nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(3136, 128), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(128, 10)]
    return nn.Sequential(*first, *second, *head)


def make(work: Work, compiled: bool = False) -> Callable[[], None]:
    """See `benchmarks.peers`. Channels last, which is the faster layout on this kind of processor."""
    pixels, labels = images(work)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)
    model = build(work.model).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    forward = torch.compile(model) if compiled else model

    def step(rows: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bfloat16"):
            loss = functional.cross_entropy(forward(x[rows]), y[rows])
        loss.backward()
        optimizer.step()

    def epoch() -> None:
        model.train()
        for rows in torch.randperm(len(x)).split(work.batch_size):
            step(rows)

    return epoch
