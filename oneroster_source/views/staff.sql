-- question: Who works here, and as what?
-- grain: one row per school and member of staff who is not deleted
-- key: estab, sourced_id
-- Staff is whoever is a teacher, an aide, an administrator or a proctor.
SELECT
    u.estab,
    u.sourced_id,
    LOWER(u.role) AS role,
    u.given_name,
    u.middle_name,
    u.family_name,
    u.username,
    u.identifier,
    u.email,
    u.enabled_user,
    o.sourced_id AS school_sourced_id,
    o.name AS school_name,
    u.date_last_modified
FROM users AS u
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
WHERE LOWER(u.role) IN ('teacher', 'aide', 'administrator', 'proctor') AND NOT u._deleted
