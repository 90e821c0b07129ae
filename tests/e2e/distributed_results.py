"""Run by `test_distributed_results.py`: this rank's share of results that equal the truth, saved as a test saves them.

usage: distributed_results.py DATA OUT RANK WORLD_SIZE
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.datasets import CocoPanoptic
from mmseg_m2f.engine.hooks import SavePredictions

PIPELINE = [
    dict(type="mmengine.LoadImageFromFile"),
    dict(type="mmseg_m2f.LoadPanoptic"),
    dict(type="mmseg_m2f.SegmentsToObjects"),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "ori_shape")),
]


def perfect(sample: DetDataSample) -> DetDataSample:
    """The truth as a prediction of all three kinds."""
    objects, semantic = sample.gt_instances, sample.gt_sem_seg.sem_seg.long()
    panoptic = semantic.clone()
    for number, (mask, label) in enumerate(zip(objects.masks, objects.labels, strict=True), start=1):
        panoptic[0, mask] = label + INSTANCE_OFFSET * number
    sample.pred_panoptic_seg = PixelData(sem_seg=panoptic)
    sample.pred_sem_seg = PixelData(sem_seg=semantic)
    boxes = torch.zeros(len(objects.labels), 4)
    scores = torch.linspace(0.9, 0.5, len(objects.labels))
    sample.pred_instances = InstanceData(labels=objects.labels, masks=objects.masks, scores=scores, bboxes=boxes)
    return sample


def main() -> None:
    data, out, rank, world = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dist.init_process_group("gloo", init_method=f"file://{data}/meeting", rank=rank, world_size=world)
    prefix = dict(img_path="", seg_map_path="segments")
    dataset = CocoPanoptic("data.json", data_root=str(data), data_prefix=prefix, pipeline=PIPELINE, test_mode=True)
    hook, runner = SavePredictions(str(out)), SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    # As mmengine's sampler: every `world`th image, and the first ones again until all ranks have equally many.
    indices = [*range(len(dataset)), *range(-len(dataset) % world)][rank::world]
    for batch, index in enumerate(indices):
        hook.after_test_iter(runner, batch, {}, [perfect(dataset[index]["data_samples"])])
    hook.after_test_epoch(runner)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
