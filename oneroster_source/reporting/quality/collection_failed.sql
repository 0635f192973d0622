-- question: Which collections could not be read the last time?
-- severity: error
-- of: school_summary
-- ids: endpoints
-- The examples are the endpoints; sync_run_details says why.
SELECT estab, endpoint AS sourced_id
FROM (
    SELECT
        estab,
        endpoint,
        outcome,
        ROW_NUMBER() OVER (PARTITION BY estab, endpoint ORDER BY started DESC) AS place
    FROM sync_run_details
) AS tries
WHERE place = 1 AND outcome = 'failed'
