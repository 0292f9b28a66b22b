-- What accepted reports name together (contract 3.1), of all time.
SELECT udi_pid, udi_serial, ha_udi
FROM journal
WHERE disposition = 'accepted' AND ha_udi IS NOT NULL
