"""The count as tables in Markdown: how many configs pass each stage, and why the others do not."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from mmseg_m2f.benchmark.shipped.outcomes import Outcome
from mmseg_m2f.benchmark.shipped.trial import STAGES
from mmseg_m2f.visualization.markdown import escape_markdown

_LISTED = 6  # configs named with each reason
_REASON = 180  # characters


def summary(outcomes: Mapping[str, Outcome]) -> str:
    """Per library: how many configs there are, build, step and predict; without the served operators, and with them."""
    rows = [
        "| configs of | operators served | number | build | training step | prediction | all three | not tried |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for library, found in _by_library(outcomes).items():
        for served, passes in (("no", passes_alone), ("yes", passes_stage)):
            passed = [sum(passes(outcome, stage) for outcome in found) for stage in STAGES]
            complete = sum(all(passes(outcome, stage) for stage in STAGES) for outcome in found)
            untried = sum(not _failed_build(outcome) and "step" not in outcome.results for outcome in found)
            numbers = [len(found), *passed, complete, untried]
            rows.append(f"| {library} | {served} | {' | '.join(map(str, numbers))} |")
    return "\n".join(rows) + "\n"


def evidence(outcomes: Mapping[str, Outcome]) -> str:
    """For how many configs the model itself was tried, and for how many one with parts of the same types."""
    tried = [outcome for outcome in outcomes.values() if "step" in outcome.results]
    like = sum(bool(outcome.like) for outcome in tried)
    return (
        f"A step and a prediction were made with the own model of {len(tried) - like} configs; for {like} with a "
        "smaller model whose parts have the same types.\n"
    )


def operators(outcomes: Mapping[str, Outcome]) -> str:
    """Each served operator, and how many configs call it in a step and in a prediction."""
    called: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes.values():
        for stage, result in outcome.results.items():
            for operator in result.operators:
                called[operator][stage] += 1
    rows = ["| operator of `mmcv._ext` | configs whose step calls it | whose prediction |", "|---|---|---|"]
    for name in sorted(called):
        rows.append(f"| `{name}` | {called[name]['step']} | {called[name]['predict']} |")
    return "\n".join(rows) + "\n" if called else "None was called.\n"


def reasons(outcomes: Mapping[str, Outcome]) -> str:
    """Every reason with the stage, the number of configs, and their names, by number."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, outcome in outcomes.items():
        for stage, result in outcome.results.items():
            if result.reason:
                groups[_shortened(result.reason), stage].append(name)
    if not groups:
        return "All configs that were tried pass all stages.\n"
    rows = ["| reason | stage | configs | which |", "|---|---|---|---|"]
    for (reason, stage), names in sorted(groups.items(), key=lambda item: -len(item[1])):
        rows.append(f"| {reason} | {stage} | {len(names)} | {_names(names)} |")
    return "\n".join(rows) + "\n"


def families(outcomes: Mapping[str, Outcome]) -> str:
    """Folders of which some configs fail, with how many pass all stages."""
    total, passed, failed = Counter[str](), Counter[str](), Counter[str]()
    for name, outcome in outcomes.items():
        family = "/".join(name.split("/")[:2])
        total[family] += 1
        passed[family] += works(outcome)
        failed[family] += any(result.reason for result in outcome.results.values())
    rows = [f"| {family} | {passed[family]} of {total[family]} |" for family in total if failed[family]]
    return "\n".join(["| folder | configs that pass all stages |", "|---|---|", *rows]) + "\n" if rows else ""


def passes_stage(outcome: Outcome, stage: str) -> bool:
    """Whether a stage was tried and works."""
    return stage in outcome.results and not outcome.results[stage].reason


def passes_alone(outcome: Outcome, stage: str) -> bool:
    """Whether a stage works without an operator that this package serves."""
    return passes_stage(outcome, stage) and not outcome.results[stage].operators


def works(outcome: Outcome) -> bool:
    """Whether a config passes all stages."""
    return all(passes_stage(outcome, stage) for stage in STAGES)


def _failed_build(outcome: Outcome) -> bool:
    return bool(outcome.results["build"].reason)


def _by_library(outcomes: Mapping[str, Outcome]) -> Mapping[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for name, outcome in outcomes.items():
        groups[name.partition("/")[0]].append(outcome)
    return groups


def _shortened(reason: str) -> str:
    reason = reason.partition(", the current sys.path is:")[0]  # of mmengine's message, another on each machine
    return escape_markdown(reason if len(reason) <= _REASON else reason[:_REASON] + "…")


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(f"`{name}`" for name in listed[:_LISTED]) + more
