-- The journal as contract 5 shows it: ids and counts unsigned. The inner names keep what is stored
-- apart from what is shown.
SELECT
    disposition, reason, detail, udi_pid, udi_serial,
    arrow_cast(stored_report_id, 'UInt64') AS report_id,
    payload_sha256, layout, entitlement_tag, utility, software_version, subscription_id, signature,
    collector, smart_account, virtual_account, received_at, source, partition,
    arrow_cast(stored_offset, 'UInt64') AS "offset",
    ha_udi, measurements, raw, context, acts,
    collector_version, collection, transport, ha_roles, sub_devices, clock_changes
FROM (
    SELECT
        disposition, reason, detail, udi_pid, udi_serial, report_id AS stored_report_id,
        payload_sha256, layout, entitlement_tag, utility, software_version, subscription_id, signature,
        collector, smart_account, virtual_account, received_at, source, partition,
        "offset" AS stored_offset, ha_udi, measurements, raw, context, acts,
        collector_version, collection, transport, ha_roles, sub_devices, clock_changes
    FROM stored_journal
) AS stored
