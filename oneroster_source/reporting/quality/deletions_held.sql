-- question: In which collections do deletions wait for a decision?
-- severity: warning
-- of: school_summary
-- ids: endpoints
-- The examples are the endpoints; sync_run_details says why, and what to do.
SELECT estab, endpoint AS sourced_id
FROM (
    SELECT
        estab,
        endpoint,
        outcome,
        ROW_NUMBER() OVER (PARTITION BY estab, endpoint ORDER BY started DESC) AS place
    FROM sync_run_details
) AS tries
WHERE place = 1 AND outcome = 'held'
