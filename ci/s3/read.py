"""Reads a lake's tables as other engines do, and prints what they hold: deltalake (delta-rs, by its own query
engine) over the store itself, and DuckDB over the files that the log names.

    read.py LAKE TABLE…
"""
import os
import sys

import deltalake
import duckdb

QUERIES = {
    "journal": "SELECT disposition, count(*), sum(coalesce(report_id, 0)), max(payload_sha256) FROM t GROUP BY 1 ORDER BY 1",
    "ledger": "SELECT currency, count(*), sum(amount) FROM t WHERE record = 'line' GROUP BY 1 ORDER BY 1",
}


def show(engine, name, rows):
    for row in rows:
        print(engine, name, *row, sep="\t")


def main(lake, names):
    options = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    for name in names:
        table = deltalake.DeltaTable(f"{lake}/{name}", storage_options=options)
        query = QUERIES[name]
        batches = deltalake.QueryBuilder().register("t", table).execute(query).read_all()
        columns = [batches.column(i).to_pylist() for i in range(batches.num_columns)]
        show("deltalake", name, zip(*columns))
        if lake.startswith("s3://"):
            continue  # DuckDB's S3 needs an extension that is not in its package.
        files = [uri.removeprefix("file://") for uri in table.file_uris()]
        rows = duckdb.connect().execute(
            query.replace("FROM t", "FROM read_parquet($files, hive_partitioning = true)"), {"files": files}
        )
        show("duckdb", name, rows.fetchall())


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2:])
