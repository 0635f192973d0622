-- question: How many joined and left classes, week by week?
-- grain: one row per school, week (its Monday) and role, where somebody joined or left
-- key: estab, week, role
-- Who joined did so on the begin date. Who left did so on the end date, once it is past; or, if the
-- enrollment was deleted before that, on the day of its last change. Without a date nothing counts.
SELECT
    estab,
    CAST(DATE_TRUNC('week', day) AS DATE) AS week,
    role,
    CAST(SUM(joins) AS BIGINT) AS joins,
    CAST(SUM(leaves) AS BIGINT) AS leaves,
    CAST(SUM(joins) - SUM(leaves) AS BIGINT) AS net
FROM (
    SELECT estab, begin_date AS day, LOWER(role) AS role, 1 AS joins, 0 AS leaves
    FROM enrollments
    WHERE begin_date <= CURRENT_DATE
        AND NOT (_deleted AND COALESCE(CAST(date_last_modified AS DATE) < begin_date, FALSE))
    UNION ALL
    SELECT estab, day, role, 0 AS joins, 1 AS leaves
    FROM (
        SELECT
            estab,
            LOWER(role) AS role,
            begin_date,
            CASE
                WHEN NOT _deleted OR end_date < CAST(date_last_modified AS DATE) THEN end_date
                ELSE CAST(date_last_modified AS DATE)
            END AS day
        FROM enrollments
    ) AS ended
    WHERE day < CURRENT_DATE AND COALESCE(day >= begin_date, TRUE)
) AS changes
WHERE role IS NOT NULL
GROUP BY estab, CAST(DATE_TRUNC('week', day) AS DATE), role
