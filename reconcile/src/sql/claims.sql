-- Every accepted report with usage that touches [$from, $to), its measurements as they stand.
SELECT
    udi_pid, udi_serial, report_id, entitlement_tag, utility, signature, subscription_id,
    smart_account, virtual_account, measurements, payload_sha256
FROM journal
WHERE disposition = 'accepted' AND usage_end > $from AND usage_start < $to
