-- question: Which users have a role that the standard does not know?
-- severity: warning
-- of: users
SELECT estab, sourced_id
FROM users
WHERE NOT _deleted AND LOWER(role) NOT IN (
    'administrator', 'aide', 'guardian', 'parent', 'proctor', 'relative', 'student', 'teacher'
)
