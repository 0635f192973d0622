-- question: Which users name an org that is not there?
-- severity: warning
-- of: users
SELECT DISTINCT u.estab, u.sourced_id
FROM users AS u
JOIN users__orgs AS r ON r.estab = u.estab AND r.user_sourced_id = u.sourced_id
WHERE NOT u._deleted
    AND NOT EXISTS (
        SELECT 1 FROM orgs AS o WHERE o.estab = r.estab AND o.sourced_id = r.sourced_id
    )
