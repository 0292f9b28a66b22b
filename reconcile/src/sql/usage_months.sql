-- The spans of usage, by day: enough to tell in which months there is any, in whatever zone.
SELECT DISTINCT date_trunc('day', usage_start) AS first_day, date_trunc('day', usage_end) AS last_day
FROM journal
WHERE disposition = 'accepted' AND usage_start IS NOT NULL
