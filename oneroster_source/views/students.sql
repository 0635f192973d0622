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
LEFT JOIN users__grades AS g
    ON g.estab = u.estab AND g.user_sourced_id = u.sourced_id AND g.position = 0
LEFT JOIN (
    SELECT
        estab,
        user_sourced_id,
        (ARRAY_AGG(sourced_id ORDER BY place))[1] AS sourced_id,
        (ARRAY_AGG(name ORDER BY place))[1] AS name
    FROM (
        SELECT r.estab, r.user_sourced_id, o.sourced_id, o.name,
            CASE WHEN o.type ILIKE 'school' THEN 0 ELSE 1000000 END + r.position AS place
        FROM users__orgs AS r
        JOIN orgs AS o ON o.estab = r.estab AND o.sourced_id = r.sourced_id AND NOT o._deleted
    ) AS listed
    GROUP BY estab, user_sourced_id
) AS o ON o.estab = u.estab AND o.user_sourced_id = u.sourced_id
WHERE u.role ILIKE 'student' AND NOT u._deleted
