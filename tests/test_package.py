"""Imports point down the floors, and no files import each other in a circle."""

import ast
import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import mmseg_m2f

PACKAGE = Path(mmseg_m2f.__file__).parent

#: Rooms (folders and files of the package) that every room above may import.
GROUND = ("errors", "structures", "registry", "compat", "files", "json_files", "processors")
#: Room -> the rooms that it may import besides those of `GROUND`. Rooms of one floor do not import each other.
ROOMS: dict[str, tuple[str, ...]] = {
    "core": (),
    "layers": ("core",),
    "samples": ("core",),
    "predictions": ("core", "samples"),
    "runtime": (),
    "models": ("core", "layers", "samples", "runtime", "checkpoints.openmmlab", "checkpoints.package_weights"),
    "datasets": ("core", "samples"),
    "evaluation": ("core", "samples"),
    "checkpoints": ("core", "samples"),
    "visualization": ("core", "predictions"),
    "config": ("models", "checkpoints"),
    "engine": (
        *("config", "checkpoints", "datasets", "visualization", "predictions", "evaluation", "models", "layers"),
        "runtime",
    ),
    **dict.fromkeys(
        ("inference", "migration"),
        ("engine", "config", "checkpoints", "datasets", "models", "visualization", "predictions", "core", "samples"),
    ),
    "export": ("engine", "config", "checkpoints", "models", "visualization", "core", "samples", "runtime"),
    "analysis": (
        *("engine", "config", "checkpoints", "models", "evaluation", "visualization", "predictions", "core", "samples"),
        *("layers", "runtime"),
    ),
}
#: The top floor: each imports those before it, and any room below.
TOP = ("benchmark", "command_line", "__main__")

# Folder or file -> what it may import besides the standard library and the package. The longest matching path counts.
CORE = {"torch", "numpy", "scipy", "jaxtyping"}
MODELS = CORE | {"mmengine", "mmcv"}
THIRD_PARTY = {
    "__init__.py": set(),
    "errors.py": set(),
    "structures": {"torch", "jaxtyping"},
    "core": CORE,
    "layers": CORE,
    "layers/kernels": CORE | {"triton"},
    "export/rewrites.py": CORE | {"mmseg"},  # replaces what it does while exporting
    "models": MODELS,
    "models/backbones": MODELS | {"timm"},
    "models/decode_heads/explicit_class.py": MODELS | {"mmseg"},  # a per-pixel head: mmseg's base class
    "models/decode_heads/segnext_head.py": MODELS | {"mmseg"},
    "models/factorisation.py": MODELS | {"mmseg"},  # SegNeXt's
    "models/pixel_decoders/hamburger.py": MODELS | {"mmseg"},
    "models/segmentors": MODELS | {"mmseg", "mmdet"},
}
FORBIDDEN_ELSEWHERE = {"mmseg", "mmdet"}

#: Modules without a mirror in `tests/`, and why.
WITHOUT_MIRROR: dict[str, str] = {
    **{
        f"benchmark/implementations/{name}.py": "compared with each other in tests/benchmark/test_implementations.py"
        for name in ("building", "huggingface", "interface", "ours", "upstream")
    },
    "__main__.py": "one call; tests/tools/test_tools.py runs the program",
    **{
        f"command_line/{name}.py": "arguments in, one call out; tests/tools/test_tools.py runs the program"
        for name in (
            "analysis",
            "arguments",
            "benchmark",
            "calibrate",
            "config",
            "convert",
            "convert_dataset",
            "demo",
            "doctor",
            "export",
            "main",
            "migrate",
            "predict",
            "publish",
            "test",
            "train",
        )
    },
    **{
        f"datasets/formats/{name}.py": "written and read back in tests/datasets/formats/test_conversion.py"
        for name in ("examples", "mask_formats", "polygon_formats")
    },
    "export/swin_windows.py": "part of the rewrites: tests/export/test_rewrites.py",
    "export/programs.py": "traced in tests/export/test_export_gate.py",
    **{
        f"export/{name}.py": "steps of an export, which tests/export/test_model_export.py runs"
        for name in ("calibration", "latency", "reduced_precision", "wrappers", "writers")
    },
    "checkpoints/published.py": "read and refused in tests/export/test_publishing.py",
    "engine/trained_model.py": "through Predictor in tests/inference and tests/export",
    "runtime/sessions.py": "each runtime in tests/export/test_model_export.py",
}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported_names(source: str) -> set[str]:
    """Dotted names of all imports in a file, also those inside functions; `from a import b` gives `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def allowed_rooms(module: str) -> tuple[str, ...]:
    """What a file may import of the package."""
    room = Path(module).parts[0].removesuffix(".py")
    if room in TOP:
        return (*GROUND, *ROOMS, *TOP[: TOP.index(room) + 1])
    if room in GROUND or room == "__init__":
        return GROUND
    return (*GROUND, *ROOMS[room], room)


def wrong_imports(module: str, source: str) -> set[str]:
    """The imports of a file (path in the package) that the tables do not allow."""
    names = {name for name in imported_names(source) if name.split(".")[0] not in sys.stdlib_module_names}
    names -= {"mmseg_m2f.__version__"}
    own = {name for name in names if name.startswith("mmseg_m2f.")}
    rooms = allowed_rooms(module)
    wrong = {name for name in own if not is_within(name.removeprefix("mmseg_m2f."), rooms)}
    places = [place for place in THIRD_PARTY if module == place or module.startswith(place + "/")]
    if not places:
        return wrong | {name for name in names - own if is_within(name, FORBIDDEN_ELSEWHERE)}
    return wrong | {
        name
        for name in names - own - {"mmseg_m2f.__version__"}
        if not is_within(name, THIRD_PARTY[max(places, key=len)])
    }


def circles(sources: Mapping[str, str]) -> list[str]:
    """Files (path -> source) from which imports lead back to themselves; packages' `__init__.py` are passed through."""
    modules = {f"mmseg_m2f.{path.removesuffix('.py').replace('/', '.')}": path for path in sources}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    edges: dict[str, set[str]] = {}
    for path, source in sources.items():
        targets = edges.setdefault(path, set())
        for name in imported_names(source):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and modules[name] != path:
                targets.add(modules[name])

    def reaches_itself(start: str) -> bool:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            path = waiting.pop()
            if path == start:
                return True
            if path not in seen:
                seen.add(path)
                waiting += edges[path]
        return False

    return [path for path in sources if reaches_itself(path)]


def test_rooms__are_all_in_the_table() -> None:
    rooms = {Path(module).parts[0].removesuffix(".py") for module in MODULES} - {"__init__"}
    assert rooms == {*GROUND, *ROOMS, *TOP}


def test_rooms__form_no_loop() -> None:
    seen: set[str] = set(GROUND)
    waiting = dict(ROOMS)
    while waiting:
        free = [
            room for room, below in waiting.items() if all(name.split(".")[0] in seen or "." in name for name in below)
        ]
        assert free, f"these rooms wait for each other: {sorted(waiting)}"
        seen |= set(free)
        waiting = {room: below for room, below in waiting.items() if room not in free}


@pytest.mark.parametrize("module", MODULES)
def test_imports__point_down(module: str) -> None:
    assert wrong_imports(module, (PACKAGE / module).read_text(encoding="utf-8")) == set()


def test_imports__form_no_circle() -> None:
    assert circles({module: (PACKAGE / module).read_text(encoding="utf-8") for module in MODULES}) == []


def mirror_of(module: str) -> Path:
    """The file that tests a module: `core/points.py` is tested in `tests/core/test_points.py`."""
    return Path(__file__).parent / Path(module).parent / f"test_{Path(module).name}"


def test_modules__have_a_mirror_each() -> None:
    modules = {module for module in MODULES if not module.endswith("__init__.py")}
    missing = {module for module in modules if not mirror_of(module).is_file()}
    assert missing - set(WITHOUT_MIRROR) == set()
    assert {module for module in modules if module in WITHOUT_MIRROR} - missing == set(), "take these out of the list"


def test_modules__have_file_names_of_their_own() -> None:
    names = [Path(module).name for module in MODULES if not module.endswith("__init__.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_tests__do_not_import_the_shipped_benchmark() -> None:
    """Only its own tests do: all others would fail where it is rewritten."""
    files = [path for path in Path(__file__).parent.rglob("*.py") if "benchmark" not in path.parts]
    users = [path.name for path in files if is_within_any(path, "mmseg_m2f.benchmark")]
    assert users == []


def is_within_any(path: Path, package: str) -> bool:
    return any(is_within(name, [package]) for name in imported_names(path.read_text(encoding="utf-8")))


def test_circles__are_seen() -> None:
    sources = {
        "core/__init__.py": "",
        "core/a.py": "def f():\n    from mmseg_m2f.core.b import x",
        "core/b.py": "from mmseg_m2f.core import c",
        "core/c.py": "import mmseg_m2f.core.a",
        "core/d.py": "import mmseg_m2f.core.a",
    }
    assert circles(sources) == ["core/a.py", "core/b.py", "core/c.py"]


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        (
            "core/points.py",
            "import torch\nfrom mmengine.logging import MMLogger",
            {"mmengine.logging.MMLogger"},
        ),
        ("core/points.py", "from mmseg_m2f import layers", {"mmseg_m2f.layers"}),
        ("core/points.py", "def f():\n    import mmcv.ops", {"mmcv.ops"}),
        ("layers/norm.py", "from mmseg_m2f.models import x", {"mmseg_m2f.models.x"}),
        ("models/decode_heads/mask_head.py", "import mmcv, mmseg", {"mmseg"}),
        ("models/decode_heads/mask_head.py", "from mmseg_m2f.checkpoints.openmmlab import x", set()),
        (
            "models/decode_heads/mask_head.py",
            "from mmseg_m2f.checkpoints.layouts import x",
            {"mmseg_m2f.checkpoints.layouts.x"},
        ),
        ("models/decode_heads/explicit_class.py", "import mmseg, mmdet", {"mmdet"}),
        ("models/segmentors/mask_segmentor.py", "import mmseg, mmdet.structures", set()),
        ("models/mask_head.py", "from mmseg_m2f.datasets import scene", {"mmseg_m2f.datasets.scene"}),
        ("engine/hooks/guard.py", "import mmengine, mmseg.apis", {"mmseg.apis"}),
        ("config/checks.py", "from mmseg_m2f.engine import launch", {"mmseg_m2f.engine.launch"}),
        ("predictions/files.py", "import mmseg_m2f.visualization", {"mmseg_m2f.visualization"}),
        ("files.py", "import mmseg_m2f.core", {"mmseg_m2f.core"}),
        ("benchmark/timing.py", "import mmseg_m2f.engine.launch", set()),
        ("benchmark/timing.py", "import mmseg_m2f.command_line.main", {"mmseg_m2f.command_line.main"}),
    ],
)
def test_import_rule__sees_what_breaks_it(module: str, source: str, wrong: set[str]) -> None:
    assert wrong_imports(module, source) == wrong


@pytest.mark.parametrize("module", MODULES)
def test_module__imports(module: str) -> None:
    importlib.import_module(".".join(["mmseg_m2f", *Path(module).with_suffix("").parts]).removesuffix(".__init__"))
