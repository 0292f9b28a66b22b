"""The quantities of a month by DuckDB, from the same Parquet: max-join by group and item, pools, purchases,
delta, daily peaks. Prints account, subscription, item, licence-days consumed and billed.

    reconcile_duckdb.py LAKE BOOK YYYY-MM THREADS

It may take what our own engine may not: that groups are pairs whose members share an account, that all
accounts are in UTC, and that no device moves. See `peers.py` for the book that is made so.
"""

import sys

import duckdb

lake, book, period, threads = sys.argv[1:5]
year, month = map(int, period.split("-"))
following = f"{year + month // 12}-{month % 12 + 1:02}"
db = duckdb.connect()
db.execute(f"SET threads = {int(threads)}; SET TimeZone = 'UTC'")
db.execute(f"SET VARIABLE a = TIMESTAMPTZ '{period}-01 00:00:00+00'; SET VARIABLE b = TIMESTAMPTZ '{following}-01 00:00:00+00'")
csv = lambda name: f"read_csv('{book}/{name}.csv', all_varchar = true, header = true)"
rows = db.execute(f"""
WITH report AS (
    SELECT
        udi_pid, udi_serial, entitlement_tag AS tag, coalesce(utility, false) AS utility, measurements,
        CASE WHEN ha_udi IS NULL THEN udi_pid || ':' || udi_serial
             ELSE list_min(list_transform(ha_udi, lambda x: x.udi_pid || ':' || x.udi_serial)) END AS pair
    FROM read_parquet('{lake}/journal/disposition=accepted/*.parquet')
    WHERE usage_end > getvariable('a') AND usage_start < getvariable('b')
),
measured AS (
    SELECT udi_pid, udi_serial, tag, utility, pair, unnest(measurements) AS m FROM report
),
claim AS (
    SELECT
        pair, d.smart_account || '/' || d.virtual_account AS account,
        coalesce(nullif(c.equivalence, ''), m.tag) AS item,
        CASE WHEN m.utility AND c.postpaid_allowed = 'true' THEN s.subscription_id ELSE '' END AS subscription,
        greatest(m.m.start, getvariable('a')) AS s, least(m.m."end", getvariable('b')) AS e, m.m.value AS v
    FROM measured m
    JOIN {csv('catalog')} c ON c.entitlement_tag = m.tag
    JOIN {csv('devices')} d ON d.udi_pid = m.udi_pid AND d.udi_serial = m.udi_serial
    LEFT JOIN {csv('subscriptions')} s
        ON s.smart_account = d.smart_account AND s.virtual_account = d.virtual_account AND s.entitlement_tag = m.tag
    WHERE m.m.metric = 'ENTITLEMENT' AND m.m.value > 0
        AND m.m."end" > getvariable('a') AND m.m.start < getvariable('b')
        AND (NOT (m.utility AND c.postpaid_allowed = 'true') OR s.subscription_id IS NOT NULL)
),
reached AS (
    SELECT *, max(e) OVER (
        PARTITION BY pair, item ORDER BY s ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM claim
),
island AS (
    -- Of claims that start together one starts the island: it has to come first here too.
    SELECT *, count(*) FILTER (starts) OVER (
        PARTITION BY pair, item ORDER BY s, starts DESC ROWS UNBOUNDED PRECEDING) AS number
    FROM (SELECT *, before IS NULL OR s >= before AS starts FROM reached)
),
sized AS (
    SELECT *, count(*) OVER (PARTITION BY pair, item, number) AS together FROM island
),
bound AS (
    SELECT DISTINCT pair, item, number, unnest([s, e]) AS t FROM sized WHERE together > 1
),
piece AS (
    SELECT pair, item, number, t, lead(t) OVER (PARTITION BY pair, item, number ORDER BY t) AS u FROM bound
),
won AS (
    SELECT account, subscription, item, s, e, v FROM sized WHERE together = 1
    UNION ALL
    SELECT any_value(c.account), any_value(c.subscription), p.item, p.t, p.u, max(c.v)
    FROM piece p
    JOIN sized c ON c.pair = p.pair AND c.item = p.item AND c.number = p.number AND c.s <= p.t AND c.e >= p.u
    WHERE p.u IS NOT NULL AND c.together > 1
    GROUP BY p.pair, p.item, p.number, p.t, p.u
),
bought AS (
    SELECT smart_account || '/' || virtual_account AS account, '' AS subscription,
        coalesce(nullif(c.equivalence, ''), p.entitlement_tag) AS item, CAST(quantity AS BIGINT) AS v,
        greatest(CAST(p.start AS TIMESTAMPTZ), getvariable('a')) AS s,
        least(coalesce(CAST(nullif(p."end", '') AS TIMESTAMPTZ), getvariable('b')), getvariable('b')) AS e
    FROM {csv('purchases')} p JOIN {csv('catalog')} c ON c.entitlement_tag = p.entitlement_tag
    UNION ALL
    SELECT smart_account || '/' || virtual_account, subscription_id, entitlement_tag,
        CAST(committed_quantity AS BIGINT), greatest(CAST(start AS TIMESTAMPTZ), getvariable('a')),
        least(coalesce(CAST(nullif("end", '') AS TIMESTAMPTZ), getvariable('b')), getvariable('b'))
    FROM {csv('subscriptions')} WHERE billing_model = 'COMMITTED'
),
step AS (
    SELECT account, subscription, item, t, sum(q) AS q, sum(p) AS p FROM (
        SELECT account, subscription, item, s AS t, v AS q, 0 AS p FROM won
        UNION ALL SELECT account, subscription, item, e, -v, 0 FROM won
        UNION ALL SELECT account, subscription, item, s, 0, v FROM bought WHERE s < e
        UNION ALL SELECT account, subscription, item, e, 0, -v FROM bought WHERE s < e
    ) GROUP BY ALL
),
level AS (
    SELECT account, subscription, item, t,
        lead(t) OVER w AS u, sum(q) OVER w AS q, sum(p) OVER w AS p
    FROM step WINDOW w AS (PARTITION BY account, subscription, item ORDER BY t)
),
day AS (
    SELECT account, subscription, item, q, greatest(q - p, 0) AS d,
        unnest(generate_series(date_trunc('day', t), u - INTERVAL 1 MICROSECOND, INTERVAL 1 DAY)) AS day
    FROM level WHERE u > t
),
peak AS (
    SELECT account, subscription, item, day, max(q) AS q, max(d) AS d FROM day GROUP BY ALL
)
SELECT account, subscription, item, CAST(sum(q) AS BIGINT), CAST(sum(d) AS BIGINT)
FROM peak GROUP BY ALL HAVING sum(d) > 0 ORDER BY ALL
""").fetchall()
for row in rows:
    print("\t".join(map(str, row)))
