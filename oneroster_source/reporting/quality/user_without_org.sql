-- question: Which users belong to no org?
-- severity: warning
-- of: users
SELECT u.estab, u.sourced_id
FROM users AS u
WHERE NOT u._deleted
    AND NOT EXISTS (
        SELECT 1 FROM users__orgs AS r
        WHERE r.estab = u.estab AND r.user_sourced_id = u.sourced_id
    )
