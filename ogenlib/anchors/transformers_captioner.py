"""Captions by an image-to-text model of the transformers library: BLIP-2, BLIP, GIT, ViT-GPT2 and the like.

Needs the extra ``captions``. Weights are those that transformers finds under the model's name or folder.

Notation: `N` images, `B` images a pass.
"""

from __future__ import annotations

from typing import Any

import torch
from tqdm import tqdm

from ogenlib.data.dataset import ImageSet


class TransformersCaptioner:
    """One caption an image, written greedily (or by beams), so that two runs write the same.

    Args:
        model: name of the hub or folder, as "Salesforce/blip2-opt-2.7b".
        prompt: what every caption is to go on from, for models that take one; it is cut off again.
        batch_size: `B`.
        max_new_tokens, num_beams: of `generate`.
        dtype: of the weights; None for those of the files.
        options: further arguments of `from_pretrained` (`revision`, `cache_dir`, `local_files_only`, ...).

    Raises:
        ImportError: transformers is not installed.
        ValueError: a batch or length below 1, or (when it captions) an image that cannot be read.
    """

    def __init__(
        self,
        model: str,
        *,
        prompt: str | None = None,
        batch_size: int = 8,
        max_new_tokens: int = 30,
        num_beams: int = 1,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        progress: bool = False,
        **options: Any,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens), ("num_beams", num_beams)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        processor_class, model_class = _classes()
        self.name, self.prompt, self.batch_size, self.progress = model, prompt, batch_size, progress
        self.device = torch.device(device)
        self.generation = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": False}
        self.processor: Any = processor_class.from_pretrained(model, **options)
        kind = {} if dtype is None else {"torch_dtype": dtype}
        self.model: Any = model_class.from_pretrained(model, **kind, **options).to(self.device).eval()

    @torch.no_grad()
    def caption(self, images: ImageSet) -> list[str]:
        """N texts, without the prompt and without spaces around them."""
        texts: list[str] = []
        with tqdm(total=len(images), desc="captioning", unit="image", disable=not self.progress) as bar:
            for start in range(0, len(images), self.batch_size):
                indices = range(start, min(start + self.batch_size, len(images)))
                texts += self._written([images.open(i) for i in indices])
                bar.update(len(indices))
        return texts

    def _written(self, pictures: list[Any]) -> list[str]:
        asked = {} if self.prompt is None else {"text": [self.prompt] * len(pictures)}
        inputs = self.processor(images=pictures, return_tensors="pt", **asked).to(self.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        ids = self.model.generate(**inputs, **self.generation)
        texts = [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]
        prompt = (self.prompt or "").strip()
        # Some models repeat the prompt and some do not.
        return [text.removeprefix(prompt).strip() for text in texts]


def _classes() -> tuple[Any, Any]:
    """The processor's and the model's class; ImportError naming the extra."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "TransformersCaptioner needs transformers: pip install 'ogenlib[captions]' (or write captions to a file "
            "elsewhere and use FileCaptions)"
        ) from error
    # Older releases name the class of all image-to-text models otherwise.
    for name in ("AutoModelForImageTextToText", "AutoModelForVision2Seq"):
        model_class = getattr(transformers, name, None)
        if model_class is not None:
            return transformers.AutoProcessor, model_class
    raise ImportError(
        f"transformers {transformers.__version__} has no AutoModelForImageTextToText: pip install 'ogenlib[captions]'"
    )
