-- question: Who is in which class today?
-- grain: one row per enrollment that holds today
-- key: estab, sourced_id
-- Today lies between its two dates, both included; where there is none, it holds.
SELECT
    e.estab,
    e.sourced_id,
    LOWER(e.role) AS role,
    e."primary" AS is_primary,
    e.begin_date,
    e.end_date,
    e.user_sourced_id,
    u.given_name,
    u.family_name,
    e.class_sourced_id,
    c.title AS class_title,
    e.school_sourced_id
FROM enrollments AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
WHERE NOT e._deleted
    AND (e.begin_date IS NULL OR e.begin_date <= CURRENT_DATE)
    AND (e.end_date IS NULL OR e.end_date >= CURRENT_DATE)
