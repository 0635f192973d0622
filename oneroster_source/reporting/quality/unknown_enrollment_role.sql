-- question: Which enrollments have a role that the standard does not know?
-- severity: warning
-- of: enrollments
SELECT estab, sourced_id
FROM enrollments
WHERE NOT _deleted AND LOWER(role) NOT IN (
    'administrator', 'aide', 'guardian', 'parent', 'proctor', 'relative', 'student', 'teacher'
)
