"""Lists the classes of a label map in the data worker, where reading them costs no wait for the GPU."""

from mmcv.transforms import BaseTransform

from mmseg_m2f.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ListClasses(BaseTransform):
    """Notes which labels a label map holds, in the data worker; belongs right after mmseg's packing.

    The number of segments of an image is needed on the host. Where the sample does not tell it
    (`present_classes` in its metainfo), the host waits for the device once per image and step.
    """

    def transform(self, results: dict) -> dict:
        sample = results["data_samples"]
        sample.set_metainfo(dict(present_classes=tuple(sample.gt_sem_seg.data.unique().tolist())))
        return results
