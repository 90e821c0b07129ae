"""Trying one config after the other, and going on after an interruption."""

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config

from mmseg_m2f import compat
from mmseg_m2f.benchmark.shipped.catalogue import LIBRARIES, Shipped, kind_key, model_key
from mmseg_m2f.benchmark.shipped.processes import Limits, StageResult, stored_result
from mmseg_m2f.benchmark.shipped.trial import try_building, try_config
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import save_json
from mmseg_m2f.json_files import read_json

Results = Mapping[str, StageResult]


@dataclass(frozen=True)
class Outcome:
    """What is known of a config.

    Args:
        results: stage -> its result. A stage behind a failed build, and one that has not been tried, is absent.
        like: the config whose step and prediction these are, if not of an equal model: one with parts of the same
            types. Empty where the config's own model was tried.
    """

    results: Results
    like: str = ""


@dataclass
class _Known:
    """What `outcomes.json` holds.

    Args:
        limits: of all trials.
        configs: name of a config -> keys of its model and of its kind.
        builds: key of a model -> reason why it cannot be built, or the empty string, and its number of weights.
        trials: key of a model -> the config that was tried, and the results of the stages.
    """

    limits: dict[str, object]
    configs: dict[str, tuple[str, str]] = field(default_factory=dict)
    builds: dict[str, tuple[str, int]] = field(default_factory=dict)
    trials: dict[str, tuple[str, dict[str, dict[str, object]]]] = field(default_factory=dict)


def count(
    configs: Sequence[Shipped],
    out: Path,
    limits: Limits,
    *,
    every_model: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Outcome]:
    """Name of a config -> what is known of it. What `outcomes.json` holds is not done again.

    Every model is built; configs with equal models have it built once. A step and a prediction are made with the
    smallest model of each kind (models whose parts have the same types), and count for the others. The kinds of most
    configs come first.

    Args:
        configs: which.
        out: folder of `outcomes.json` and of the logs.
        limits: of each trial.
        every_model: a step and a prediction with every model instead.
        say: takes a line for each kind.

    Raises:
        ValueError: the folder holds a count under other limits.
    """
    file = out / "outcomes.json"
    known = _read(file, limits)
    import_libraries()
    for config in configs:
        if config.name not in known.configs:
            known.configs[config.name] = _keys(config)
    save_json(vars(known), file)
    kinds = _kinds(configs, known)
    for number, members in enumerate(kinds, 1):
        for config in members:
            model = known.configs[config.name][0]
            if model not in known.builds:
                built, weights = try_building(config.file, _log(out, config, "build"), limits)
                known.builds[model] = (built.reason, weights)
                save_json(vars(known), file)
        for config in _to_try(members, known, every_model):
            model = known.configs[config.name][0]
            if model not in known.trials:
                results = try_config(config.file, _log(out, config, "trial"), limits)
                known.trials[model] = (config.name, {stage: vars(result) for stage, result in results.items()})
                save_json(vars(known), file)
        say(f"[{number}/{len(kinds)}] {_told(members, known)}")
    return _resolved(configs, known)


def known_outcomes(configs: Sequence[Shipped], out: Path, limits: Limits) -> dict[str, Outcome]:
    """What `outcomes.json` holds of those configs whose model was built.

    Raises:
        ValueError: as `count`.
    """
    known = _read(out / "outcomes.json", limits)
    return _resolved([config for config in configs if known.configs.get(config.name, ("",))[0] in known.builds], known)


def import_libraries() -> None:
    """Import once what every trial needs: its processes are forks of this one."""
    compat.install()
    torch.set_num_threads(1)
    for name in ("mmdet.structures.mask", "mmseg_m2f.layers.mmcv_operators"):
        import_module(name)
    for library in LIBRARIES:
        import_module(f"{library}.utils").register_all_modules(init_default_scope=False)
    gc.freeze()  # a collection in a process of a trial would touch, and so copy, all that is imported


def _resolved(configs: Sequence[Shipped], known: _Known) -> dict[str, Outcome]:
    """The outcome of each config: its build, and the other stages of its own model or of one of its kind."""
    of_kind: dict[str, str] = {}
    for model, kind in known.configs.values():
        if model in known.trials:
            of_kind.setdefault(kind, model)
    outcomes = {}
    for config in configs:
        model, kind = known.configs[config.name]
        reason, _ = known.builds[model]
        tried = model if model in known.trials else of_kind.get(kind)
        if reason or tried is None:
            outcomes[config.name] = Outcome(dict(build=StageResult(reason)))
            continue
        name, stages = known.trials[tried]
        results = {stage: stored_result(result) for stage, result in stages.items()}
        if tried != model:
            results["build"] = StageResult(reason)
        outcomes[config.name] = Outcome(results, like="" if tried == model else name)
    return outcomes


def _read(file: Path, limits: Limits) -> _Known:
    wanted = vars(limits) | dict(sides=list(limits.sides))  # as JSON gives it back
    if not file.exists():
        return _Known(wanted)
    entries = {str: [object]}
    structure = {"limits": {str: object}, "configs": entries, "builds": entries, "trials": entries}
    stored = read_json(file, what="the outcomes of a count", structure=structure, remedy="Give another --out.")
    pairs = {
        part: {key: tuple(value) for key, value in stored[part].items()} for part in ("configs", "builds", "trials")
    }
    known = _Known(stored["limits"], **pairs)
    if known.limits != wanted:
        raise InvalidValueError(
            f"{file}: expected a count under {wanted}, got one under {known.limits}. Give another --out."
        )
    return known


def _kinds(configs: Sequence[Shipped], known: _Known) -> list[list[Shipped]]:
    """For each kind of model the first config of each model, kinds of most configs first."""
    kinds: dict[str, dict[str, Shipped]] = defaultdict(dict)
    number = Counter(known.configs[config.name][1] for config in configs)
    for config in configs:
        model, kind = known.configs[config.name]
        kinds[kind].setdefault(model, config)
    return [list(kinds[kind].values()) for kind, _ in number.most_common()]


def _to_try(members: Sequence[Shipped], known: _Known, every_model: bool) -> list[Shipped]:
    """Of the models that can be built, the smallest, or all."""
    built = {config: known.builds[known.configs[config.name][0]] for config in members}
    working = [config for config, (reason, _) in built.items() if not reason]
    return working if every_model else sorted(working, key=lambda config: built[config][1])[:1]


def _told(members: Sequence[Shipped], known: _Known) -> str:
    """A line about a kind: how many of its models can be built, and what failed of which."""
    models = [known.configs[config.name][0] for config in members]
    failed = [reason for model in models if (reason := known.builds[model][0])]
    for name, stages in (known.trials[model] for model in models if model in known.trials):
        failed += [f"{stage} of {name}: {result['reason']}" for stage, result in stages.items() if result["reason"]]
    passed = sum(not known.builds[model][0] for model in models)
    return f"{members[0].name}: {passed} of {len(models)} models build; {'; '.join(dict.fromkeys(failed)) or 'works'}"


def _log(out: Path, config: Shipped, stage: str) -> Path:
    return out / "logs" / f"{config.name.replace('/', '_')}.{stage}"


def _keys(config: Shipped) -> tuple[str, str]:
    """The model's and its kind's, or the config's own name where it cannot be read; its trial tells why."""
    try:
        cfg = Config.fromfile(config.file, import_custom_modules=False)
        return model_key(cfg), kind_key(cfg)
    except (OSError, ImportError, AttributeError, KeyError, TypeError, ValueError, SyntaxError):
        return config.name, config.name
