"""`make demo` runs as a test, too."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_does_the_whole_job_and_leaves_everything_in_its_directory(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "tests.journeys.demo", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "All as it should be" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_the_demo_fails_where_a_step_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING_DEMO, str(tmp_path / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "The demo failed: the result must be 'pdq 0', not ''" in done.stderr


FAILING_DEMO = """
import sys
from tests.journeys import demo

def fetch_from_others(terminal):
    terminal.run("config", "collab", "list", expect="pdq 0")

demo.fetch_from_others = fetch_from_others
sys.exit(demo.main(sys.argv[1:]))
"""
