"""The results of a metric: a table in the log, and named figures for the evaluator and experiment trackers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmengine.logging import print_log


@dataclass(frozen=True)
class MetricReport:
    """The figures of one metric over a data set.

    Attributes:
        title: Begins the text in the log, which goes on with "of K classes on N images".
        overall: Figures over all classes by name.
        class_figure: Name of the figure of each class.
        by_class: That figure by class index; classes without one are absent.
        columns: The table: heading, and one cell for each of the K classes.
        prefix: Begins the name of every figure.
    """

    title: str
    overall: Mapping[str, float]
    class_figure: str
    by_class: Mapping[int, float]
    columns: Mapping[str, Sequence[str]]
    prefix: str = ""

    def publish(self, classes: Sequence[str], num_images: int) -> dict[str, float]:
        """Writes table and overall figures to the log.

        Returns:
            The overall figures as `<prefix><name>` and those of classes as `<prefix><class_figure>.<class>`, the
            classes spelled as `metric_names` does.
        """
        metrics = {self.prefix + name: float(value) for name, value in self.overall.items()}
        summary = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        table = format_table({"class": classes} | dict(self.columns))
        print_log(
            f"{self.title} of {len(classes)} classes on {num_images} images\n{table}\n{summary}", logger="current"
        )
        names = metric_names(classes)
        of_classes = {f"{self.prefix}{self.class_figure}.{names[i]}": float(v) for i, v in self.by_class.items()}
        return metrics | of_classes


def metric_names(classes: Sequence[str]) -> list[str]:
    """Class names as parts of metric names that MLflow, TensorBoard and Weights & Biases take unchanged.

    Whatever is no letter, digit, hyphen or underscore becomes an underscore: "Lane Marking - Crosswalk" gives
    `Lane_Marking_-_Crosswalk`. Names that become equal, or empty, get the index of their class behind them.
    """
    spelled = [re.sub(r"[^\w-]+", "_", name).strip("_") for name in classes]
    unique = {name for name in spelled if name and spelled.count(name) == 1}
    names = []
    for index, name in enumerate(spelled):
        while name not in unique or name in names:
            name = f"{name}_{index}".strip("_")
            unique.add(name)
        names.append(name)
    return names


def format_table(columns: Mapping[str, Sequence[str]]) -> str:
    """Lines of a table: headings, then one line for each entry; the first column is aligned left, all others right."""
    texts = [[heading, *cells] for heading, cells in columns.items()]
    widths = [max(map(len, column)) for column in texts]
    lines = []
    for first, *others in zip(*texts, strict=True):
        cells = (f"  {cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append(f"{first:<{widths[0]}}" + "".join(cells))
    return "\n".join(lines)


def fraction_cell(value: float | None) -> str:
    """A fraction with four digits; a dash where there is none (None or NaN)."""
    return "-" if value is None or value != value else f"{value:.4f}"
