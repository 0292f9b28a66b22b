-- Measurements that count as usage (contract 1.2, 5).
WITH measured AS (
    SELECT
        udi_pid, udi_serial, report_id AS stored_report_id, entitlement_tag, utility, signature,
        unnest(measurements) AS m
    FROM stored_journal
    WHERE disposition = 'accepted'
)
SELECT
    udi_pid, udi_serial, arrow_cast(stored_report_id, 'UInt64') AS report_id, entitlement_tag,
    m['start'] AS "start", m['end'] AS "end", arrow_cast(m['value'], 'UInt64') AS value, utility,
    signature
FROM measured
WHERE m['metric'] = 'ENTITLEMENT'
