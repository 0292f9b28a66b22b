-- Closed periods and their manifests.
SELECT posted_period AS period, posted_at AS closed_at, manifest
FROM stored_ledger
WHERE record = 'close'
