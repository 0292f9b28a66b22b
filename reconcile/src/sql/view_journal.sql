-- The journal as contract 5 shows it: ids and counts unsigned.
SELECT
    disposition, reason, detail, udi_pid, udi_serial,
    arrow_cast(report_id, 'UInt64') AS report_id,
    payload_sha256, layout, entitlement_tag, utility, software_version, subscription_id, signature,
    collector, smart_account, virtual_account, received_at, source, partition,
    arrow_cast("offset", 'UInt64') AS "offset",
    ha_udi, measurements, raw, context
FROM stored_journal
