"""Walking through a config: its dicts, its datasets, its places named by dotted keys."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping

from mmengine.config import Config

from mmseg_m2f.config.type_lookup import find_types

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def config_nodes(node: object) -> Iterator[MutableMapping]:
    """Every dict in a config, the outer one first."""
    if isinstance(node, MutableMapping):
        yield node
        for value in node.values():
            yield from config_nodes(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from config_nodes(value)


def is_a(node: Mapping[str, object], name: str) -> bool:
    """Whether a part is of this class, in any scope."""
    return short_type(node) == name


def short_type(node: Mapping[str, object]) -> str:
    """The name of a part's class without its scope; "" where it has none."""
    kind = node.get("type") or ""
    return kind.rpartition(".")[2] if isinstance(kind, str) else str(getattr(kind, "__name__", kind))


def classes_of(node: Mapping[str, object], cfg: Config) -> list[Callable[..., object]]:
    """The classes that a part's `type` may stand for; none for an unknown one, which `check_config` names."""
    kind = node.get("type")
    if isinstance(kind, str):
        return find_types(kind, scope=cfg.get("default_scope") or "mmengine")
    return [kind] if callable(kind) else []


def leaf_datasets(dataset: object, path: str) -> Iterator[tuple[str, MutableMapping]]:
    """The datasets that read data, below wrappers (`dataset` and `datasets` keys), each with its config path."""
    if isinstance(dataset, (list, tuple)):
        for index, item in enumerate(dataset):
            yield from leaf_datasets(item, f"{path}[{index}]")
    elif isinstance(dataset, MutableMapping):
        inner = [key for key in ("dataset", "datasets") if key in dataset]
        for key in inner:
            yield from leaf_datasets(dataset[key], f"{path}.{key}")
        if not inner:
            yield path, dataset


def loader_datasets(cfg: Config) -> Iterator[tuple[str, MutableMapping]]:
    """The datasets of training, validation and test, each once, with its config path."""
    seen: set[int] = set()
    for loader in LOADERS:
        for path, dataset in leaf_datasets((cfg.get(loader) or {}).get("dataset"), f"{loader}.dataset"):
            if id(dataset) not in seen:
                seen.add(id(dataset))
                yield path, dataset


def find_place(cfg: Config, key: str) -> object | None:
    """What stands at a dotted key, `param_scheduler.0.end`; None where nothing does."""
    node: object = cfg
    for part in key.split("."):
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            node = node.get(part) if isinstance(node, (Config, Mapping)) else None
    return node


def hold(cfg: Config, name: str, value: object) -> None:
    """Keep a top-level variable equal to the value in use; configs without the variable get none."""
    if name in cfg:
        cfg[name] = value
