"""Test-time augmentation for semantic segmentation: the average of the class scores over the views."""

from collections.abc import Sequence

from jaxtyping import Float
from mmengine.config import ConfigDict
from mmengine.model import BaseTTAModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmseg_m2f.core.confidence import image_certainty
from mmseg_m2f.core.view_merging import mean_scores
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import write_certainty, write_semantic


@MODELS.register_module()
class SemanticTTA(BaseTTAModel):
    """Averages `seg_logits` over the views of an image and takes the best class of each pixel.

    `scores = Σ_v scores_v / V` over V views, without a softmax: a mask classifier's scores lie in [0, Q], and a softmax
    would reduce the weight of confident views. The segmentor undoes flips and resizing. If the flip is the last list of
    alternatives in `mmcv.TestTimeAug`, the two views of a flip are neighbours, and the prediction for a flipped image
    equals the flipped prediction to the last bit.

    Args:
        module: The segmentor, or its config. Its `test_cfg.return_scores` is switched on.
        data_preprocessor: Given to the segmentor's config when that has none.
    """

    def __init__(
        self, module: ConfigDict | dict | nn.Module, data_preprocessor: ConfigDict | dict | None = None
    ) -> None:
        super().__init__(module, data_preprocessor=data_preprocessor)
        self.module.test_cfg = ConfigDict(self.module.test_cfg or {}, return_scores=True)

    def merge_preds(self, data_samples_list: Sequence[Sequence[BaseDataElement]]) -> list[BaseDataElement]:
        """One sample for each image: that of its first view, with the merged scores, labels and certainty.

        Args:
            data_samples_list: For each image the samples of its views, with `seg_logits` (K H W, one size).

        Raises:
            ValueError: A view has no scores.
        """
        merged = []
        for views in data_samples_list:
            scores = mean_scores([_scores(view) for view in views])
            sample = views[0]
            labels = scores.argmax(0)
            write_semantic(sample, labels, scores)
            temperature = self.module.test_cfg.get("temperature")
            if temperature is not None:
                write_certainty(sample, image_certainty(scores, labels, temperature))
            merged.append(sample)
        return merged


def _scores(view: BaseDataElement) -> Float[Tensor, "K H W"]:
    if "seg_logits" not in view:
        raise InvalidValueError(
            f"SemanticTTA, {view.metainfo.get('img_path')}: expected seg_logits from the segmentor, got "
            f"{view.keys()}. Wrap a segmentor that keeps its scores under test_cfg.return_scores=True."
        )
    return view.seg_logits.data
