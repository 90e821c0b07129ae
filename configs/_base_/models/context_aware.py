# CAC (arXiv 2303.11633) around the head of another ingredient, for coarse maps: every added loss compares at the size
# of the labels, placed as the host's own loss places its logits.
context_aware = dict(type="mmseg_m2f.ContextAwareHead", aux_align_corners=False, distill_size="labels")
