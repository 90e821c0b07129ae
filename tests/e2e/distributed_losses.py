"""Run by `test_distributed.py`: losses and gradients of this rank's share of a fixed batch, saved by rank 0.

usage: distributed_losses.py OUT RANK WORLD_SIZE
"""

import faulthandler
import gc
import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import mmseg_m2f.registry

SEGMENTS = [[0, 1, 2], [1, 3, 3]]  # not as many in each image: losses are divided by sums over ranks


def fixed_points(*shape: int, **_: object) -> torch.Tensor:
    """Stands in for `torch.rand`: the same points for every row, whatever the process and the batch."""
    points = torch.arange(1, shape[-2] + 1).unsqueeze(1) * torch.tensor([0.7548776662, 0.5698402910]) % 1
    return points.expand(shape)


def build_model() -> torch.nn.Module:
    cfg = Config.fromfile("configs/_base_/models/mask2former_tiny.py").model
    cfg.decode_head.num_classes = 5
    cfg.decode_head.criterion.sampling.num_points = 64
    cfg.backbone = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
    torch.manual_seed(0)
    return MODELS.build(cfg).train()


def make_batch() -> tuple[torch.Tensor, list[SegDataSample]]:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    samples = []
    for classes in SEGMENTS:
        label_map = torch.tensor(classes).repeat_interleave(22)[:64].expand(1, 64, -1).clone()
        label_map[:, :5] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label_map)))
    return images, samples


def save_losses_and_gradient(out: str, rank: int, world: int) -> None:
    model = build_model()
    # No find_unused_parameters: every parameter must take part.
    parallel = MMDistributedDataParallel(model, broadcast_buffers=False)
    images, samples = make_batch()
    losses = parallel(images[rank::world], samples[rank::world], mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    names = sorted(losses)
    values = torch.stack([losses[name].detach() for name in names])
    dist.all_reduce(values)
    if rank == 0:
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        torch.save(dict(losses=dict(zip(names, (values / world).tolist(), strict=True)), gradient=gradient), out)


def main(out: str, rank: int, world: int) -> None:
    assert mmseg_m2f.registry
    torch.set_num_threads(1)
    torch.rand = fixed_points
    faulthandler.dump_traceback_later(240, exit=True)  # where it hangs, if it does
    dist.init_process_group("gloo", init_method=f"file://{out}.meeting", rank=rank, world_size=world)
    save_losses_and_gradient(out, rank, world)
    # The wrapper must be gone first: the last owner of a process group may not be torch's reducer, which keeps Python's
    # lock while it waits for threads that want it.
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
