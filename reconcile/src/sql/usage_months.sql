-- The spans of usage, by month: enough to tell in which months there is any.
SELECT DISTINCT date_trunc('month', usage_start) AS first_month, date_trunc('month', usage_end) AS last_month
FROM journal
WHERE disposition = 'accepted' AND usage_start IS NOT NULL
