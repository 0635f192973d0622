-- question: Who are our pupils, and in which year and school?
-- grain: one row per school and pupil who is not deleted
-- key: estab, sourced_id
-- The year is the first of the grades that the school sends; the school is the first org of type
-- school, or the first org.
SELECT
    u.estab,
    u.sourced_id,
    u.given_name,
    u.middle_name,
    u.family_name,
    u.username,
    u.identifier,
    u.email,
    u.enabled_user,
    g.value AS year_group,
    o.school_sourced_id,
    o.school_name,
    u.date_last_modified
FROM users AS u
LEFT JOIN users__grades AS g
    ON g.estab = u.estab AND g.user_sourced_id = u.sourced_id AND g.position = 0
LEFT JOIN user_schools AS o ON o.estab = u.estab AND o.user_sourced_id = u.sourced_id
WHERE u.role ILIKE 'student' AND NOT u._deleted
