"""The quantities of a month by Polars, from the same Parquet; as `reconcile_duckdb.py`, and with the same
liberties.

    reconcile_polars.py LAKE BOOK YYYY-MM THREADS
"""

import os
import sys

lake, book, period, threads = sys.argv[1:5]
os.environ["POLARS_MAX_THREADS"] = threads

import datetime as dt  # noqa: E402

import polars as pl  # noqa: E402

year, month = map(int, period.split("-"))
A = dt.datetime(year, month, 1, tzinfo=dt.timezone.utc)
B = dt.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=dt.timezone.utc)
col, lit = pl.col, pl.lit
instant = pl.Datetime("us", "UTC")


def csv(name):
    return pl.scan_csv(f"{book}/{name}.csv", infer_schema=False).fill_null("")


def moment(name):
    """A date or an RFC 3339 time of the book; blank is open."""
    text = col(name)
    parsed = pl.coalesce(
        text.str.to_datetime("%Y-%m-%d", time_unit="us", time_zone="UTC", strict=False),
        text.str.to_datetime("%Y-%m-%dT%H:%M:%S%#z", time_unit="us", time_zone="UTC", strict=False),
    )
    return pl.when(text == "").then(lit(B).cast(instant)).otherwise(parsed)


catalog = csv("catalog").select(
    tag="entitlement_tag",
    item=pl.when(col("equivalence") == "").then("entitlement_tag").otherwise("equivalence"),
    postpaid=col("postpaid_allowed") == "true",
)
account = pl.concat_str("smart_account", "virtual_account", separator="/").alias("account")
devices = csv("devices").select("udi_pid", "udi_serial", account)
subscriptions = csv("subscriptions").select(account, tag="entitlement_tag", subscription="subscription_id")
udi = pl.concat_str("udi_pid", "udi_serial", separator=":")

reports = (
    pl.scan_parquet(f"{lake}/journal/disposition=accepted/*.parquet", hive_partitioning=False)
    .filter((col("usage_end") > A) & (col("usage_start") < B))
    .select(
        "udi_pid", "udi_serial", "measurements", tag="entitlement_tag", utility=col("utility").fill_null(False),
        pair=pl.coalesce(
            col("ha_udi").list.eval(
                pl.concat_str(pl.element().struct.field("udi_pid"), pl.element().struct.field("udi_serial"), separator=":")
            ).list.min(),
            udi,
        ),
    )
)
claims = (
    reports.join(catalog, on="tag").join(devices, on=["udi_pid", "udi_serial"])
    .join(subscriptions, on=["account", "tag"], how="left")
    .with_columns(subscription=pl.when(col("utility") & col("postpaid")).then("subscription").otherwise(lit("")))
    .filter(col("subscription").is_not_null())
    .select("pair", "account", "item", "subscription", "measurements")
    .explode("measurements").unnest("measurements")
    .filter((col("metric") == "ENTITLEMENT") & (col("value") > 0) & (col("end") > A) & (col("start") < B))
    .select(
        "pair", "account", "item", "subscription", v="value",
        s=pl.max_horizontal("start", lit(A).cast(instant)), e=pl.min_horizontal("end", lit(B).cast(instant)),
    )
    .sort("pair", "item", "s")
    .with_columns(before=col("e").cum_max().shift(1).over("pair", "item"))
    .with_columns(number=(col("before").is_null() | (col("s") >= col("before"))).cum_sum().over("pair", "item"))
    .with_columns(together=pl.len().over("pair", "item", "number"))
    .collect()
)
key = ["pair", "item", "number"]
alone = claims.lazy().filter(col("together") == 1).select("account", "subscription", "item", "s", "e", "v")
several = claims.lazy().filter(col("together") > 1)
bounds = (
    pl.concat([several.select(*key, t="s"), several.select(*key, t="e")]).unique().sort(*key, "t")
    .with_columns(u=col("t").shift(-1).over(key)).filter(col("u").is_not_null())
)
joined = (
    bounds.join(several, on=key).filter((col("s") <= col("t")) & (col("e") >= col("u")))
    .group_by(*key, "t", "u").agg(col("account").first(), col("subscription").first(), col("v").max())
    .select("account", "subscription", "item", s="t", e="u", v="v")
)
won = pl.concat([alone, joined])
bought = pl.concat([
    csv("purchases").with_columns(tag=col("entitlement_tag")).join(catalog, on="tag").select(
        account, subscription=lit(""), item="item", v=col("quantity").cast(pl.Int64),
        s=pl.max_horizontal(moment("start"), lit(A).cast(instant)), e=pl.min_horizontal(moment("end"), lit(B).cast(instant)),
    ),
    csv("subscriptions").filter(col("billing_model") == "COMMITTED").select(
        account, subscription="subscription_id", item="entitlement_tag", v=col("committed_quantity").cast(pl.Int64),
        s=pl.max_horizontal(moment("start"), lit(A).cast(instant)), e=pl.min_horizontal(moment("end"), lit(B).cast(instant)),
    ),
]).filter(col("s") < col("e"))
owner = ["account", "subscription", "item"]
zero = lit(0, dtype=pl.Int64)
steps = pl.concat([
    won.select(*owner, t="s", q="v", p=zero), won.select(*owner, t="e", q=-col("v"), p=zero),
    bought.select(*owner, t="s", q=zero, p="v"), bought.select(*owner, t="e", q=zero, p=-col("v")),
]).group_by(*owner, "t").agg(col("q").sum(), col("p").sum()).sort(*owner, "t")
levels = steps.with_columns(
    q=col("q").cum_sum().over(owner), p=col("p").cum_sum().over(owner), u=col("t").shift(-1).over(owner)
).filter(col("u").is_not_null())
days = (
    levels.with_columns(d=(col("q") - col("p")).clip(lower_bound=0), first=col("t").dt.truncate("1d"),
                        last=(col("u") - pl.duration(microseconds=1)).dt.truncate("1d"))
    .with_columns(day=pl.datetime_ranges("first", "last", "1d"))
    .explode("day").group_by(*owner, "day").agg(col("q").max(), col("d").max())
)
answer = (
    days.group_by(owner).agg(col("q").sum(), col("d").sum()).filter(col("d") > 0).sort(owner).collect()
)
for row in answer.iter_rows():
    print("\t".join(map(str, row)))
