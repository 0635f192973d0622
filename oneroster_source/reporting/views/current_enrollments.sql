-- question: Who is in which class today?
-- grain: one row per enrollment that holds today
-- key: estab, sourced_id
-- Today lies between its two dates, both included; where there is none, it holds. Where a date was
-- sent that could not be read, it does not.
SELECT
    e.estab,
    e.sourced_id,
    e.role,
    e.is_primary,
    e.begin_date,
    e.end_date,
    e.user_sourced_id,
    u.given_name,
    u.family_name,
    e.class_sourced_id,
    c.title AS class_title,
    e.school_sourced_id
FROM enrollment_states AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
WHERE e.state = 'current'
