"""Draw four images with diffusers' scheduler and an exported network.

    python -m diffusion_core export RUN --format diffusers --out FOLDER
    python docs/sample_with_diffusers.py FOLDER images.png

Run it where `diffusion_core` can be imported (PYTHONPATH=.), with diffusers installed.
"""

import json
import sys
from pathlib import Path

import diffusers
import safetensors.torch
import torch
from torchvision.utils import save_image

from diffusion_core.runs.presets import build_network

folder, image = Path(sys.argv[1]), sys.argv[2]
config = json.loads((folder / "unet/config.json").read_text())
network = build_network(config["network"], config["network_args"]).eval()
safetensors.torch.load_model(network, folder / "unet/diffusion_pytorch_model.safetensors")
kind = json.loads((folder / "scheduler/scheduler_config.json").read_text())["_class_name"]
scheduler = getattr(diffusers, kind).from_pretrained(folder, subfolder="scheduler")

scheduler.set_timesteps(min(50, scheduler.config.num_train_timesteps))
labels = [torch.arange(4) % len(config["class_names"])] if config["class_names"] else []
x = torch.randn(4, config["channels"], config["image_size"], config["image_size"])
with torch.inference_mode():
    for t in scheduler.timesteps:
        prediction = network(x, t.repeat(4) - config["first_timestep"], *labels)
        x = scheduler.step(prediction, t, x).prev_sample
save_image(x, image, normalize=True, value_range=(-1, 1))
