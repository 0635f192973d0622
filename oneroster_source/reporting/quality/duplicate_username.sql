-- question: Which users of a school have the same username?
-- severity: error
-- of: users
-- Upper and lower case make no difference.
SELECT u.estab, u.sourced_id
FROM users AS u
JOIN (
    SELECT estab, LOWER(username) AS username
    FROM users
    WHERE NOT _deleted
    GROUP BY estab, LOWER(username)
    HAVING COUNT(*) > 1
) AS d ON d.estab = u.estab AND d.username = LOWER(u.username)
WHERE NOT u._deleted
