"""Generate four images from this folder with a scheduler of diffusers.

    python sample_with_diffusers.py images.png

Needs torch, diffusers and safetensors. The network is defined in network.py, beside this file.
"""

import json
import sys
from pathlib import Path

import diffusers
import network  # type: ignore[import-not-found]
import safetensors.torch
import torch
from diffusers.utils import make_image_grid
from PIL import Image

FOLDER = Path(__file__).resolve().parent
COUNT = 4


def main(out: str) -> None:
    config = json.loads((FOLDER / "unet/config.json").read_text(encoding="utf-8"))
    model = getattr(network, config["_class_name"])(**config["network_args"]).eval()
    safetensors.torch.load_model(model, FOLDER / "unet/diffusion_pytorch_model.safetensors")
    settings = json.loads((FOLDER / "scheduler/scheduler_config.json").read_text(encoding="utf-8"))
    kind = getattr(diffusers, settings["_class_name"])
    scheduler = kind.from_pretrained(FOLDER, subfolder="scheduler")

    scheduler.set_timesteps(min(50, scheduler.config.num_train_timesteps))
    labels = []
    if config["class_names"]:  # the classes in turn
        labels = [torch.arange(COUNT) % len(config["class_names"])]
    x = torch.randn(COUNT, config["channels"], config["image_size"], config["image_size"])
    with torch.inference_mode():
        for t in scheduler.timesteps:
            prediction = model(x, t.repeat(COUNT) - config["first_timestep"], *labels)
            x = scheduler.step(prediction, t, x).prev_sample
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).squeeze(-1)
    make_image_grid([Image.fromarray(image.numpy()) for image in pixels], 1, COUNT).save(out)


if __name__ == "__main__":
    main(sys.argv[1])
