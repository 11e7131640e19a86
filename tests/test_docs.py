"""The code of the documentation runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def output_of(page: str, folder: Path) -> str:
    """What the page's Python blocks print, run one after the other as one script."""
    text = (ROOT / "docs" / page).read_text()
    script = folder / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1500, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_geometry_page_runs(tmp_path):
    mass, volume, angle, loss = output_of("geometry.md", tmp_path).strip().splitlines()
    assert [float(v) > 0.0 for v in re.findall(r"[0-9.]+", mass)] == [True] * 4
    assert abs(float(re.findall(r"[0-9.]+", volume)[1]) - 4.0 / 3.0 * 3.14159 * 0.9**3) < 0.1
    assert float(angle.split()[-1]) > 10.78 and float(loss.split()[-1]) < 0.01


@pytest.mark.slow
def test_rendering_page_runs(tmp_path):
    position, albedo, mask = output_of("rendering.md", tmp_path).strip().splitlines()
    assert float(position.split()[-1]) < 0.03 and float(albedo.split()[-1]) < 0.05
    assert mask.endswith("True")


@pytest.mark.slow
def test_extending_page_runs(tmp_path):
    output = output_of("extending.md", tmp_path)
    assert "5 gradients, 0 failed" in output
    last = output.strip().splitlines()[-1]
    stiffness, rest = (float(v) for v in re.findall(r": ([0-9.]+)", last)[:2])
    assert abs(stiffness - 40.0) < 0.1 and abs(rest - 1.0) < 1e-3
