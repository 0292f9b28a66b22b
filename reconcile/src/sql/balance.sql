-- What became of the reports: by disposition, and of the suspended ones those that were written off.
SELECT disposition AS name, count(*) AS reports FROM journal GROUP BY disposition
UNION ALL
SELECT 'written off' AS name, count(*) AS reports
FROM journal
WHERE disposition = 'suspended' AND acts IS NOT NULL AND acts[-1]['act'] = 'write-off'
ORDER BY name
