-- question: Which users lack a given name or a family name?
-- severity: warning
-- of: users
SELECT estab, sourced_id
FROM users
WHERE NOT _deleted AND (given_name IS NULL OR family_name IS NULL)
