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
    o.sourced_id AS school_sourced_id,
    o.name AS school_name,
    u.date_last_modified
FROM users AS u
LEFT JOIN (
    SELECT estab, user_sourced_id, value,
        ROW_NUMBER() OVER (PARTITION BY estab, user_sourced_id ORDER BY position) AS place
    FROM users__grades
) AS g ON g.estab = u.estab AND g.user_sourced_id = u.sourced_id AND g.place = 1
LEFT JOIN (
    SELECT r.estab, r.user_sourced_id, o.sourced_id, o.name,
        ROW_NUMBER() OVER (
            PARTITION BY r.estab, r.user_sourced_id
            ORDER BY CASE WHEN o.type = 'school' THEN 0 ELSE 1 END, r.position
        ) AS place
    FROM users__orgs AS r
    JOIN orgs AS o ON o.estab = r.estab AND o.sourced_id = r.sourced_id AND NOT o._deleted
) AS o ON o.estab = u.estab AND o.user_sourced_id = u.sourced_id AND o.place = 1
WHERE LOWER(u.role) = 'student' AND NOT u._deleted
