-- question: When was the last check, and of what?
SELECT MAX(checked_at) AS checked_at, COUNT(DISTINCT check_id) AS checks
FROM quality_results
WHERE run_id = (SELECT MAX(run_id) FROM quality_results)
