#!/usr/bin/env python3
"""The whole path against what the machine can do at best.

    python3 benches/end_to_end.py [--rounds 5] [--reports 400000] [--only verify,cores,…] [--large]

Every figure is a median of rounds in which the two sides take turns; answers are compared first.
Needs `cargo build --release --workspace`.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from measure import (  # noqa: E402
    BARE, BINARY, ROOT, Place, Table, counts, fleet, ingest, machine, median, month_fleet, rumledger, run, size,
    spread,
)

ALGORITHMS = ("RS256", "ES256", "EdDSA")
MUST = {"RS256": 0.65, "RS256-4096": 0.85, "ES256": 0.85, "EdDSA": 0.80}


def shape(reports):
    return ("--reports", reports, "--devices", max(reports // 50, 10), "--duplicates", 0, "--broken", 0)


def clean_fleet(algorithm, reports):
    name, _, bits = algorithm.partition("-")
    return fleet(f"{algorithm}-{reports}", *shape(reports), "--algorithm", name, "--rsa-bits", bits or "2048")


def bare(folder, threads, *how):
    """Signatures that verify by aws-lc (or `eight` at a time, as an ingest does it), and seconds for nothing else."""
    verified, nanoseconds = run([BARE, folder, threads, *how], cores=threads).out.split()
    return int(verified), int(nanoseconds) / 1e9


def verify(options, table):
    """Ingest with signatures against bare verification of the same signatures, two threads each."""
    for algorithm in MUST:
        # Signing takes a hundred times as long as checking.
        reports = options.reports // 8 if algorithm == "RS256-4096" else options.reports
        folder = clean_fleet(algorithm, reports)
        at_best, eight, whole, cpu = [], [], [], []
        for _ in range(options.rounds):
            verified, seconds = bare(folder, 2)
            at_once, seconds_at_once = bare(folder, 2, "eight")
            # Where the processor cannot, there is nothing to compare with.
            assert at_once in (0, verified), (at_once, verified)
            with Place() as place:
                ran = ingest(place / "lake", folder, cores=2)
            said = counts(ran)
            assert said["received"] == said["accepted"] == reports, said
            assert said["verified"] == verified, (said, verified)
            at_best.append(seconds)
            eight.append(seconds_at_once if at_once else seconds)
            whole.append(ran.wall)
            cpu.append(ran.cpu)
        ratio = median(at_best) / median(whole)
        table.add(
            f"ingest against bare verification, {algorithm}, files, 2 cores", f"{ratio:.2f}", f"{MUST[algorithm]:.2f}",
            f"{reports / median(whole):,.0f} reports/s (signatures bare: {verified / median(at_best):,.0f}/s by aws-lc, "
            f"{verified / median(eight):,.0f}/s eight at a time); {1e6 * median(cpu) / reports:.1f} us CPU a report",
            f"{spread(whole):.0f}%",
        )


def durable(options, table):
    """What it costs that a report counts only when it is on the disk: the same with every sync answered at once.
    (The fence is one comparison a commit, and of a clean stream nothing is suspended.)"""
    folder = clean_fleet("EdDSA", options.reports)
    synced, unsynced = [], []
    with Place() as place:
        shim = place / "nosync.so"
        source = "int fsync(int f){return 0;} int fdatasync(int f){return 0;} int syncfs(int f){return 0;}"
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", shim], input=source, text=True, check=True)
        for _ in range(options.rounds):
            for walls, environment in ((synced, {}), (unsynced, {"LD_PRELOAD": str(shim)})):
                with Place() as lakes:
                    ran = ingest(lakes / "lake", folder, cores=2, environment=environment)
                assert counts(ran)["accepted"] == options.reports
                walls.append(ran.wall)
    more = 100 * (median(synced) / median(unsynced) - 1)
    table.add("exactly-once (every commit and the index synced) against the same without any sync, EdDSA", f"{more:+.1f}%",
              "+5%", f"{median(synced):.2f} s against {median(unsynced):.2f} s", f"{spread(synced):.0f}%")


def metric(port, name):
    """The sum of a metric over its labels, or 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


def drain(lake, brokers, topic, reports, port=19980):
    """Reports made durable a second, from the first message that the worker reads until nine in ten are durable:
    the last batch waits for its age, whatever the rate was."""
    command = [BINARY, "-q", "--lake", lake, "ingest", "kafka", "--brokers", brokers, "--group", topic,
               "--topic", topic, "--receipts-topic", "", "--trust-topic", "", "--listen", f"127.0.0.1:{port}"]
    worker = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while metric(port, "rumledger_ingest_messages_total") == 0:
            assert worker.poll() is None, "the worker ended"
            time.sleep(0.005)
        started = time.monotonic()
        rate = None
        while (durable := metric(port, "rumledger_ingest_reports_total")) < reports:
            assert worker.poll() is None, "the worker ended"
            if rate is None and durable >= 0.9 * reports:
                rate = durable / (time.monotonic() - started)
            # Asking costs the two cores too: every 10 ms it was 4% of them.
            time.sleep(0.025)
        return rate or reports / (time.monotonic() - started)
    finally:
        worker.terminate()
        worker.wait()


def broker(options, table):
    """As `verify`, from a filled broker of four partitions; and without a book, so without any check."""
    script = ROOT / "ci" / "kafka" / "broker.sh"
    run([script, "up"], environment={"RUMLEDGER_TEST_KAFKA_JVM": "-Xms1g -Xmx1g"})
    brokers = dict(line.split("=", 1) for line in run([script, "env"]).out.split())["RUMLEDGER_TEST_BROKERS"]
    for algorithm in ALGORITHMS:
        folder = clean_fleet(algorithm, options.reports)
        topic = f"bench-{algorithm}-{options.reports}-{os.getpid()}"
        run([BINARY, "-q", "fleet", "generate", "--brokers", brokers, "--topic", topic, "--partitions", 4,
             *shape(options.reports), "--algorithm", algorithm])
        # What was just written goes to the disk now, not beside what is measured.
        os.sync()
        at_best, checked, unchecked = [], [], []
        for n in range(options.rounds):
            verified, seconds = bare(folder, 2)
            # Reports, as on the other side: not all of them have a signature that can be checked.
            at_best.append(options.reports / seconds)
            for rates, with_book in ((checked, True), (unchecked, False)):
                with Place() as place:
                    lake = place / "lake"
                    if with_book:
                        rumledger(lake, "book", "import", folder / "book")
                    rates.append(drain(lake, brokers, topic, options.reports))
                    said = rumledger(lake, "--format", "csv", "sql",
                                     "SELECT count(*), count(*) FILTER (WHERE signature = 'verified') FROM journal").out
                assert said.splitlines()[1] == f"{options.reports},{verified if with_book else 0}", said
        ratio = median(checked) / median(at_best)
        table.add(f"ingest against bare verification, {algorithm}, broker, 2 cores", f"{ratio:.2f}", f"{MUST[algorithm]:.2f}",
                  f"{median(checked):,.0f} messages/s with verification, "
                  f"{median(unchecked):,.0f} without (no trust code on record: suspended)",
                  f"{spread(checked):.0f}%")
    run([script, "down"])


def cores(options, table):
    folder = clean_fleet("EdDSA", options.reports)
    walls = {1: [], 2: []}
    for _ in range(options.rounds):
        answers = set()
        for n in walls:
            with Place() as place:
                ran = ingest(place / "lake", folder, cores=n)
            answers.add(str(counts(ran)))
            walls[n].append(ran.wall)
        assert len(answers) == 1, answers
    ratio = median(walls[1]) / median(walls[2])
    table.add("two cores against one, EdDSA", f"{ratio:.2f}", "1.90",
              f"{median(walls[1]):.2f} s and {median(walls[2]):.2f} s", f"{spread(walls[2]):.0f}%")


def redelivery(options, table):
    for algorithm in ALGORITHMS:
        folder = clean_fleet(algorithm, options.reports)
        fresh, again = [], []
        for _ in range(options.rounds):
            with Place() as place:
                first = ingest(place / "lake", folder, cores=2)
                second = ingest(place / "lake", folder, cores=2)
            assert counts(second)["duplicate"] == counts(first)["accepted"] == options.reports
            fresh.append(first.wall)
            again.append(second.wall)
        ratio = median(fresh) / median(again)
        table.add(f"byte-identical redelivery against fresh, {algorithm}", f"{ratio:.1f}", "6.0",
                  f"{options.reports / median(again):,.0f} reports/s again", f"{spread(again):.0f}%")


def garbage(options, table):
    clean = clean_fleet("EdDSA", options.reports)
    broken = fleet(f"broken-{options.reports}", "--reports", options.reports, "--devices", options.reports // 50,
                   "--duplicates", 0, "--broken", 50, "--algorithm", "EdDSA")
    walls = {clean: [], broken: []}
    for _ in range(options.rounds):
        for folder in walls:
            with Place() as place:
                ran = ingest(place / "lake", folder, cores=2)
            said = counts(ran)
            assert said["received"] == options.reports == said["accepted"] + said["duplicate"] + sum(said["suspended"].values())
            walls[folder].append(ran.wall)
    ratio = median(walls[clean]) / median(walls[broken])
    table.add("a stream that is half garbage against a clean one, EdDSA", f"{ratio:.2f}", "0.80",
              f"{median(walls[broken]):.2f} s against {median(walls[clean]):.2f} s", f"{spread(walls[broken]):.0f}%")


def decades(options, table):
    """CPU and memory by size; ten million only with --large (it takes 30 GB of disk)."""
    sizes = [100_000, 1_000_000] + ([10_000_000] if options.large else [])
    before = None
    for reports in sizes:
        folder = month_fleet(reports)
        cpu, peaks = [], []
        for _ in range(3 if reports < 1_000_000 else 1):
            with Place() as place:
                ran = ingest(place / "lake", folder, cores=2)
            assert counts(ran)["accepted"] == reports
            cpu.append(1e6 * ran.cpu / reports)
            peaks.append(ran.peak)
        figures = f"{median(cpu):.1f} us CPU a report, peak {median(peaks):.0f} MiB"
        if before is None:
            table.add(f"ingest of {reports:,} reports, EdDSA", "", "", figures, f"{spread(cpu):.0f}%")
        else:
            table.add(f"CPU a report, {reports:,} against a tenth", f"{median(cpu) / before[0]:.2f}", "1.05", figures, f"{spread(cpu):.0f}%")
            table.add(f"peak memory, {reports:,} against a tenth", f"{median(peaks) / before[1]:.2f}", "1.10", figures, f"{spread(peaks):.0f}%")
        before = (median(cpu), median(peaks))
    if options.large:
        # As many reports, of no more devices: what grows with reports alone.
        peaks = {}
        for reports in (1_000_000, 10_000_000):
            folder = month_fleet(reports, devices=5_000)
            with Place() as place:
                ran = ingest(place / "lake", folder, cores=2)
            assert counts(ran)["accepted"] == reports
            peaks[reports] = ran.peak
        one, ten = peaks.values()
        table.add("peak memory, 10,000,000 reports against 1,000,000 of the same 5,000 devices", f"{ten / one:.2f}", "1.10",
                  f"{ten:.0f} MiB against {one:.0f} MiB", "")


def footprint(options, table):
    """Bytes in the lake, by column, as the Parquet footers have them."""
    for algorithm in ALGORITHMS:
        folder = clean_fleet(algorithm, options.reports)
        inputs = rumledger_input_bytes(folder)
        with Place() as place:
            ingest(place / "lake", folder)
            sizes = run([BINARY.parent / "column-sizes", place / "lake" / "journal"]).out
            columns = {name: int(n) for name, n in (line.split() for line in sizes.splitlines())}
        raw = columns.pop("raw", 0) + columns.pop("context", 0)
        rest = sum(columns.values()) / options.reports
        largest = sorted(columns.items(), key=lambda c: -c[1])[:4]
        detail = ", ".join(f"{name} {n / options.reports:.1f}" for name, n in largest)
        table.add(f"bytes a report without the raw bytes, {algorithm}", f"{rest:.1f}", "40", detail, "")
        table.add(f"raw bytes against the input, {algorithm}", f"{100 * raw / inputs:.1f}%", "15%",
                  f"{raw / options.reports:.0f} of {inputs / options.reports:.0f} bytes a report", "")


def rumledger_input_bytes(folder):
    """Bytes of the reports as text; bundles counted by their share of the files."""
    texts = size(folder / "reports", "*.xml") + size(folder / "reports", "*.json")
    files = [f for f in (folder / "reports").iterdir()]
    plain = [f for f in files if f.suffix in (".xml", ".json")]
    return texts * len(files) / len(plain)


def reconcile(options, table):
    """A run with nothing new against a full one."""
    folder = month_fleet(10_000_000 if options.large else 1_000_000)
    full, nothing = [], []
    with Place() as place:
        ingest(place / "lake", folder)
        for _ in range(options.rounds):
            ran = rumledger(place / "lake", "reconcile", "--period", "2026-10", "--dry-run", "--format", "csv")
            full.append(ran.wall)
        posted = rumledger(place / "lake", "reconcile", "--period", "2026-10", "--format", "csv")
        assert posted.out == ran.out, "a dry run prints what a run posts"
        for _ in range(options.rounds):
            again = rumledger(place / "lake", "reconcile", "--period", "2026-10", "--format", "csv")
            assert again.out.count("\n") == 1, again.out
            nothing.append(again.wall)
    table.add("reconcile with nothing new against a full run", f"{100 * median(nothing) / median(full):.1f}%", "1%",
              f"{1000 * median(nothing):.0f} ms against {1000 * median(full):.0f} ms", f"{spread(nothing):.0f}%")


def many_accounts(folder, book):
    """The fleet's book with an account for every ten devices, instead of six in all."""
    def rows(name):
        with open(folder / "book" / f"{name}.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def write(name, all_rows):
        with open(book / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, all_rows[0].keys())
            writer.writeheader()
            writer.writerows(all_rows)

    def of(row, ten):
        return {**row, "smart_account": f"{ten}.{row['smart_account']}"}

    book.mkdir()
    devices = rows("devices")
    first = min(int(d["udi_serial"]) for d in devices if d["udi_serial"].isdigit()) // 10
    ten_of = {d["udi_serial"]: int(d["udi_serial"]) // 10 - first for d in devices}
    tens = sorted(set(ten_of.values()))
    templates = rows("accounts")
    write("devices", [of(d, ten_of[d["udi_serial"]]) for d in devices])
    write("accounts", [of(templates[ten % 6], ten) for ten in tens])
    for name, column, small in (("subscriptions", "committed_quantity", "6"), ("purchases", "quantity", "4")):
        by_account = {}
        for row in rows(name):
            by_account.setdefault((row["smart_account"], row["virtual_account"]), []).append(row)
        write(name, [
            {**of(row, ten), column: small if row[column] else ""}
            for ten in tens
            for row in by_account[(templates[ten % 6]["smart_account"], templates[ten % 6]["virtual_account"])]
        ])
    for name in ("catalog", "prices", "trust_codes"):
        shutil.copy(folder / "book" / f"{name}.csv", book)


def explain(options, table):
    """From a line to its reports, on a lake of two measurements a report and an account for ten devices."""
    reports = 5_000_000 if options.large else 500_000
    folder = month_fleet(reports)
    with Place() as place:
        book, lake = place / "book", place / "lake"
        many_accounts(folder, book)
        rumledger(lake, "book", "import", book)
        ran = rumledger(lake, "ingest", "files", folder / "reports")
        print(f"ingest: {ran.wall:.0f} s, {ran.cpu / reports * 1e6:.1f} us CPU a report, {ran.peak:.0f} MiB", flush=True)
        ran = rumledger(lake, "reconcile", "--period", "2026-10")
        print(f"reconcile: {ran.wall:.1f} s, {ran.peak:.0f} MiB", flush=True)
        lines = rumledger(lake, "statement", "--period", "2026-10", "--format", "csv").out.splitlines()[1:]
        chosen = random.Random(1).sample([line.split(",")[0] for line in lines], 600)  # p99: six are slower
        for name in ("as it came", "clustered"):
            if name == "clustered":
                ran = rumledger(lake, "lake", "optimize", "--cluster")
                print(f"cluster: {ran.wall:.0f} s, {ran.peak:.0f} MiB", flush=True)
            times = []
            for line in chosen if name == "clustered" else chosen[:20]:
                ran = rumledger(lake, "explain", line, "--format", "json")
                assert f'"line_id": "{line}"' in ran.out
                times.append(1000 * ran.wall)
            times.sort()
            table.add(f"explain, {2 * reports:,} measurements, {len(lines):,} lines, {name}", "", "p99 200 ms",
                      f"p50 {median(times):.0f} ms, p99 {times[len(times) * 99 // 100]:.0f} ms", "")


def late_report(device, number):
    """One more report of a device, as a file that was exported: usage on the 15th of October 2026."""
    measurement = {"log_time": 1792108800, "metric_name": "ENTITLEMENT", "start_time": 1792022400, "end_time": 1792065600,
                   "sample_interval": 43200, "num_samples": 1, "value": {"type": "COUNT", "value": str(50 + number)}}
    sudi = {"udi_pid": device["udi_pid"], "udi_serial_number": device["udi_serial"]}
    identification = {"report_id": 2**60 + number, "asset": {"name": "regid.late"}, "instance": {"sudi": sudi}}
    tag = "regid.2017-03.com.cisco.NETWORK_PLUS,1.0_5d0e8b36-7a2c-4e59-b6f4-1c8a9d3e7f03"
    return {"payload": {"version": "2.0", "asset_identification": identification, "meta": {"entitlement_tag": tag},
                        "measurements": [measurement]},
            "signature": {"signing_type": "builtin", "key": "", "value": "AAAA"}}


def changed(options, table):
    """A run of which some accounts changed, by late reports, against the same run in full."""
    reports = 5_000_000 if options.large else 500_000
    folder = month_fleet(reports)
    command = ("reconcile", "--period", "2026-10", "--format", "csv")
    with Place() as place:
        book, lake, memo = place / "book", place / "lake", place / "lake" / "_cache" / "reconcile"
        many_accounts(folder, book)
        rumledger(lake, "book", "import", book)
        rumledger(lake, "ingest", "files", folder / "reports")
        rumledger(lake, *command)
        with open(book / "devices.csv", encoding="utf-8", newline="") as file:
            of_account = {row["smart_account"]: row for row in csv.DictReader(file)}
        accounts = sorted(of_account)
        fixed = None
        for clustered in (False, True):
            if clustered:
                rumledger(lake, "lake", "optimize", "--cluster")
                rumledger(lake, *command)
            for number, percent in enumerate((0, 1, 10)):
                chosen = accounts[number::100 // percent] if percent else accounts[:1]
                late = place / "late.json"
                salt = 10 * clustered + number
                late.write_text(json.dumps({"usage": [late_report(of_account[a], salt) for a in chosen]}))
                rumledger(lake, "ingest", "files", late)
                full, part = [], []
                for _ in range(options.rounds):
                    memo.rename(place / "memo")
                    in_full = rumledger(lake, *command, "--dry-run")
                    (place / "memo").rename(memo)
                    in_part = rumledger(lake, *command, "--dry-run")
                    assert in_part.out == in_full.out and in_full.out.count("\n") > len(chosen), (len(chosen), in_full.out[:500])
                    full.append(in_full.wall)
                    part.append(in_part.wall)
                ratio = median(part) / median(full)
                if not percent:
                    fixed = ratio
                table.add(f"reconcile of {2 * reports:,} measurements with {len(chosen):,} of {len(accounts):,} accounts changed, "
                          + ("clustered" if clustered else "as it came"), f"{100 * ratio:.1f}% of a full run",
                          f"fixed + {1.5 * percent:.1f}%: {100 * fixed + 1.5 * percent:.1f}%",
                          f"{median(part):.2f} s against {median(full):.2f} s", f"{spread(part):.0f}%")
                assert rumledger(lake, *command).out == in_part.out, "a dry run prints what a run posts"


PARTS = {f.__name__: f for f in (verify, broker, durable, cores, redelivery, garbage, decades, footprint, reconcile, changed,
                                 explain)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reports", type=int, default=400_000)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of " + ", ".join(PARTS))
    parser.add_argument("--large", action="store_true", help="also ten million reports")
    options = parser.parse_args()
    for needed in (BINARY, BARE):
        if not needed.exists():
            sys.exit(f"{needed} is not there: cargo build --release --workspace")
    print(machine(), flush=True)
    table = Table("The whole path", ["what", "ratio", "must", "figures", "spread"])
    table.fill(PARTS, options)


if __name__ == "__main__":
    main()
