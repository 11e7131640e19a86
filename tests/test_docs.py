"""The code of the documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_extending_page_runs(tmp_path):
    text = (ROOT / "docs" / "extending.md").read_text()
    script = tmp_path / "extending.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "5 gradients, 0 failed" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    stiffness, rest = (float(v) for v in re.findall(r": ([0-9.]+)", last)[:2])
    assert abs(stiffness - 40.0) < 0.1 and abs(rest - 1.0) < 1e-3
