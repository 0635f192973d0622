-- question: Who teaches what, where, when, and to how many?
-- grain: one row per teacher and class
-- key: estab, teacher_sourced_id, class_sourced_id
-- Periods are as the school names them. Pupils are those of today.
SELECT
    e.estab,
    e.teacher_sourced_id,
    u.given_name,
    u.family_name,
    e.class_sourced_id,
    z.class_title,
    z.course_title,
    c.location,
    p.periods,
    z.students,
    e.is_primary,
    e.begin_date,
    e.end_date,
    e.is_current
FROM (
    SELECT
        estab,
        user_sourced_id AS teacher_sourced_id,
        class_sourced_id,
        MAX(CASE WHEN is_primary THEN 1 ELSE 0 END) = 1 AS is_primary,
        CASE WHEN COUNT(begin_date) = COUNT(*) THEN MIN(begin_date) END AS begin_date,
        CASE WHEN COUNT(end_date) = COUNT(*) THEN MAX(end_date) END AS end_date,
        MAX(CASE WHEN state = 'current' THEN 1 ELSE 0 END) = 1 AS is_current
    FROM enrollment_states
    WHERE role = 'teacher'
    GROUP BY estab, user_sourced_id, class_sourced_id
) AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.teacher_sourced_id AND NOT u._deleted
JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
JOIN class_sizes AS z ON z.estab = c.estab AND z.class_sourced_id = c.sourced_id
LEFT JOIN (
    SELECT estab, class_sourced_id, STRING_AGG(value, ', ' ORDER BY position) AS periods
    FROM classes__periods
    GROUP BY estab, class_sourced_id
) AS p ON p.estab = c.estab AND p.class_sourced_id = c.sourced_id
