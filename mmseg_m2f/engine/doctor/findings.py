"""What is wrong with data or config, from the facts of the files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.engine.doctor.facts import SampleFacts, duplicates, total_histogram
from mmseg_m2f.structures import IGNORE_INDEX

SEVERITIES = ("error", "warning", "note")

_MOST_LINES = 10  # files that the terminal shows


@dataclass(frozen=True)
class Finding:
    """One fault: how bad, where, what, and what to do.

    Args:
        key: Of the config, which decides about it.
        files: Those at fault.
        change: Of the config, by dotted keys, that mends it.
    """

    severity: str
    key: str
    text: str
    remedy: str
    files: tuple[str, ...] = ()
    change: Mapping[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """As the terminal shows it."""
        more = len(self.files) - _MOST_LINES
        shown = [f"[{self.severity}] {self.key}: {self.text} {self.remedy}"]
        shown += [f"    {file}" for file in self.files[:_MOST_LINES]]
        return shown + ([f"    and {more} more, which the page of --out lists"] if more > 0 else [])


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Errors, warnings, notes; within each those of most files first."""
    return sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), -len(each.files)))


def findings_of_data(
    facts: Sequence[SampleFacts], *, loop: str, classes: Sequence[str], cfg: Config, void: int = IGNORE_INDEX
) -> list[Finding]:
    """All that the files of one loop show."""
    source = f"{loop}_dataloader.dataset"
    found: list[Finding] = []
    for check in (_files, _pixels, _labels, _objects):
        found += check(facts, source, classes, cfg, void)
    return found


def leakage(train: Sequence[SampleFacts], val: Sequence[SampleFacts]) -> list[Finding]:
    """Images of the training set that are also in the validation set."""
    of_train = {sample.digest: sample.image for sample in train if sample.digest}
    files = tuple(f"{sample.image} = {of_train[sample.digest]}" for sample in val if sample.digest in of_train)
    if not files:
        return []
    text = f"{len(files)} images of the validation set are in the training set too: metrics are too good."
    return [Finding("error", "val_dataloader.dataset", text, "Remove them from one of the two.", files)]


def findings_of_config(cfg: Config, *, processes: int = 1) -> list[Finding]:
    """Batch size and learning rate against the recipe."""
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    wrapper = cfg.get("optim_wrapper") or {}
    counts, size = int(wrapper.get("accumulative_counts", 1)), int(cfg.train_dataloader.get("batch_size") or 0)
    effective = size * counts * processes
    if not base or not effective or effective == base or (cfg.get("auto_scale_lr") or {}).get("enable"):
        return []
    rate = (wrapper.get("optimizer") or {}).get("lr")
    change = {"optim_wrapper.optimizer.lr": rate * effective / base} if rate else {}
    scaled = f"{rate * effective / base:.3g}" if rate else f"{effective / base:.3g} times that of the recipe"
    return [
        Finding(
            "warning",
            "optim_wrapper.optimizer.lr",
            f"is {rate} for {base} images a step, but {processes} processes x {size} images x {counts} accumulated "
            f"batches are {effective}.",
            f"Train with --auto-scale-lr, or set it to {scaled}.",
            change=change,
        )
    ]


def _files(facts: Sequence[SampleFacts], source: str, *_: object) -> Iterator[Finding]:
    if broken := tuple(sample.fault for sample in facts if sample.fault):
        text = f"{len(broken)} of {len(facts)} samples cannot be read."
        yield Finding("error", source, text, "Copy these files again, or remove them.", broken)
    if equal := tuple(f"{second} = {first}" for first, second in duplicates(facts)):
        text = f"{len(equal)} images have the same content as another one."
        yield Finding("warning", source, text, "Remove the copies.", equal)


def _pixels(facts: Sequence[SampleFacts], source: str, *_: object) -> Iterator[Finding]:
    def named(test: Callable[[SampleFacts], bool]) -> tuple[str, ...]:
        return tuple(sample.image for sample in facts if test(sample))

    turned = named(lambda s: s.pixels is not None and s.pixels.orientation > 1)
    if turned:
        text = f"{len(turned)} images are turned by an EXIF tag; their labels may lie as stored or as shown."
        remedy = "Turn the pixels (`mogrify -auto-orient`), or remove the tag, so that image and label agree."
        yield Finding("warning", source, text, remedy, turned)
    deep = named(lambda s: s.pixels is not None and (s.pixels.bits > 8 or s.pixels.is_float))
    if deep:
        text = f"{len(deep)} images have more than 8 bits in a channel, which the loading cuts off or scales."
        yield Finding("warning", source, text, "Convert them to 8 bits with the window that matters.", deep)
    channels = {sample.channels for sample in facts if sample.channels}
    if len(channels) > 1:
        most = max(channels, key=lambda c: sum(sample.channels == c for sample in facts))
        others = named(lambda s: s.channels not in (None, most))
        text = f"{len(others)} images have other channels than the others ({sorted(c for c in channels if c)})."
        yield Finding("note", source, text, "Alpha is dropped and grey repeated in three channels.", others)
    skew = tuple(s.label for s in facts if s.label_size and s.size and s.label_size != s.size)
    if skew:
        text = f"{len(skew)} labels have another size than their image."
        yield Finding("error", source, text, "Write them anew in the image's size.", skew)


def _labels(
    facts: Sequence[SampleFacts], source: str, classes: Sequence[str], cfg: Config, void: int
) -> Iterator[Finding]:
    total = total_histogram(facts, mapped=True)
    if not total or not classes:
        return
    inside = set(range(len(classes))) | {void}
    wrong = tuple(s.label for s in facts if set(s.mapped) - inside)
    if wrong:
        values = sorted(set(total) - inside)
        shifted = values == [len(classes)] and 0 not in total
        remedy = "Set reduce_zero_label=True." if shifted else "List all classes in metainfo.classes, or map them."
        change = {f"{source}.reduce_zero_label": True} if shifted else {}
        text = f"labels hold {values[:8]}; expected 0...{len(classes) - 1}, or {void} for void."
        yield Finding("error", source, text, remedy, wrong, change)
    pixels, void_pixels = sum(total.values()), total.get(void, 0)
    if set(total) <= {0, void} and void_pixels and len(classes) > 1:
        text = f"labels hold 0 and {void} alone; {void} means void, so that class {classes[1]!r} never occurs."
        yield Finding("error", source, text, f"Save it as 1 if {void} means {classes[1]!r}.", _label_files(facts))
    elif missing := [f"{index} ({name})" for index, name in enumerate(classes) if not total.get(index)]:
        text = f"{len(missing)} classes have no pixel: {', '.join(missing[:8])}{' ...' if missing[8:] else ''}."
        remedy = "Check the order of metainfo.classes; with a sample (--samples), look at all."
        yield Finding("warning", f"{source}.metainfo.classes", text, remedy)
    if void_pixels > 0.5 * pixels:
        text = f"{void_pixels / pixels:.0%} of all pixels are void."
        yield Finding("warning", source, text, "Check the label map and reduce_zero_label.", _label_files(facts))
    if blank := tuple(s.label for s in facts if s.mapped and set(s.mapped) == {void}):
        text = f"{len(blank)} labels are void everywhere."
        yield Finding("warning", source, text, "Remove them: they teach nothing.", blank)


def _objects(
    facts: Sequence[SampleFacts], source: str, classes: Sequence[str], cfg: Config, _: int
) -> Iterator[Finding]:
    counted = [sample for sample in facts if sample.objects is not None]
    if not counted:
        return
    if empty := tuple(s.image for s in counted if not s.objects and not s.segments and not s.crowds):
        yield Finding("note", source, f"{len(empty)} images have no object.", "They count as background.", empty)
    if crowds := tuple(s.image for s in counted if not s.objects and not s.segments and s.crowds):
        text = f"{len(crowds)} images have crowds alone, which are not learnt."
        yield Finding("warning", source, text, "Remove them, or mark the objects one by one.", crowds)
    if lost := tuple(s.image for s in counted if s.lost_objects):
        share = sum(s.lost_objects for s in counted) / max(sum(s.objects or 0 for s in counted), 1)
        text = f"the training pipeline leaves {share:.0%} of the objects without pixels (crops, scales)."
        yield Finding("note", f"{source}.pipeline", text, "Take larger crops if that is too many.", lost)
    if absent := tuple(s.image for s in counted if s.absent):
        number = sum(s.absent for s in counted)
        text = (
            f"{number} segments are listed in the JSON file and have no pixel; PanopticQuality counts them as missed."
        )
        yield Finding("warning", source, text, "Remove them from segments_info, or correct the PNG.", absent)
    if total_histogram(counted, mapped=True):
        yield from _queries(counted, cfg)
        return  # `_labels` names the classes without pixels
    present = {label for sample in counted for label in sample.classes}
    if missing := [name for index, name in enumerate(classes) if index not in present]:
        text = f"{len(missing)} classes have no object: {', '.join(missing[:8])}{' ...' if missing[8:] else ''}."
        yield Finding("warning", f"{source}.metainfo.classes", text, "Check the names against ann_file.")
    yield from _queries(counted, cfg)


def _queries(counted: Sequence[SampleFacts], cfg: Config) -> Iterator[Finding]:
    head = cfg.model.get("decode_head") or {}
    queries = (head.get("query_decoder") or {}).get("num_queries")
    numbers = [(sample.objects or 0) + sample.segments for sample in counted]
    most = max(numbers)
    if queries and most > queries:
        key = "model.decode_head.query_decoder.num_queries"
        many = tuple(s.image for s, number in zip(counted, numbers, strict=True) if number > queries)
        kind = "segments" if any(s.segments for s in counted) else "objects"
        text = f"is {queries}, but an image has {most} {kind}: the surplus is not learnt."
        yield Finding("error", key, text, f"Set it to {most} or more.", many, {key: most})


def _label_files(facts: Sequence[SampleFacts]) -> tuple[str, ...]:
    return tuple(str(Path(sample.label)) for sample in facts if sample.label)
