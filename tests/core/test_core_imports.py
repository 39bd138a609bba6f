"""The core floor stands alone: nothing of the floors above, no Ray, no tracking, no files."""

import pkgutil
import subprocess
import sys

import stylejobs.core

SCRIPT = """
import importlib, sys
blocked = {"ray", "mlflow", "pyarrow", "fsspec", "pydantic", "yaml", "h5py", "jaxtyping", "torchvision", "PIL"}
floors = {"records", "storage", "tracking", "config", "report", "engine", "api"}
blocked |= {"stylejobs." + floor for floor in floors}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == other or name.startswith(other + ".") for other in blocked):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import stylejobs.core.losses
assert "torch" in sys.modules
blocked -= {"torchvision", "PIL"}  # torchvision reads with PIL when it can
for module in sys.argv[1:]:
    importlib.import_module(module)
try:
    import pyarrow
except ImportError:
    print("complete")
"""


def test_losses_need_torch_alone_and_the_rest_torchvision_too():
    modules = [module.name for module in pkgutil.walk_packages(stylejobs.core.__path__, "stylejobs.core.")]
    assert len(modules) >= 17
    result = subprocess.run([sys.executable, "-c", SCRIPT, *modules], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "complete"
