"""The benchmark for real: phantoms, the default bundle, two degraded copies, three Hugging Face models.

    python -m tools.measurements.benchmark_trial --work DIR [--cases 30] [--jobs 2]

Everything is made here: coarse phantom CTs with their labels and ENE, two copies of the default bundle with
noise on their weights, a small SAM, SegFormer and SwinV2 from their configuration classes with random weights
(architectures are proven so, not models: their figures must be poor), and a folder of predictions: the truth
shifted by one voxel. A run that was ended goes on when it is called again.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from aiene.geometry.grid import Volume
from aiene.models.bundle import default_folder, find_bundle, write_card
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti

FIRST_SEED = 970_000
SETTINGS = PhantomSettings(size=(70, 128, 128), spacing=(4.0, 2.0, 2.0), nodes=(1, 5), tilt_degrees=2.0)


def main() -> int:
    """Make what is missing, then run `aiene benchmark`."""
    words = _words()
    work: Path = words.work
    make_cases(work, words.cases)
    bundles = [make_degraded(work / "bundles", name, noise) for name, noise in DEGRADED.items()]
    models = make_hf_models(work / "hf")
    from aiene.cli.benchmark import compare

    given = {
        "image_dir": work / "images",
        "seg_dir": work / "masks",
        "ene_csv": work / "ene.csv",
        "models": ["default", *map(str, bundles)],
        "hf_models": [str(model) for model in models],
        "predictions": [f"truth shifted by a voxel={work / 'shifted'}"],
        "reference": "default",
    }
    config = work / "benchmark_config.yaml"
    config.write_text("seed: 7\nresamples: 2000\n", encoding="utf-8")
    start = time.perf_counter()
    code = compare(config, {**given, "leaderboard": work / "board.sqlite"}, work / "results", jobs=words.jobs)
    print(f"{time.perf_counter() - start:.0f} s")
    return code


DEGRADED = {"noisy_1": 0.10, "noisy_2": 0.25}
"""Name and noise, as a share of each weight tensor's standard deviation."""


def make_cases(work: Path, number: int) -> None:
    """Images, masks, shifted masks, and the table of ENE by a point in each node."""
    rows: list[list[object]] = []
    for folder in ("images", "masks", "shifted"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    for place in range(number):
        case_id = f"phantom_{place + 1:02d}"
        phantom = make_phantom(FIRST_SEED + place, SETTINGS)
        for node in phantom.nodes:
            voxels = np.argwhere(phantom.node_map.array == node.label)
            if len(voxels):
                point = phantom.ct.grid.points(voxels[len(voxels) // 2])
                rows.append([case_id, *(round(float(v), 2) for v in point), int(node.ene)])
        if (work / "shifted" / f"{case_id}.nii.gz").is_file():
            continue
        write_nifti(phantom.ct, work / "images" / f"{case_id}_0000.nii.gz")
        write_nifti(phantom.labels, work / "masks" / f"{case_id}.nii.gz")
        shifted = Volume(np.roll(phantom.labels.array, 1, axis=2), phantom.labels.grid)
        write_nifti(shifted, work / "shifted" / f"{case_id}.nii.gz")
    with (work / "ene.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case_id", "x_mm", "y_mm", "z_mm", "ene"])
        writer.writerows(rows)


def make_degraded(folder: Path, name: str, noise: float) -> Path:
    """A copy of the default bundle with noise on the weights of both networks."""
    import torch
    from safetensors.torch import load_file, save_file

    target = folder / name
    if (target / "model.json").is_file():
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(default_folder(), target, ignore=shutil.ignore_patterns("__pycache__"))
    draw = torch.Generator().manual_seed(len(name) + int(noise * 1000))

    def noisy(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.ndim < 2:  # not the statistics of normalisations
            return tensor
        steps = torch.randn(tensor.shape, generator=draw) * tensor.float().std() * noise
        return (tensor.float() + steps).to(tensor.dtype)

    checkpoint = target / "segmenter" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    content["network_weights"] = {key: noisy(value) for key, value in content["network_weights"].items()}
    torch.save(content, checkpoint)
    weights = target / "classifier" / "weights.safetensors"
    save_file({key: noisy(value) for key, value in load_file(weights).items()}, weights)
    card = find_bundle("default").card.model_dump(mode="json", exclude={"files"})
    (target / "model.json").unlink()
    write_card(target, {**card, "name": name, "provenance": {"noise": noise}})
    return target


def make_hf_models(folder: Path) -> list[Path]:
    """A small SAM, SegFormer and SwinV2 with random weights of a fixed seed."""
    import torch
    import transformers as hf

    torch.manual_seed(7)
    folders = [folder / name for name in ("tiny-sam", "tiny-segformer", "tiny-swinv2")]
    if not folders[0].is_dir():
        vision = hf.SamVisionConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, output_channels=16, image_size=128,
            patch_size=16, window_size=4, global_attn_indexes=[1], mlp_dim=64, num_pos_feats=8,
        )  # fmt: skip
        prompts = hf.SamPromptEncoderConfig(
            hidden_size=16, image_size=128, patch_size=16, mask_input_channels=4
        )
        decoder = hf.SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=32, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=16
        )
        config = hf.SamConfig(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
        )
        hf.SamModel(config).save_pretrained(folders[0])
    if not folders[1].is_dir():
        labels = {0: "background", 1: "GTVp", 2: "GTVn"}
        config = hf.SegformerConfig(
            hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4],
            decoder_hidden_size=16, id2label=labels, label2id={n: i for i, n in labels.items()},
        )  # fmt: skip
        hf.SegformerForSemanticSegmentation(config).save_pretrained(folders[1])
    if not folders[2].is_dir():
        config = hf.Swinv2Config(
            image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
        )
        hf.Swinv2Model(config).save_pretrained(folders[2])
    return folders


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything")
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
