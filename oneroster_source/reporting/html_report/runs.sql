-- question: What did the last runs bring?
SELECT run_id, started, seconds, schools, failed, held, rows_read, changed, deleted, gone
FROM sync_runs
ORDER BY run_id DESC
LIMIT 12
