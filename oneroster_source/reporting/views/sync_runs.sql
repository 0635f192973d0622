-- question: When did we load, how much came, and did all go well?
-- grain: one row per run that loaded something
-- key: run_id
-- Seconds are those of the reading, from the first request to the last row.
SELECT
    run_id,
    MIN(started) AS started,
    MAX(ended) AS ended,
    CAST(EXTRACT(EPOCH FROM MAX(ended)) - EXTRACT(EPOCH FROM MIN(started)) AS DOUBLE PRECISION)
        AS seconds,
    COUNT(DISTINCT estab) AS schools,
    COUNT(*) AS collections,
    COUNT(CASE WHEN outcome = 'failed' THEN 1 END) AS failed,
    COUNT(CASE WHEN outcome = 'held' THEN 1 END) AS held,
    COUNT(CASE WHEN mode = 'full' THEN 1 END) AS read_in_full,
    CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(rows_read) AS BIGINT) AS rows_read,
    CAST(SUM(changed) AS BIGINT) AS changed,
    CAST(SUM(deleted) AS BIGINT) AS deleted,
    CAST(SUM(gone) AS BIGINT) AS gone,
    CAST(SUM(rejected) AS BIGINT) AS rejected
FROM sync_run_details
GROUP BY run_id
