"""Weaning a decoder from its attention masks while it trains (EoMT, arXiv 2503.19108, section 3.3)."""

from collections.abc import Mapping, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f.engine.hooks.preflight import unwrap_model
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class MaskAnnealing(Hook):
    """Lowers how likely the attention masks of `EncoderMaskDecoder` are used, one block after the other, to zero.

    Everything follows from the iteration, so a resumed run goes on where it was.

    Args:
        start, end: when the first block starts and the last one ends, as fractions of the run.
        length: how long each block takes, as a fraction of the run. The blocks start at equal distances: published are
            three with gaps between them (ViT-S, ViT-B), four without (ViT-L) and five that overlap (ViT-g).
        power: of the fall within a block's time.
        blocks: when each block starts and ends, as fractions of the run, instead of `start`, `end` and `length`.
    """

    def __init__(
        self,
        *,
        start: float = 1 / 6,
        end: float = 5 / 6,
        length: float = 1 / 6,
        power: float = 0.9,
        blocks: Sequence[Sequence[int | float]] | None = None,
    ) -> None:
        self.power, self.blocks = power, blocks
        if blocks is not None:
            if any(len(times) != 2 or not 0 <= times[0] < times[1] <= 1 for times in blocks):
                raise InvalidValueError(
                    f"MaskAnnealing: expected a start and an end for each block, 0 <= start < end <= 1, got {blocks}."
                )
            return
        if not 0 <= start < end < 1:
            raise InvalidValueError(f"MaskAnnealing: expected 0 <= start < end < 1, got start={start}, end={end}.")
        if not 0 < length <= end - start:
            raise InvalidValueError(
                f"MaskAnnealing: expected 0 < length <= end - start = {end - start:.4g}, got length={length}. For "
                "blocks one after the other take that over the number of joint blocks."
            )
        self.start, self.end, self.length = start, end, length

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None) -> None:
        """Sets the probabilities of this iteration."""
        decoder = getattr(getattr(unwrap_model(runner.model), "decode_head", None), "query_decoder", None)
        if decoder is None or not hasattr(decoder, "set_attn_mask_probs"):
            raise InvalidValueError(
                f"MaskAnnealing: expected EncoderMaskDecoder as model.decode_head.query_decoder, got "
                f"{type(decoder).__name__}. Take the hook out of custom_hooks."
            )
        num_blocks = len(decoder.attn_mask_probs)
        decoder.set_attn_mask_probs(self.probabilities(runner.iter / runner.max_iters, num_blocks))

    def probabilities(self, progress: float, num_blocks: int) -> list[float]:
        """That each block uses its mask, the earliest block first, when the fraction `progress` of the run is over."""
        times = self._even(num_blocks) if self.blocks is None else self.blocks
        if len(times) != num_blocks:
            raise InvalidValueError(
                f"MaskAnnealing: blocks has times for {len(times)} blocks, expected {num_blocks}, as many as the "
                "decoder has attention masks."
            )
        passed = [(progress - start) / (end - start) for start, end in times]
        return [(1 - min(max(part, 0.0), 1.0)) ** self.power for part in passed]

    def _even(self, num_blocks: int) -> list[tuple[float, float]]:
        distance = (self.end - self.start - self.length) / max(num_blocks - 1, 1)
        starts = [self.start + block * distance for block in range(num_blocks)]
        return [(start, start + self.length) for start in starts]
