#!/usr/bin/env python3
"""The same work by others: a careful Python script, DuckDB, Polars. They live in a virtual environment of
their own, from PyPI.

    python3 benches/peers.py [--rounds 5] [--reports 50000] [--measurements 20000000] [--only ingest,reconcile]

Answers are compared first; the two sides take turns.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from measure import RELEASE, Place, Table, counts, fleet, machine, median, month_fleet, rumledger, run, spread  # noqa: E402

HERE = Path(__file__).parent / "peers"
VENV = RELEASE / "peers" / "venv"
PYTHON = VENV / "bin" / "python"
PACKAGES = ("lxml", "pyarrow", "duckdb", "polars")


def environment():
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    versions = "import importlib.metadata as m; print(', '.join(p + ' ' + m.version(p) for p in %r))" % (PACKAGES,)
    return subprocess.run([PYTHON, "-c", versions], check=True, capture_output=True, text=True).stdout.strip()


def unsigned_fleet(reports):
    """A fleet whose signatures only the vendor could check: nothing is left to verify on either side."""
    made = fleet(f"EdDSA-{reports}", "--reports", reports, "--devices", max(reports // 50, 10), "--duplicates", 0,
                 "--broken", 0, "--algorithm", "EdDSA")
    folder = RELEASE / "fleets" / f"unsigned-{reports}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made / "book", folder / "book")
        (folder / "reports").mkdir()
        for path in (made / "reports").iterdir():
            if path.suffix in (".xml", ".json"):
                text = path.read_text().replace('"signing_type":"EdDSA"', '"signing_type":"builtin"')
                (folder / "reports" / path.name).write_text(text)
        (folder / "done").touch()
    return folder


def ingest(options, table):
    folder = unsigned_fleet(options.reports)
    ours, theirs = [], []
    for _ in range(options.rounds):
        with Place() as place:
            rumledger(place / "lake", "book", "import", folder / "book")
            us = rumledger(place / "lake", "--format", "json", "ingest", "files", folder / "reports",
                           "--signature-policy", "accept", cores=1)
            them = run([PYTHON, HERE / "ingest_python.py", folder / "reports", place / "out"], cores=1)
        said, their = counts(us), json.loads(them.out)
        assert said["received"] == said["accepted"] == their["received"] == their["accepted"], (said, their)
        ours.append(us.wall)
        theirs.append(them.wall)
    reports = said["received"]
    table.add("ingest without verification against Python (lxml, json, pyarrow), one core each",
              f"{median(theirs) / median(ours):.1f}", "10",
              f"{reports / median(ours):,.0f} against {reports / median(theirs):,.0f} reports/s", f"{spread(ours):.0f}%")


def plain_book(made, book):
    """The fleet's book with every account in UTC and every usage charge by licence-days, flat, at 1: so
    that a ledger line's quantity is what the peers compute."""
    shutil.copytree(made / "book", book)
    accounts = read(book / "accounts.csv")
    for account in accounts:
        account["time_zone"] = "UTC"
    plain = dict(charge="usage", measure="license-days", tier_mode="flat", tier_up_to="", unit_price="1", package_size="",
                 valid_from="2026-01-01")
    prices = {}
    for price in read(book / "prices.csv"):
        if price["charge"] == "usage":
            prices.setdefault((price["price_plan"], price["entitlement_tag"]), {**price, **plain})
    # A purchase without a plan is a shortage that is not charged: here it is, so that it shows.
    items = {c["entitlement_tag"]: c["equivalence"] or c["entitlement_tag"] for c in read(book / "catalog.csv")}
    currencies = {(a["smart_account"], a["virtual_account"]): a["currency"] for a in accounts}
    purchases = read(book / "purchases.csv")
    for purchase in purchases:
        if not purchase["price_plan"]:
            currency = currencies[purchase["smart_account"], purchase["virtual_account"]]
            plan, item = f"bench-{currency}", items[purchase["entitlement_tag"]]
            purchase["price_plan"] = plan
            prices[plan, item] = {**next(iter(prices.values())), **plain, "price_plan": plan, "entitlement_tag": item,
                                  "currency": currency}
    for name, rows in (("accounts", accounts), ("prices", list(prices.values())), ("purchases", purchases)):
        with open(book / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def our_quantities(text):
    rows = {}
    for line in csv.DictReader(io.StringIO(text)):
        key = (line["smart_account"] + "/" + line["virtual_account"], line["subscription_id"], line["entitlement"])
        assert key not in rows, key
        rows[key] = (float(line["consumed"]), float(line["quantity"]))
    return rows


def their_quantities(text):
    rows = {}
    for line in text.splitlines():
        account, subscription, item, consumed, quantity = line.split("\t")
        rows[(account, subscription, item)] = (float(consumed), float(quantity))
    return rows


def reconcile(options, table):
    made = month_fleet(options.measurements // 2)
    sides = {"rumledger": [], "DuckDB": [], "Polars": []}
    peaks = {name: 0 for name in sides}
    with Place() as place:
        lake, book = place / "lake", place / "book"
        plain_book(made, book)
        rumledger(lake, "book", "import", book)
        rumledger(lake, "ingest", "files", made / "reports")
        answers = {}
        for _ in range(options.rounds):
            for name in sides:
                if name == "rumledger":
                    ran = rumledger(lake, "--format", "csv", "reconcile", "--period", "2026-10", "--dry-run", cores=2)
                    answers[name] = our_quantities(ran.out)
                else:
                    script = HERE / f"reconcile_{name.lower()}.py"
                    ran = run([PYTHON, script, lake, book, "2026-10", 2], cores=2)
                    answers[name] = their_quantities(ran.out)
                sides[name].append(ran.wall)
                peaks[name] = max(peaks[name], ran.peak)
            for name in ("DuckDB", "Polars"):
                assert answers[name] == answers["rumledger"], compare(answers["rumledger"], answers[name], name)
    best = min(("DuckDB", "Polars"), key=lambda name: median(sides[name]))
    figures = "; ".join(f"{name} {median(walls):.2f} s, {peaks[name]:.0f} MiB" for name, walls in sides.items())
    table.add(f"reconcile of {options.measurements:,} measurements against the faster of DuckDB and Polars ({best}), 2 threads",
              f"{median(sides[best]) / median(sides['rumledger']):.2f}", "1.0", figures,
              f"{spread(sides['rumledger']):.0f}%")


def compare(ours, theirs, name):
    different = [(key, ours.get(key), theirs.get(key)) for key in sorted(ours.keys() | theirs.keys())
                 if ours.get(key) != theirs.get(key)]
    return f"{name}: {len(different)} of {len(ours)} keys differ, such as {different[:3]}"


PARTS = {"ingest": ingest, "reconcile": reconcile}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reports", type=int, default=50_000)
    parser.add_argument("--measurements", type=int, default=20_000_000)
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    versions = environment()
    print(machine(), versions, sep="; ", flush=True)
    table = Table("Peers", ["what", "ratio", "must", "figures", "spread"])
    table.fill(PARTS, options)


if __name__ == "__main__":
    main()
