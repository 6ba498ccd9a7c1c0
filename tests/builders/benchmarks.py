"""Small CTs, masks and models for the benchmark's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aiene.geometry.grid import Grid, Volume
from aiene.results.nifti import write_nifti

SIZE = (24, 36, 40)
SPACING = (5.0, 2.0, 2.0)
BLOCKS = {1: (slice(4, 8), slice(8, 14), slice(8, 14)), 2: (slice(14, 18), slice(20, 25), slice(24, 29))}
"""Two nodes, 144 and 100 voxels."""
PRIMARY = (slice(10, 13), slice(15, 19), slice(15, 19))


def grid(**changes: Any) -> Grid:
    """The grid of these CTs."""
    return Grid(**{"size": SIZE, "spacing": SPACING, "origin": (-39.0, -31.0, 700.0), **changes})


def ct(seed: int = 0, at: Grid | None = None) -> Volume:
    """A block of soft tissue in air, with two brighter nodes."""
    rng = np.random.default_rng(seed)
    hu = np.full(SIZE, -1000, np.int16)
    hu[:, 4:32, 4:36] = 40 + rng.integers(-15, 15, (SIZE[0], 28, 32))
    for block in BLOCKS.values():
        hu[block] += 60
    return Volume(hu, at or grid())


def labels(primary: bool = True, nodes: tuple[int, ...] = (1, 2), at: Grid | None = None) -> Volume:
    """The label map: 1 GTVp, 2 GTVn."""
    array = np.zeros(SIZE, np.uint8)
    if primary:
        array[PRIMARY] = 1
    for number in nodes:
        array[BLOCKS[number]] = 2
    return Volume(array, at or grid())


def write_cases(folder: Path, names: list[str], **changes: Any) -> tuple[Path, Path]:
    """Images with `_0000` and masks of these cases; the folders of both."""
    images, masks = folder / "images", folder / "masks"
    for each in (images, masks):
        each.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        write_nifti(ct(number), images / f"{name}_0000.nii.gz")
        write_nifti(labels(**changes), masks / f"{name}.nii.gz")
    return images, masks


def write_ene(file: Path, names: list[str]) -> Path:
    """ENE of both nodes of each case: the one or the other, in turn."""
    lines = ["case_id,node,ene"]
    for number, name in enumerate(names):
        lines += [f"{name},GTVn_01,{number % 2}", f"{name},2,{(number + 1) % 2}"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def tiny(folder: Path, kind: str) -> Path:
    """A small model of Hugging Face with random weights, saved as safetensors."""
    import torch
    import transformers as hf

    from aiene.benchmark.comparators.hub import quiet

    torch.manual_seed(3)
    target = folder / kind
    with quiet():
        _MODELS[kind](hf).save_pretrained(target)
    return target


def _sam(hf: Any) -> Any:
    vision = hf.SamVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, output_channels=8, image_size=64,
        patch_size=16, window_size=2, global_attn_indexes=[0], mlp_dim=16, num_pos_feats=4,
    )  # fmt: skip
    prompts = hf.SamPromptEncoderConfig(hidden_size=8, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = hf.SamMaskDecoderConfig(
        hidden_size=8, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=8
    )
    return hf.SamModel(
        hf.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    )


def _segformer(hf: Any) -> Any:
    names = {0: "background", 1: "GTVp", 2: "GTVn"}
    config = hf.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8, id2label=names, label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    return hf.SegformerForSemanticSegmentation(config)


def _swinv2(hf: Any) -> Any:
    return hf.Swinv2Model(
        hf.Swinv2Config(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4
        )
    )


def _vit_config(hf: Any) -> Any:
    return hf.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip


def _clip(hf: Any) -> Any:
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "intermediate_size": 16}  # fmt: skip
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": 50, "max_position_embeddings": 8}  # fmt: skip
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def _dinov2(hf: Any) -> Any:
    return hf.Dinov2Model(
        hf.Dinov2Config(
            image_size=28,
            patch_size=14,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            mlp_ratio=1,
        )
    )


_MODELS = {
    "sam": _sam,
    "segformer": _segformer,
    "swinv2": _swinv2,
    "vit": lambda hf: hf.ViTModel(_vit_config(hf)),
    "vit-classifier": lambda hf: hf.ViTForImageClassification(_vit_config(hf)),
    "clip": _clip,
    "dinov2": _dinov2,
    "bert": lambda hf: hf.BertModel(
        hf.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
        )
    ),
}
