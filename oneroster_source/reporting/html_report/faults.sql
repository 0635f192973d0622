-- question: What did the last check of each school find?
SELECT q.estab, q.check_id, q.severity, q.question, q.rows_found, q.examples
FROM quality_results AS q
WHERE q.rows_found > 0
    AND q.run_id = (SELECT MAX(run_id) FROM quality_results)
ORDER BY q.estab, q.check_id
