"""SHIP's generator: a variational autoencoder whose decoder is a prompt in front of the frozen text tower.

"Improving Zero-Shot Generalization for CLIP with Synthesized Prompts", Wang et al., ICCV 2023.
https://arxiv.org/abs/2307.07397

Notation: `N` images, `V` views, `B` images of a step, `D` embedding, `M` context tokens, `W` text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.hosts.parts.bottleneck import bottleneck, linear
from ogenlib.towers import ClipLike, PromptTokens, encode_prompts, prompt_tokens

ENCODER, DECODER = 4, 8  # hidden widths over D: the released 2048 and 4096 for 512
N_CONTEXT, STD = 4, 0.02  # released code
LR, BATCH = 1e-3, 256  # released code: AdamW with torch's own weight decay
CHUNK = 256  # prompts encoded at a time


class PromptVAE(nn.Module):
    """Image feature -> latent `(D,)` -> shift of the context -> text feature of the class.

    Args:
        source: of the start.
    """

    def __init__(self, clip: ClipLike, source: torch.Generator) -> None:
        super().__init__()
        object.__setattr__(self, "clip", clip)  # outside the module tree, as in every host
        width = clip.embed_dim
        self.hidden = _start(width, ENCODER * width, source)
        self.mean = _start(ENCODER * width, width, source)
        self.log_variance = _start(ENCODER * width, width, source)
        self.down = _start(width, DECODER * width, source)
        self.up = _start(DECODER * width, clip.text.width, source)
        self.context = nn.Parameter(STD * torch.randn(N_CONTEXT, clip.text.width, generator=source))
        self.to(clip.device)

    clip: ClipLike

    def tokens(self, names: Sequence[str]) -> PromptTokens:
        return prompt_tokens(self.clip.text, names, N_CONTEXT)

    def encode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance `(B, D)` of the latent of unit features `z` `(B, D)`."""
        hidden = self.hidden(z).relu()
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, latent: Tensor, tokens: PromptTokens, labels: Tensor) -> Tensor:
        """Unit features `(B, D)` of latents `(B, D)` and classes `labels` `(B,)` into `tokens`."""
        shift = bottleneck(latent, self.down.weight, self.up.weight, self.down.bias, self.up.bias)
        context = self.context + shift[:, None]
        chunk = CHUNK if len(labels) > CHUNK else None
        return F.normalize(
            encode_prompts(self.clip.text, _chosen(tokens, labels), context, chunk=chunk).float(), dim=-1
        )

    def loss(self, z: Tensor, tokens: PromptTokens, labels: Tensor, noise: Tensor) -> Tensor:
        """Squared distance to `z` plus KL to the standard normal, both summed over `D`, mean over `B`."""
        mean, log_variance = self.encode(z)
        decoded = self.decode(mean + (log_variance / 2).exp() * noise, tokens, labels)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return ((decoded - z).square().sum(1) + kl).mean()


def fit_vae(
    clip: ClipLike, features: Tensor, labels: Tensor, names: Sequence[str], epochs: int, seed: int
) -> PromptVAE:
    """Train on features `(N, V, D)` of `labels` `(N,)` into `names`; the same for the same seed.

    A step takes one view of every image. Random numbers are drawn on the CPU, so they do not depend on the device.
    """
    draws = torch.Generator().manual_seed(seed)
    vae = PromptVAE(clip, draws)
    tokens, device = vae.tokens(names), clip.device
    optimizer = torch.optim.AdamW(vae.parameters(), LR)
    with torch.enable_grad():
        for _ in range(epochs):
            for images in torch.randperm(len(labels), generator=draws).split(BATCH):
                views = torch.randint(features.shape[1], (len(images),), generator=draws).to(features.device)
                z = F.normalize(features[images.to(features.device), views].float(), dim=-1).to(device)
                noise = torch.randn(len(images), clip.embed_dim, generator=draws).to(device)
                optimizer.zero_grad()
                vae.loss(z, tokens, labels[images.to(labels.device)].to(device), noise).backward()
                optimizer.step()
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def synthesize(vae: PromptVAE, names: Sequence[str], per_name: int, draws: torch.Generator) -> Tensor:
    """Unit features `(len(names), per_name, D)` of any names, from latents of the standard normal."""
    tokens, width = vae.tokens(names), vae.clip.embed_dim
    labels = torch.arange(len(names)).repeat_interleave(per_name)
    latent = torch.randn(len(labels), width, generator=draws)
    pieces = [
        vae.decode(part.to(vae.clip.device), tokens, owners.to(vae.clip.device))
        for part, owners in zip(latent.split(CHUNK), labels.split(CHUNK), strict=True)
    ]
    return torch.cat(pieces).unflatten(0, (len(names), per_name))


def _start(n_in: int, n_out: int, source: torch.Generator) -> nn.Linear:
    """Normal weights of std 0.02 and no bias, as released."""
    layer = linear(n_in, n_out, source=source)
    with torch.no_grad():
        layer.weight.copy_(STD * torch.randn(n_out, n_in, generator=source))
        layer.bias.zero_()
    return layer


def _chosen(tokens: PromptTokens, indices: Tensor) -> PromptTokens:
    """The prompts at `indices` `(B,)`, in that order, repeated where they repeat."""
    places = indices.tolist()
    return replace(
        tokens,
        ids=tokens.ids[indices],
        slots=tokens.slots[indices],
        lengths=tokens.lengths[indices],
        names=tuple(tokens.names[i] for i in places),
        texts=tuple(tokens.texts[i] for i in places),
        spans=tuple(tokens.spans[i] for i in places),
    )
