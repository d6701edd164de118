"""What a competent user writes in half an hour with Ray Data: the script that ``flows/bench.py`` compares with.

    python plain_script.py FOLDER OUTPUT MODEL HEIGHTxWIDTH BATCH_SIZE ACTORS GPUS_PER_ACTOR

Images in; Parquet files of class indices (int64, at the network's size: it does not even go back to the
image's) out. One bad file stops it, and a second run starts over. One CPU stays free, or nothing would read.
The column ``at`` is the bench's: when the mask was computed.
"""

import sys
import time

import numpy as np
import ray
import torch
from torchvision.models import get_model


class Model:
    def __init__(self, name: str, device: str) -> None:
        self.network = get_model(name, weights=None, weights_backbone=None).eval().to(device)
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
        self.std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    @torch.inference_mode()
    def __call__(self, batch: dict) -> dict:
        images = torch.from_numpy(batch["image"]).to(self.mean.device).permute(0, 3, 1, 2) / 255
        masks = self.network((images - self.mean) / self.std)["out"].argmax(1)
        return {"path": batch["path"], "mask": masks.cpu().numpy(), "at": np.full(len(masks), time.time())}


if __name__ == "__main__":
    folder, output, name, size, batch_size, actors, gpus = sys.argv[1:]
    height, width = map(int, size.split("x"))
    ray.init(include_dashboard=False, log_to_driver=False)
    images = ray.data.read_images(folder, size=(height, width), mode="RGB", include_paths=True)
    masks = images.map_batches(
        Model,
        fn_constructor_args=(name, "cuda" if float(gpus) else "cpu"),
        batch_size=int(batch_size),
        compute=ray.data.ActorPoolStrategy(size=int(actors)),
        num_cpus=1,
        num_gpus=float(gpus),
    )
    masks.write_parquet(output)
