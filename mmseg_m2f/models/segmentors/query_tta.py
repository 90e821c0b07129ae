"""Test-time augmentation for instances and panoptic maps: queries or objects of the views are matched and averaged."""

from collections.abc import Sequence

from mmengine.config import ConfigDict
from mmengine.model import BaseTTAModel
from mmengine.structures import BaseDataElement
from torch import nn

from mmseg_m2f.core.query_merging import QueryProbs, merge_queries
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class QueryTTA(BaseTTAModel):
    """Predicts all views of an image and makes one result of their queries, by the rules of `core.query_merging`.

    Through windows, it makes one result of the objects and maps of the views, by the rules of `core.view_merging`.

    The detector undoes flips and resizing. If the flip is the last list of alternatives in `mmengine.TestTimeAug`, the
    two views of a flip are neighbours, and without windows the result for a flipped image is the flipped result, to the
    last bit (boxes: to rounding).

    Args:
        module: A `MaskDetector` with masks, or its config; DETR's, which has boxes as well, is refused, except through
            windows. Its `test_cfg.return_queries` is switched on.
        data_preprocessor: Given to the detector's config when that has none.
    """

    def __init__(
        self, module: ConfigDict | dict | nn.Module, data_preprocessor: ConfigDict | dict | None = None
    ) -> None:
        super().__init__(module, data_preprocessor=data_preprocessor)
        self.module.test_cfg = ConfigDict(self.module.test_cfg, return_queries=True)

    def merge_preds(self, data_samples_list: Sequence[Sequence[BaseDataElement]]) -> list[BaseDataElement]:
        """One sample for each image: that of its first view, with the results of the merged queries.

        Args:
            data_samples_list: For each image the samples of its views, with `pred_queries` (fields of `QueryProbs`, one
                size), or through windows with `pred_views`.
        """
        merged = []
        for views in data_samples_list:
            sample = views[0]
            if "pred_views" in sample:
                scales = zip(*(view.pred_views for view in views), strict=True)  # flips are neighbours
                result = self.module.result_of_views([part for parts in scales for part in parts])
                del sample.pred_views
            else:
                probs = [QueryProbs(**dict(view.pred_queries.items())) for view in views]
                result = self.module.results_of_probs(merge_queries(probs))
                del sample.pred_queries
            result.write(sample, score_temperature=self.module.test_cfg.score_temperature)
            merged.append(sample)
        return merged
