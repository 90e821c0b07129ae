"""What errors cost: how many of each kind, and the metric if they were mended."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mmseg_m2f.evaluation.metric_report import format_table

ErrorKind = Literal["class", "boundary", "split", "merge", "duplicate", "void", "missed"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class ErrorRow:
    """One kind of error.

    Attributes:
        count: pixels, segments or objects.
        mended: the metric, in [0, 1], if all errors of this kind were mended and the others stayed.
    """

    kind: ErrorKind
    count: int
    mended: float


@dataclass
class ErrorTable:
    """All kinds that a task knows.

    Attributes:
        metric: "mIoU", "PQ" or "AP".
        value: as it is.
        unit: what is counted.
    """

    metric: str
    value: float
    unit: str
    rows: Sequence[ErrorRow]

    def text(self) -> str:
        """For the terminal, what costs most first."""
        rows = sorted(self.rows, key=lambda row: -row.mended)
        table = format_table(
            {
                "error": [row.kind for row in rows],
                self.unit: [f"{row.count:,}" for row in rows],
                f"{self.metric} if mended": [f"{row.mended:.4f}" for row in rows],
                "gain": [f"{row.mended - self.value:+.4f}" for row in rows],
            }
        )
        return f"{self.metric} {self.value:.4f}\n{table}"

    def csv(self) -> str:
        """One line for each kind."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["error", self.unit, f"{self.metric}_if_mended", "gain"])
        for row in self.rows:
            writer.writerow([row.kind, row.count, row.mended, row.mended - self.value])
        return file.getvalue()
