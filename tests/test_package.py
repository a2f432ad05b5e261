"""The names that `import gammavae_jax` offers."""

import importlib.metadata
import subprocess
import sys

import gammavae_jax as gv


def test_completion_lists_the_api_and_nothing_else():
    assert dir(gv) == sorted(gv.__all__)
    assert {"AnomalyDetector", "load_machines", "__version__"} <= {*dir(gv)}
    assert all(hasattr(gv, name) for name in dir(gv))


def test_the_version_is_that_of_the_installed_package():
    assert gv.__version__ == importlib.metadata.version("gammavae-jax")


def test_listing_the_api_imports_no_slow_package():
    code = "import sys, gammavae_jax as gv; dir(gv); gv.__version__; "
    code += "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
