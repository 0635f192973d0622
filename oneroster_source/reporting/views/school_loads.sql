-- question: Which schools are loaded well, which are not, since when, and why?
-- grain: one row per school that a run has tried to read
-- key: estab
-- A school is as fresh as the endpoint whose last good read is the oldest; it has no last good load
-- where one was never read well. An endpoint that is held is loaded, but deletions in it wait for a
-- decision. Endpoints that no run has tried in the week before the school's last try do not count:
-- they are not loaded any more. `stale` is no good load for three days.
WITH reads AS (
    SELECT
        estab,
        endpoint,
        MAX(started) AS last_try,
        MAX(CASE WHEN outcome IN ('read', 'held') THEN started END) AS last_load,
        MAX(CASE WHEN outcome = 'read' THEN started END) AS last_read,
        MAX(CASE WHEN outcome IN ('read', 'held') AND mode = 'full' THEN started END) AS last_full
    FROM sync_run_details
    GROUP BY estab, endpoint
),
tries AS (
    SELECT
        d.*,
        r.last_try,
        r.last_load,
        r.last_full,
        d.outcome = 'failed' AND (r.last_load IS NULL OR d.started > r.last_load) AS fails,
        d.outcome = 'held' AND (r.last_read IS NULL OR d.started > r.last_read) AS waits
    FROM reads AS r
    JOIN sync_run_details AS d
        ON d.estab = r.estab AND d.endpoint = r.endpoint
        AND (r.last_read IS NULL OR d.started >= r.last_read OR d.started = r.last_full)
),
endpoints AS (
    SELECT
        estab,
        endpoint,
        last_try,
        MAX(CASE WHEN started = last_load THEN ended END) AS good_load,
        MAX(CASE WHEN started = last_full THEN ended END) AS full_read,
        MAX(CASE WHEN started = last_full THEN rows_read END) AS full_rows,
        COUNT(CASE WHEN fails THEN 1 END) AS failures,
        MIN(CASE WHEN fails THEN started END) AS failing_since,
        MAX(CASE WHEN fails AND started = last_try THEN reason END) AS failure,
        MIN(CASE WHEN waits THEN started END) AS held_since,
        MAX(CASE WHEN waits AND started = last_load THEN reason END) AS objection
    FROM tries
    GROUP BY estab, endpoint, last_try
),
schools AS (
    SELECT
        estab,
        CASE WHEN COUNT(*) = COUNT(good_load) THEN MIN(good_load) END AS last_good_load,
        CASE WHEN COUNT(*) = COUNT(full_read) THEN MIN(full_read) END AS last_full_read,
        COUNT(CASE WHEN failures > 0 THEN 1 END) AS failing,
        MIN(failing_since) AS failing_since,
        MAX(failures) AS failures_in_a_row,
        COALESCE(MAX(CASE WHEN last_try = last_failure THEN failure END), MAX(objection)) AS reason,
        CAST(SUM(full_rows) AS BIGINT) AS rows_at_last_full,
        COUNT(held_since) AS held,
        MIN(held_since) AS held_since
    FROM (
        SELECT
            e.*,
            MAX(last_try) OVER (PARTITION BY estab) AS newest_try,
            MAX(CASE WHEN failures > 0 THEN last_try END) OVER (PARTITION BY estab) AS last_failure
        FROM endpoints AS e
    ) AS all_endpoints
    WHERE last_try >= newest_try - INTERVAL '7' DAY
    GROUP BY estab
)
SELECT
    estab,
    COALESCE(last_good_load < CURRENT_TIMESTAMP - INTERVAL '3' DAY, TRUE) AS stale,
    last_good_load,
    last_full_read,
    failing,
    failing_since,
    failures_in_a_row,
    reason,
    rows_at_last_full,
    held,
    held_since
FROM schools
