-- question: How large are the classes?
-- grain: one row per class that is not deleted
-- key: estab, class_sourced_id
-- Counted are those who are in the class today, and all who are on its roster at any time.
SELECT
    c.estab,
    c.sourced_id AS class_sourced_id,
    c.title AS class_title,
    c.class_code,
    c.class_type,
    k.title AS course_title,
    COALESCE(n.students, 0) AS students,
    COALESCE(n.students_ever, 0) AS students_ever,
    COALESCE(n.teachers, 0) AS teachers
FROM classes AS c
LEFT JOIN courses AS k
    ON k.estab = c.estab AND k.sourced_id = c.course_sourced_id AND NOT k._deleted
LEFT JOIN (
    SELECT
        estab,
        class_sourced_id,
        COUNT(DISTINCT CASE WHEN role = 'student' AND is_current THEN user_sourced_id END)
            AS students,
        COUNT(DISTINCT CASE WHEN role = 'student' THEN user_sourced_id END) AS students_ever,
        COUNT(DISTINCT CASE WHEN role = 'teacher' AND is_current THEN user_sourced_id END)
            AS teachers
    FROM (
        SELECT e.estab, e.class_sourced_id, e.user_sourced_id, e.role,
            e.state = 'current' AS is_current
        FROM enrollment_states AS e
        JOIN users AS u
            ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
    ) AS members
    GROUP BY estab, class_sourced_id
) AS n ON n.estab = c.estab AND n.class_sourced_id = c.sourced_id
WHERE NOT c._deleted
