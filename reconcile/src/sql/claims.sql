-- Every measurement that counts as usage and touches [$from, $to), with its PI group and item,
-- claims of one group and item together (contract 3.1 to 3.3). A group of one is named by its PI; the
-- length keeps the two parts of a UDI apart.
WITH accepted AS (
    SELECT
        udi_pid, udi_serial, report_id, entitlement_tag, utility, signature, subscription_id,
        smart_account, virtual_account,
        unnest(measurements) AS m
    FROM journal
    WHERE disposition = 'accepted' AND usage_end > $from AND usage_start < $to
),
claims AS (
    SELECT
        udi_pid, udi_serial, report_id, entitlement_tag, utility, signature, subscription_id,
        smart_account, virtual_account,
        m['start'] AS claim_start, m['end'] AS claim_end, m['value'] AS claim_value
    FROM accepted
    WHERE m['metric'] = 'ENTITLEMENT' AND m['end'] > $from AND m['start'] < $to AND m['value'] > 0
)
SELECT
    CASE
        WHEN g.group_number IS NULL
        THEN concat(CAST(octet_length(c.udi_pid) AS VARCHAR), ':', c.udi_pid, c.udi_serial)
        ELSE concat('#', CAST(g.group_number AS VARCHAR))
    END AS group_key,
    coalesce(i.item, c.entitlement_tag) AS item,
    c.udi_pid, c.udi_serial, c.report_id, c.entitlement_tag, c.utility, c.signature,
    c.subscription_id, c.smart_account, c.virtual_account,
    c.claim_start, c.claim_end, c.claim_value
FROM claims c
LEFT JOIN group_of_pi g ON g.udi_pid = c.udi_pid AND g.udi_serial = c.udi_serial
LEFT JOIN item_of_tag i ON i.entitlement_tag = c.entitlement_tag
ORDER BY group_key, item
