"""A backbone as a folder in open_clip's own format: `open_clip_config.json` and `open_clip_model.safetensors`.

Notation: none; nothing here looks inside tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor

from ogenlib.towers.backbone import Backbone, load_backbone
from ogenlib.towers.hub import fetching
from ogenlib.towers.source import CONFIG_FILE, WEIGHTS_FILE, find_source
from ogenlib.utils.documents import write_document
from ogenlib.utils.tensors import write_tensors

_PROBE = "a photo of a small dog."


def model_config(clip: Backbone) -> dict[str, Any]:
    """open_clip's `model_cfg` of a loaded backbone, with the activation that it runs.

    Raises:
        ValueError: open_clip has no configuration under the backbone's name.
    """
    with fetching(False):  # it was opened from what lies here
        config = find_source(clip.name, clip.pretrained, download=False).config
    return {**deepcopy(config), "quick_gelu": clip.quick_gelu}


def write_open_clip(clip: Backbone, folder: Path, replaced: Mapping[str, Tensor] | None = None) -> None:
    """Write the model into an existing folder, open it again, and compare.

    Args:
        folder: `open_clip.create_model(f"local-dir:{folder}")` reads it.
        replaced: tensors of the state dict to write in place of the model's own.

    Raises:
        ValueError: `replaced` does not fit the model, or open_clip makes another model of what was written.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in clip.model.state_dict().items()}
    for name, tensor in (replaced or {}).items():
        if name not in state or state[name].shape != tensor.shape:
            given = tuple(state[name].shape) if name in state else "none"
            raise ValueError(f"merged tensor {name!r} is {tuple(tensor.shape)}, the model's is {given}")
        state[name] = tensor.detach().cpu().to(state[name].dtype).contiguous()
    document = {"model_cfg": model_config(clip), "preprocess_cfg": clip.preprocess_cfg}
    write_document(folder / CONFIG_FILE, document)
    quick = "true" if clip.quick_gelu else "false"
    write_tensors(folder / WEIGHTS_FILE, state, metadata={"format": "pt", "quick_gelu": quick})
    if hasattr(clip.tokenizer, "save_pretrained"):
        clip.tokenizer.save_pretrained(str(folder))  # open_clip reads a Hugging Face tokenizer from the folder
    again = load_backbone(f"local-dir:{folder}", precision=clip.precision, download=False)
    same_text = (again.tokenizer([_PROBE]) == clip.tokenizer([_PROBE])).all()
    same_model = all(v.equal(state[k]) for k, v in again.model.state_dict().items())
    if not (same_text and same_model and again.preprocess_cfg == clip.preprocess_cfg):
        raise ValueError(
            f"open_clip opens another {'model' if same_text else 'tokenizer'} than {clip.name!r} from its folder; "
            "this model has no open_clip export: use --format head or --format onnx"
        )
