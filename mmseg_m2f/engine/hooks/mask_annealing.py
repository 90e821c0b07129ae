"""Weaning a decoder from its attention masks while it trains (EoMT, arXiv 2503.19108, section 3.3)."""

from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f.engine.hooks.preflight import unwrap_model
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class MaskAnnealing(Hook):
    """Lowers how likely the attention masks of `EncoderMaskDecoder` are used, one block after the other, to zero.

    Everything follows from the iteration, so a resumed run goes on where it was.

    Args:
        start, end: when the first block starts and the last one ends, as fractions of the run. The blocks in between
            take equal times.
        power: of the fall within a block's time.
    """

    def __init__(self, *, start: float = 1 / 6, end: float = 5 / 6, power: float = 0.9) -> None:
        if not 0 <= start < end < 1:
            raise ValueError(f"MaskAnnealing: expected 0 <= start < end < 1, got start={start}, end={end}.")
        self.start, self.end, self.power = start, end, power

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None) -> None:
        """Sets the probabilities of this iteration."""
        decoder = getattr(getattr(unwrap_model(runner.model), "decode_head", None), "query_decoder", None)
        if decoder is None or not hasattr(decoder, "set_attn_mask_probs"):
            raise ValueError(
                f"MaskAnnealing: expected EncoderMaskDecoder as model.decode_head.query_decoder, got "
                f"{type(decoder).__name__}. Take the hook out of custom_hooks."
            )
        num_blocks = len(decoder.attn_mask_probs)
        decoder.set_attn_mask_probs(self.probabilities(runner.iter / runner.max_iters, num_blocks))

    def probabilities(self, progress: float, num_blocks: int) -> list[float]:
        """That each block uses its mask, the earliest block first, when the fraction `progress` of the run is over."""
        share = (self.end - self.start) / num_blocks
        passed = [(progress - self.start - block * share) / share for block in range(num_blocks)]
        return [(1 - min(max(part, 0.0), 1.0)) ** self.power for part in passed]
