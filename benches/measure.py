"""What the harness shares: runs of the binary, their cost, medians, and the machine."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "rumledger" / "target"))
RELEASE = TARGET / "release"
BINARY = Path(os.environ.get("RUMLEDGER_BIN", RELEASE / "rumledger"))
BARE = RELEASE / "bare-verify"


@dataclass
class Run:
    """One process: its output, wall and CPU seconds, peak resident MiB."""

    out: str
    wall: float
    cpu: float
    peak: float
    status: int


def run(command, cores=None, environment=None, allowed=(0, 3)):
    """Runs a process to its end, on so many cores."""
    if cores is not None:
        command = ["taskset", "-c", ",".join(str(c) for c in range(cores)), *command]
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(environment or {})})
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode not in allowed:
            sys.exit(f"{' '.join(command)}: status {child.returncode}\n{err.read().decode()[-2000:]}")
        text = out.read().decode()
    return Run(text, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, child.returncode)


def rumledger(lake, *args, **options):
    return run([BINARY, "-q", "--lake", lake, *args], **options)


def counts(ran):
    """Dispositions that an ingest printed as JSON."""
    said = json.loads(ran.out)
    said.pop("seconds")
    return said


def fleet(name, *args):
    """A made-up fleet on disk, made once: `book/` and `reports/`."""
    folder = RELEASE / "fleets" / name
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making the fleet {name}", file=sys.stderr, flush=True)
        run([BINARY, "-q", "fleet", "generate", "--out", folder, *args])
        (folder / "done").touch()
    return folder


def month_fleet(reports, devices=None):
    """Two measurements a report on the average, all in one month; of 200 reports a device if not told otherwise."""
    name = f"month-{reports}" + (f"-of-{devices}" if devices else "")
    return fleet(name, "--reports", reports, "--devices", devices or max(reports // 200, 10), "--duplicates", 0,
                 "--broken", 0, "--algorithm", "EdDSA", "--months", 1, "--per-file", 5000)


def size(folder, pattern="*"):
    return sum(f.stat().st_size for f in Path(folder).rglob(pattern) if f.is_file())


class Place:
    """A folder for one run, on the disk that holds the target folder; gone afterwards."""

    def __enter__(self):
        RELEASE.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=RELEASE))
        return self.folder

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)


def ingest(lake, folder, **options):
    """Book and reports of a fleet into a new lake; only the ingest is measured."""
    if not (Path(lake) / "book").exists():
        rumledger(lake, "book", "import", folder / "book")
    ran = rumledger(lake, "--format", "json", "ingest", "files", folder / "reports", **options)
    return ran


def median(values):
    return statistics.median(values)


def spread(values):
    """Half of the range, in percent of the median."""
    return 100 * (max(values) - min(values)) / 2 / median(values)


class Table:
    """The rows of BASELINE.md."""

    def __init__(self, title, columns):
        self.title, self.columns, self.rows = title, columns, []

    def add(self, *cells):
        self.rows.append([str(cell) for cell in cells])
        print("  ".join(str(cell) for cell in cells), flush=True)

    def fill(self, parts, options):
        """Measures the parts that are asked for, and prints the table."""
        for part in options.only.split(","):
            parts[part](options, self)
        print()
        print(self.markdown())

    def markdown(self):
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|" + " --- |" * len(self.columns))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]) // (1 << 20)
    version = subprocess.run([BINARY, "--version"], capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory} GiB, Linux {platform.release()}; "
        f"{version} at {commit.stdout.strip()}, Python {platform.python_version()}"
    )
