"""The core floor stands alone: nothing of the floors above, no Ray, no tracking, no files."""

import pkgutil
import subprocess
import sys

import pytest
import stylejobs.core

BLOCKED = ("ray", "mlflow", "pyarrow", "fsspec", "pydantic", "PIL", "h5py", "jaxtyping", "stylejobs.storage")
SCRIPT = """
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in {blocked}):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
for module in {modules}:
    importlib.import_module(module)
"""


def run_blocked(modules: list[str], blocked: tuple[str, ...]) -> subprocess.CompletedProcess:
    script = SCRIPT.format(blocked=blocked, modules=modules)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_every_core_module_imports_without_the_rest():
    modules = [module.name for module in pkgutil.walk_packages(stylejobs.core.__path__, "stylejobs.core.")]
    assert len(modules) >= 14
    # torchvision itself reaches for PIL, so only what we forbid ourselves is blocked for all modules.
    result = run_blocked(modules, tuple(name for name in BLOCKED if name != "PIL"))
    assert result.returncode == 0, result.stderr


def test_losses_need_torch_alone():
    result = run_blocked(["stylejobs.core.losses"], (*BLOCKED, "torchvision"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("blocked", ["torch"])
def test_the_block_blocks(blocked):
    result = run_blocked(["stylejobs.core.losses"], (blocked,))
    assert "blocked: torch" in result.stderr
