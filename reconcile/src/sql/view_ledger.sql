-- Posted lines.
SELECT
    line_id, posted_period, service_period, segment_start, smart_account, virtual_account, customer,
    pool, subscription_id, entitlement, charge, kind, measure, consumed, purchased, quantity, amount,
    currency, price_plan, verified_share, evidence_root, lines_before, posted_at, journal_version,
    book_version, segment_end, quantity_before, amount_before, cause, usage_root, terms_leaf, purchased_leaf,
    sequence, ledger_version, scope, chain
FROM stored_ledger
WHERE record = 'line'
