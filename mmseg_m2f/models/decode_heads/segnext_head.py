"""SegNeXt's decode head (arXiv 2209.08575, section 3.2)."""

from mmengine.config import ConfigDict
from mmseg.models.decode_heads.ham_head import LightHamHead

from mmseg_m2f.models.factorisation import fix_bases
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class SegNeXtHead(LightHamHead):
    """`mmseg.LightHamHead` with fixed initial bases in evaluation: the same image gives the same result.

    Parameters, training and checkpoints are those of `mmseg.LightHamHead`; see `SteadyNMF`.

    Args:
        ham_channels: width of the factorised map.
        ham_kwargs: `MD_R` bases, `MD_S` groups of channels, `train_steps` and `eval_steps` of the factorisation.
        options: the arguments of mmseg's `BaseDecodeHead`.
    """

    def __init__(
        self, *, ham_channels: int = 512, ham_kwargs: ConfigDict | dict | None = None, **options: object
    ) -> None:
        super().__init__(ham_channels=ham_channels, ham_kwargs=ham_kwargs or {}, **options)
        fix_bases(self.hamburger, ham_kwargs or {})
