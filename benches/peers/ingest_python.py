"""The path of a report as a careful Python script would have it, without signatures: files to the same
rows of Parquet, each batch synced. One core: nothing here runs beside anything else.

    ingest_python.py FOLDER OUT
"""

import hashlib
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lxml import etree

ROWS = 16_384
UTC = pa.timestamp("us", tz="UTC")
UDI = pa.struct([("udi_pid", pa.string()), ("udi_serial", pa.string())])
MEASUREMENT = pa.struct([("metric", pa.string()), ("start", UTC), ("end", UTC), ("value", pa.int64())])
SCHEMA = pa.schema([
    ("disposition", pa.string()), ("reason", pa.string()), ("detail", pa.string()),
    ("udi_pid", pa.string()), ("udi_serial", pa.string()), ("report_id", pa.uint64()),
    ("payload_sha256", pa.string()), ("layout", pa.int32()), ("entitlement_tag", pa.string()),
    ("utility", pa.bool_()), ("software_version", pa.string()), ("subscription_id", pa.string()),
    ("signature", pa.string()), ("collector", pa.string()), ("smart_account", pa.string()),
    ("virtual_account", pa.string()), ("received_at", UTC), ("usage_start", UTC), ("usage_end", UTC),
    ("source", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()),
    ("ha_udi", pa.list_(UDI)), ("measurements", pa.list_(MEASUREMENT)), ("raw", pa.binary()),
    ("context", pa.binary()),
])


def texts(path):
    """The JSON text of each report in a file."""
    head = open(path, "rb").read(1)
    if head == b"<":
        for element in etree.parse(str(path), etree.XMLParser(resolve_entities=False, huge_tree=False)).getroot():
            if element.tag == "RUMReport":
                yield element.text
    elif head == b"{":
        document = json.load(open(path, encoding="utf-8"))
        for report in document["usage"] if "usage" in document else [document]:
            yield json.dumps(report)
    else:
        with tarfile.open(path) as outer:
            for member in outer:
                if member.name.endswith(".tar.gz"):
                    with tarfile.open(fileobj=io.BytesIO(outer.extractfile(member).read())) as inner:
                        for document in inner:
                            for element in etree.fromstring(inner.extractfile(document).read()):
                                if element.tag == "RUMReport":
                                    yield element.text


def row(text, source, offset, received_at, known):
    report = json.loads(text)
    payload_text = report["payload"]
    payload = json.loads(payload_text)
    digest = hashlib.sha256(payload_text.encode()).hexdigest()
    layout = 2 if str(payload.get("version", "")).startswith("2.") else 1
    asset, meta = payload["asset_identification"], payload["meta"]
    sudi = asset["instance"]["sudi"]
    report_id = int(asset["report_id"] if layout == 2 else meta["report_id"])
    key = (sudi["udi_pid"], sudi["udi_serial_number"], report_id)
    disposition = "duplicate" if known.get(key) == digest else "accepted"
    known[key] = digest
    measurements, first, last = [], None, None
    for m in payload["measurements"]:
        count = m["value"]["value"]
        start, end = m["start_time"], m["end_time"]
        if not count.isdigit() or end <= start or start < 946_684_800 or end > received_at + 86_400:
            raise ValueError(f"{source} {offset}: a bad measurement")
        if m["metric_name"] == "ENTITLEMENT":
            first = start if first is None else min(first, start)
            last = end if last is None else max(last, end)
        measurements.append({
            "metric": m["metric_name"], "start": start * 1_000_000, "end": end * 1_000_000, "value": int(count),
        })
    ha = [{"udi_pid": u["sudi"]["udi_pid"], "udi_serial": u["sudi"]["udi_serial_number"]} for u in meta.get("ha_udi", ())]
    return (
        disposition, None, None, key[0], key[1], report_id, digest, layout, meta.get("entitlement_tag"),
        layout == 2 and bool(meta.get("utility_enabled", False)), meta.get("software_version"),
        meta.get("subscription_id"), "unverifiable", "file", None, None, received_at * 1_000_000,
        None if first is None else first * 1_000_000, None if last is None else last * 1_000_000,
        source, None, offset, ha or None, measurements, text.encode(), None,
    )


def write(rows, out, number):
    columns = [pa.array(column, type=field.type) for column, field in zip(zip(*rows), SCHEMA)]
    path = out / f"part-{number:05}.parquet"
    with open(path, "wb") as file:
        pq.write_table(
            pa.table(columns, schema=SCHEMA), file, compression="zstd", compression_level=1,
            use_dictionary=[n for n in SCHEMA.names if n not in ("raw", "payload_sha256")],
        )
        file.flush()
        os.fsync(file.fileno())


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True)
    pa.set_cpu_count(1)
    received_at, known, rows, files, total = int(time.time()), {}, [], 0, 0
    for path in sorted(folder.iterdir()):
        for offset, text in enumerate(texts(path)):
            rows.append(row(text, str(path), offset, received_at, known))
            if len(rows) == ROWS:
                write(rows, out, files)
                files, total, rows = files + 1, total + len(rows), []
    if rows:
        write(rows, out, files)
    print(json.dumps({"received": total + len(rows), "accepted": len(known)}))


if __name__ == "__main__":
    main()
