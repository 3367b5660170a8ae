"""OGEN from scratch: tensors in, a classifier out.

https://arxiv.org/abs/2401.15914, in the recipe for adapters that docs/ogen.md describes.

The method is written out below and needs torch alone. It starts from what any CLIP model gives: unit image features
of the base classes and unit text features of all names. `emoji_features` uses ogenlib to get them; replace it.
Prints base, new and H of zero-shot, of the host alone, and with OGEN.

Notation: `B` images, `C` names (base names first), `K` base names, `D` embedding, `S` synthesized rows.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Features:
    """What OGEN needs, and what its test needs; all rows have length one.

    train, labels: `(B, D)` and `(B,)`, images of base names only. test, test_labels: images of all names.
    text: `(C, D)` zero-shot weights of all names; the first `n_base` are base names. scale: exponentiated.
    """

    train: Tensor
    labels: Tensor
    text: Tensor
    n_base: int
    test: Tensor
    test_labels: Tensor
    scale: float


# --- 1. the host: a small residual network on the text features


class TextAdapter(nn.Module):
    """Class weights `unit(t + up(relu(down(t))))`; `up` starts at zero, so training begins at zero-shot."""

    def __init__(self, dim: int, draws: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter((2 * torch.rand(dim // 4, dim, generator=draws) - 1) / dim**0.5)
        self.up = nn.Parameter(torch.zeros(dim, dim // 4))

    def forward(self, text: Tensor) -> Tensor:
        return F.normalize(text + F.linear(F.linear(text, self.down).relu(), self.up), dim=-1)


def mixed_weights(host: TextAdapter, text: Tensor, n_base: int, share: float = 0.3) -> Tensor:
    """The host's weights for base names; for names without images, mixed with a `share` of zero-shot."""
    own = host(text)
    new = F.normalize(share * text[n_base:] + (1 - share) * own[n_base:], dim=-1)
    return torch.cat([own[:n_base], new])


# --- 2. the generator: image features of a class from its name


class Generator(nn.Module):
    """`LN(t + MLP(t))`: where the image features of a name should lie. It is regressed to real images."""

    def __init__(self, dim: int, draws: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Parameter((2 * torch.rand(dim, dim, generator=draws) - 1) / dim**0.5)
        self.last = nn.Parameter(torch.zeros(dim, dim))
        self.gain = nn.Parameter(torch.full((dim,), dim**-0.5))  # so that outputs start at length one

    def forward(self, text: Tensor) -> Tensor:
        x = text + F.linear(F.linear(text, self.first).relu(), self.last)
        return self.gain * F.layer_norm(x, x.shape[-1:], eps=1e-9)


def fit_generator(data: Features, draws: torch.Generator, steps: int = 300) -> Generator:
    """Regress a random image of a random base class from the class's name."""
    generator = Generator(data.text.shape[1], draws)
    optimizer = torch.optim.AdamW(generator.parameters(), 1e-3, weight_decay=0.01)
    for _ in range(steps):
        rows = torch.randint(len(data.train), (64,), generator=draws)
        loss = (generator(data.text[data.labels[rows]]) - data.train[rows]).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator


@torch.no_grad()
def synthesize(generator: Generator, data: Features, per_class: int, draws: torch.Generator, k: int = 3) -> Tensor:
    """`per_class` rows of every name, `(C, per_class, D)`: a mean from the name, and around it the residuals
    `x - mean` of real images of its `k` nearest base classes, so that a cloud is as wide as a real one.

    A base class borrows from its neighbours too, never from itself: all clouds are made in the same way."""
    n_base = data.n_base
    means = torch.stack([data.train[data.labels == c].mean(0) for c in range(n_base)])
    counts = data.labels.bincount(minlength=n_base).float()[data.labels, None]
    # A mean of n images is closer to them than the true mean: sqrt(n / (n - 1)) makes up for it.
    residuals = (counts / (counts - 1).clamp_min(1)).sqrt() * (data.train - means[data.labels])
    near = data.text @ data.text[:n_base].T
    near[:n_base].fill_diagonal_(-math.inf)
    neighbours = near.topk(min(k, n_base - 1), dim=1).indices
    centres = F.normalize(generator(data.text), dim=-1)
    clouds = []
    for centre, classes in zip(centres, neighbours, strict=True):
        pool = torch.cat([residuals[data.labels == c] for c in classes.tolist()])
        drawn = pool[torch.randint(len(pool), (per_class,), generator=draws)]
        # Regression shrinks or inflates what it predicts: the mean gets the length of its neighbours' means.
        clouds.append(F.normalize(means[classes].norm(dim=-1).mean() * centre + drawn, dim=-1))
    return torch.stack(clouds)


# --- 3. the teacher: adaptive local mean teacher (ALMT)


class ALMT:
    """A mean of the host's own last snapshots, over a window that grows with training."""

    def __init__(self, total: int, m_min: int = 2, m_max: int = 9, decay: float = 0.9) -> None:
        self.total, self.m_min, self.m_max, self.decay = total, m_min, m_max, decay
        self.snapshots: list[dict[str, Tensor]] = []

    def window(self, t: int) -> int:
        """After epoch `t` of `total`, the snapshots `t - window .. t` are averaged."""
        turn = (1 + math.cos(math.pi * (t + self.total) / self.total)) / 2
        return math.floor((self.m_max - self.m_min) * turn) + self.m_min

    def update(self, host: nn.Module) -> None:
        self.snapshots.append({name: p.detach().clone() for name, p in host.named_parameters()})

    def weights(self, host: TextAdapter, text: Tensor, n_base: int) -> Tensor | None:
        """Class weights of the averaged host; None before the first snapshot."""
        if not self.snapshots:
            return None
        recent = self.snapshots[-(self.window(len(self.snapshots)) + 1) :]
        mean = dict(recent[0])
        for snapshot in recent[1:]:
            mean = {name: self.decay * mean[name] + (1 - self.decay) * value for name, value in snapshot.items()}
        teacher = TextAdapter(text.shape[1], torch.Generator())
        teacher.load_state_dict(mean)
        with torch.no_grad():
            return mixed_weights(teacher, text, n_base)


# --- 4. training


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of two sets of logits, mean over rows."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def train_host(data: Features, epochs: int, seed: int) -> Tensor:
    """The host alone: cross-entropy on base names. Returns class weights `(C, D)`."""
    draws = torch.Generator().manual_seed(seed)
    host = TextAdapter(data.text.shape[1], draws)
    optimizer = torch.optim.AdamW(host.parameters(), 1e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train), generator=draws).split(32):
            logits = data.scale * data.train[rows] @ host(data.text[: data.n_base]).T
            optimizer.zero_grad()
            F.cross_entropy(logits, data.labels[rows]).backward()
            optimizer.step()
        schedule.step()
    return host(data.text).detach()


def train_ogen(
    data: Features, epochs: int, seed: int, zero_shot_kl: float = 0.1, teacher_weight: float = 1.0
) -> Tensor:
    """The same host with OGEN's terms. Returns class weights `(C, D)`."""
    draws = torch.Generator().manual_seed(seed)
    host, teacher = TextAdapter(data.text.shape[1], draws), ALMT(epochs)
    made = synthesize(fit_generator(data, draws), data, per_class=64, draws=draws)
    optimizer = torch.optim.AdamW(host.parameters(), 1e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    n_base = data.n_base
    for _ in range(epochs):
        taught = teacher.weights(host, data.text, n_base)
        for rows in torch.randperm(len(data.train), generator=draws).split(32):
            labels = torch.randint(len(data.text), (32,), generator=draws)
            cloud = made[labels, torch.randint(made.shape[1], (32,), generator=draws)]
            z, n = torch.cat([data.train[rows], cloud]), len(rows)
            logits = data.scale * z @ mixed_weights(host, data.text, n_base).T
            zero_shot = data.scale * z @ data.text.T
            loss = F.cross_entropy(logits[:n, :n_base], data.labels[rows])  # the host's own: base names compete
            loss = loss + 0.3 * F.cross_entropy(logits[n:], labels)  # synthesized rows: all names compete
            loss = loss + zero_shot_kl * kl(logits[:n], zero_shot[:n])  # do not forget what CLIP knew
            if taught is not None:
                loss = loss + teacher_weight * kl(logits, data.scale * z @ taught.T)  # nor what training found
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        teacher.update(host)
    return mixed_weights(host, data.text, n_base).detach()


# --- 5. measuring, and the one place where ogenlib is used


def accuracies(weights: Tensor, data: Features) -> tuple[float, float, float]:
    """Base among base names, new among new names, and their harmonic mean, in percent."""
    logits, base = data.test @ weights.T, data.test_labels < data.n_base
    a = (logits[base, : data.n_base].argmax(1) == data.test_labels[base]).float().mean().item()
    b = (logits[~base, data.n_base :].argmax(1) + data.n_base == data.test_labels[~base]).float().mean().item()
    return 100 * a, 100 * b, 0.0 if a + b == 0 else 200 * a * b / (a + b)


def emoji_features(shots: int, seed: int, views: int = 2) -> Features:
    """The bundled images through the bundled CLIP; any other model and data give the same tensors."""
    import ogenlib as og

    clip = og.load_backbone("ogen-tiny")
    data = og.load_dataset("emoji-categories", test_domains=["noto"])
    split = og.base_new_split(data.classnames)
    names = (*split.base, *split.new)
    picked = og.few_shot(data.train, shots=shots, seed=seed).of_classes(split.base)
    train = og.FeatureBank.extract(clip, picked, views=views, seed=seed)  # (N, views, D)
    test = og.FeatureBank.extract(clip, data.test.of_classes(names))
    text = clip.encode_text([data.templates[0].format(name) for name in names])
    rows, labels = train.features.float().flatten(0, 1), train.labels.repeat_interleave(views)
    tested, scale = test.features[:, 0].float(), float(clip.logit_scale)
    return Features(rows, labels, text, len(split.base), tested, test.labels, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description="OGEN from scratch on the bundled emoji.")
    parser.add_argument("--shots", type=int, default=16, help="training images of a base class (default 16)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over them (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="of every random draw (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the products are so small that threads would only wait for each other
    data = emoji_features(args.shots, args.seed)
    print(f"{'':<14}{'base':>8}{'new':>8}{'H':>8}")
    for what, weights in (
        ("before", data.text),
        ("host alone", train_host(data, args.epochs, args.seed)),
        ("host + OGEN", train_ogen(data, args.epochs, args.seed)),
    ):
        print(f"{what:<14}" + "".join(f"{value:>8.1f}" for value in accuracies(weights, data)))


if __name__ == "__main__":
    main()
