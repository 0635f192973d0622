-- question: Which users of a school have the same identifier?
-- severity: error
-- of: users
-- Upper and lower case make no difference.
SELECT u.estab, u.sourced_id
FROM users AS u
JOIN (
    SELECT estab, LOWER(identifier) AS identifier
    FROM users
    WHERE NOT _deleted
    GROUP BY estab, LOWER(identifier)
    HAVING COUNT(*) > 1
) AS d ON d.estab = u.estab AND d.identifier = LOWER(u.identifier)
WHERE NOT u._deleted
