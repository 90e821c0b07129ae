"""Imports point one way: core <- layers <- models <- everything else."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

import mmseg_m2f

PACKAGE = Path(mmseg_m2f.__file__).parent

# Folder or file -> what it may import besides the standard library. The longest matching path counts.
CORE = {"torch", "numpy", "scipy", "jaxtyping", "mmseg_m2f.core", "mmseg_m2f.structures"}
LAYERS = CORE | {"mmseg_m2f.layers"}
CHECKPOINTS = {"torch", "mmseg_m2f.checkpoints"}  # names of weights only, so that models can read old names
MODELS = LAYERS | {
    "mmengine",
    "mmcv",
    "mmseg_m2f.checkpoints",
    "mmseg_m2f.compat",
    "mmseg_m2f.models",
    "mmseg_m2f.registry",
    "mmseg_m2f.samples",
}
ALLOWED = {
    "__init__.py": {"mmseg_m2f"},
    "structures.py": {"torch", "jaxtyping"},
    "core": CORE,
    "layers": LAYERS,
    "layers/kernels": LAYERS | {"triton"},
    "checkpoints": CHECKPOINTS,
    "models": MODELS,
    "models/backbones": MODELS | {"timm"},
    "models/decode_heads/explicit_class.py": MODELS | {"mmseg"},  # a per-pixel head: mmseg's base class
    "models/pixel_decoders/hamburger.py": MODELS | {"mmseg"},  # SegNeXt's factorisation
    "models/segmentors": MODELS | {"mmseg", "mmdet"},
}
FORBIDDEN_ELSEWHERE = {"mmseg", "mmdet"}

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


def is_within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def wrong_imports(module: str, source: str) -> set[str]:
    """The imports of a file (path in the package) that the rule does not allow."""
    third_party = {name for name in imported_names(source) if name.split(".")[0] not in sys.stdlib_module_names}
    places = [place for place in ALLOWED if module == place or module.startswith(place + "/")]
    if not places:
        return {name for name in third_party if is_within(name, FORBIDDEN_ELSEWHERE)}
    allowed = ALLOWED[max(places, key=len)]
    return {name for name in third_party if not is_within(name, allowed)}


@pytest.mark.parametrize("module", MODULES)
def test_imports__point_one_way(module: str) -> None:
    assert wrong_imports(module, (PACKAGE / module).read_text(encoding="utf-8")) == set()


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
        ("models/decode_heads/explicit_class.py", "import mmseg, mmdet", {"mmdet"}),
        ("models/segmentors/mask_segmentor.py", "import mmseg, mmdet.structures", set()),
        ("models/mask_head.py", "from mmseg_m2f.datasets import scene", {"mmseg_m2f.datasets.scene"}),
        ("engine/hooks/guard.py", "import mmengine, mmseg.apis", {"mmseg.apis"}),
    ],
)
def test_import_rule__sees_what_breaks_it(module: str, source: str, wrong: set[str]) -> None:
    assert wrong_imports(module, source) == wrong


@pytest.mark.parametrize("module", MODULES)
def test_module__imports(module: str) -> None:
    importlib.import_module(".".join(["mmseg_m2f", *Path(module).with_suffix("").parts]).removesuffix(".__init__"))
