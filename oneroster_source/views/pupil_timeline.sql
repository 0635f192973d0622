-- question: Which classes has a pupil been in, and when?
-- grain: one row per enrollment of a pupil
-- key: estab, enrollment_sourced_id
-- The state is past, current or upcoming; the last day counts. Without dates it is current.
SELECT
    e.estab,
    e.sourced_id AS enrollment_sourced_id,
    e.user_sourced_id AS student_sourced_id,
    u.given_name,
    u.family_name,
    e.class_sourced_id,
    c.title AS class_title,
    k.title AS course_title,
    e.begin_date,
    e.end_date,
    CASE
        WHEN e.begin_date > CURRENT_DATE THEN 'upcoming'
        WHEN e.end_date < CURRENT_DATE THEN 'past'
        ELSE 'current'
    END AS state
FROM enrollments AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
LEFT JOIN courses AS k
    ON k.estab = c.estab AND k.sourced_id = c.course_sourced_id AND NOT k._deleted
WHERE e.role ILIKE 'student' AND NOT e._deleted
