-- question: How many pupils joined and left classes, week by week?
-- Weeks in which a term or a year begins are left out: all classes begin then.
SELECT c.week, CAST(SUM(c.joins) AS BIGINT) AS joins, CAST(SUM(c.leaves) AS BIGINT) AS leaves
FROM enrollment_changes AS c
WHERE c.role = 'student'
    AND c.week >= CURRENT_DATE - INTERVAL '182' DAY
    AND NOT EXISTS (
        SELECT 1
        FROM academic_sessions AS s
        WHERE s.estab = c.estab AND NOT s._deleted
            AND CAST(DATE_TRUNC('week', s.start_date) AS DATE) = c.week
    )
GROUP BY c.week
