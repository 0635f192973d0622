-- question: Which school does a user belong to?
-- grain: one row per user who belongs to any org
-- key: estab, user_sourced_id
-- The first of the user's orgs that is a school, or the first of them.
SELECT
    estab,
    user_sourced_id,
    (ARRAY_AGG(sourced_id ORDER BY place))[1] AS school_sourced_id,
    (ARRAY_AGG(name ORDER BY place))[1] AS school_name
FROM (
    SELECT r.estab, r.user_sourced_id, o.sourced_id, o.name,
        CASE WHEN o.type ILIKE 'school' THEN 0 ELSE 1000000 END + r.position AS place
    FROM users__orgs AS r
    JOIN users AS u ON u.estab = r.estab AND u.sourced_id = r.user_sourced_id AND NOT u._deleted
    JOIN orgs AS o ON o.estab = r.estab AND o.sourced_id = r.sourced_id AND NOT o._deleted
) AS listed
GROUP BY estab, user_sourced_id
