"""The count as tables in Markdown: how many configs pass each stage, and why the others do not."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from mmseg_m2f.benchmark.shipped.trial import STAGES
from mmseg_m2f.visualization.markdown import escape_markdown

_LISTED = 6  # configs named with each reason
_REASON = 180  # characters

Outcome = Mapping[str, str]


def summary(outcomes: Mapping[str, Outcome]) -> str:
    """Per library: how many configs there are, build, step and predict."""
    rows = ["| configs of | number | build | training step | prediction | all three |", "|---|---|---|---|---|---|"]
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for name, outcome in outcomes.items():
        groups[name.partition("/")[0]].append(outcome)
    for library, found in groups.items():
        passed = [sum(outcome.get(stage) == "" for outcome in found) for stage in STAGES]
        complete = sum(works(outcome) for outcome in found)
        rows.append(f"| {library} | {len(found)} | {' | '.join(map(str, passed))} | {complete} |")
    return "\n".join(rows) + "\n"


def reasons(outcomes: Mapping[str, Outcome]) -> str:
    """Every reason with the stage, the number of configs, and their names, by number."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, outcome in outcomes.items():
        for stage in STAGES:
            if outcome.get(stage):
                groups[_shortened(outcome[stage]), stage].append(name)
    if not groups:
        return "All configs pass all stages.\n"
    rows = ["| reason | stage | configs | which |", "|---|---|---|---|"]
    for (reason, stage), names in sorted(groups.items(), key=lambda item: -len(item[1])):
        rows.append(f"| {reason} | {stage} | {len(names)} | {_names(names)} |")
    return "\n".join(rows) + "\n"


def families(outcomes: Mapping[str, Outcome]) -> str:
    """Folders of which some configs fail, with how many pass all stages."""
    total, passed = Counter[str](), Counter[str]()
    for name, outcome in outcomes.items():
        family = "/".join(name.split("/")[:2])
        total[family] += 1
        passed[family] += works(outcome)
    rows = [f"| {family} | {passed[family]} of {total[family]} |" for family in total if passed[family] < total[family]]
    return "\n".join(["| folder | configs that pass all stages |", "|---|---|", *rows]) + "\n" if rows else ""


def works(outcome: Outcome) -> bool:
    """Whether a config passes all stages."""
    return all(outcome.get(stage) == "" for stage in STAGES)


def _shortened(reason: str) -> str:
    return escape_markdown(reason if len(reason) <= _REASON else reason[:_REASON] + "…")


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(f"`{name}`" for name in listed[:_LISTED]) + more
