"""Pictures of labels and of training: overlays, legends, contact sheets, curves.

Images are H W 3 uint8 arrays in RGB, labels H W integer arrays of class indices, and a palette is one RGB
triple (0-255) for each class. Nothing here shows a window or touches pyplot's global state.
"""

from mmseg_m2f.visualization.curves import Curve, plot_curves
from mmseg_m2f.visualization.overlays import overlay, overlay_objects, overlay_panoptic, overlay_result
from mmseg_m2f.visualization.sheets import SheetEntry, annotate, contact_sheet, legend, scale_entry

__all__ = [
    "Curve",
    "SheetEntry",
    "annotate",
    "contact_sheet",
    "legend",
    "overlay",
    "overlay_objects",
    "overlay_panoptic",
    "overlay_result",
    "plot_curves",
    "scale_entry",
]
