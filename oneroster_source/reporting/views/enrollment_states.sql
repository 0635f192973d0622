-- question: Is each enrollment past, current or upcoming?
-- grain: one row per enrollment that is not deleted
-- key: estab, sourced_id
-- The state is past, current or upcoming; the first and the last day count. Where there is no date, it
-- has begun, or goes on. Where a date was sent that could not be read, the state is unknown, unless the
-- other date tells.
SELECT
    e.estab,
    e.sourced_id,
    LOWER(e.role) AS role,
    e."primary" AS is_primary,
    e.begin_date,
    e.end_date,
    CASE
        WHEN e.begin_date > CURRENT_DATE THEN 'upcoming'
        WHEN e.end_date < CURRENT_DATE THEN 'past'
        WHEN r.sourced_id IS NOT NULL THEN 'unknown'
        ELSE 'current'
    END AS state,
    e.user_sourced_id,
    e.class_sourced_id,
    e.school_sourced_id
FROM enrollments AS e
LEFT JOIN (
    SELECT DISTINCT estab, sourced_id
    FROM rejected_rows
    WHERE endpoint = 'enrollments' AND reason IN ('beginDate: not a date', 'endDate: not a date')
) AS r ON r.estab = e.estab AND r.sourced_id = e.sourced_id
WHERE NOT e._deleted
