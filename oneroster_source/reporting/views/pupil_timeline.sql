-- question: Which classes has a pupil been in, and when?
-- grain: one row per enrollment of a pupil
-- key: estab, enrollment_sourced_id
-- The state is past, current or upcoming; the last day counts. Without dates it is current; where a
-- date was sent that could not be read, it is unknown, unless the other date tells.
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
    e.state
FROM enrollment_states AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
LEFT JOIN courses AS k
    ON k.estab = c.estab AND k.sourced_id = c.course_sourced_id AND NOT k._deleted
WHERE e.role = 'student'
