-- question: Who is in which class, with which teachers, in which course and terms?
-- grain: one row per class and pupil
-- key: estab, class_sourced_id, student_sourced_id
-- A pupil who left and came back has one row, from the first day to the last. Teachers are those who
-- have not left yet. Who has a date that could not be read is not current, and not among the teachers.
SELECT
    e.estab,
    e.class_sourced_id,
    c.title AS class_title,
    c.class_type,
    k.title AS course_title,
    s.terms,
    t.teachers,
    e.student_sourced_id,
    u.given_name,
    u.family_name,
    e.begin_date,
    e.end_date,
    e.is_current
FROM (
    SELECT
        estab,
        class_sourced_id,
        user_sourced_id AS student_sourced_id,
        CASE WHEN COUNT(begin_date) = COUNT(*) THEN MIN(begin_date) END AS begin_date,
        CASE WHEN COUNT(end_date) = COUNT(*) THEN MAX(end_date) END AS end_date,
        MAX(CASE WHEN state = 'current' THEN 1 ELSE 0 END) = 1 AS is_current
    FROM enrollment_states
    WHERE role = 'student'
    GROUP BY estab, class_sourced_id, user_sourced_id
) AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.student_sourced_id AND NOT u._deleted
JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
LEFT JOIN courses AS k
    ON k.estab = c.estab AND k.sourced_id = c.course_sourced_id AND NOT k._deleted
LEFT JOIN (
    SELECT r.estab, r.class_sourced_id,
        STRING_AGG(a.title, ', ' ORDER BY a.start_date, a.title) AS terms
    FROM classes__terms AS r
    JOIN academic_sessions AS a
        ON a.estab = r.estab AND a.sourced_id = r.sourced_id AND NOT a._deleted
    GROUP BY r.estab, r.class_sourced_id
) AS s ON s.estab = c.estab AND s.class_sourced_id = c.sourced_id
LEFT JOIN (
    SELECT estab, class_sourced_id, STRING_AGG(teacher, ', ' ORDER BY rank, teacher) AS teachers
    FROM (
        SELECT e.estab, e.class_sourced_id, e.user_sourced_id,
            TRIM(COALESCE(u.given_name, '') || ' ' || COALESCE(u.family_name, '')) AS teacher,
            MIN(CASE WHEN e.is_primary THEN 0 ELSE 1 END) AS rank
        FROM enrollment_states AS e
        JOIN users AS u
            ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
        WHERE e.role = 'teacher' AND e.state IN ('current', 'upcoming')
        GROUP BY e.estab, e.class_sourced_id, e.user_sourced_id, u.given_name, u.family_name
    ) AS taught
    GROUP BY estab, class_sourced_id
) AS t ON t.estab = c.estab AND t.class_sourced_id = c.sourced_id
