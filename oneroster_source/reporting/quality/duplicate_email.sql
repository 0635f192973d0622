-- question: Which users of a school have the same email address?
-- severity: warning
-- of: users
-- Upper and lower case make no difference.
SELECT u.estab, u.sourced_id
FROM users AS u
JOIN (
    SELECT estab, LOWER(email) AS email
    FROM users
    WHERE NOT _deleted
    GROUP BY estab, LOWER(email)
    HAVING COUNT(*) > 1
) AS d ON d.estab = u.estab AND d.email = LOWER(u.email)
WHERE NOT u._deleted
