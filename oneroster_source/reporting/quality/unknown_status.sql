-- question: Which rows have a status that the standard does not know?
-- severity: warning
-- of: orgs, academic_sessions, courses, classes, users, enrollments
SELECT estab, sourced_id
FROM orgs
WHERE NOT _deleted AND LOWER(status) NOT IN ('active', 'tobedeleted')
UNION ALL
SELECT estab, sourced_id
FROM academic_sessions
WHERE NOT _deleted AND LOWER(status) NOT IN ('active', 'tobedeleted')
UNION ALL
SELECT estab, sourced_id
FROM courses
WHERE NOT _deleted AND LOWER(status) NOT IN ('active', 'tobedeleted')
UNION ALL
SELECT estab, sourced_id
FROM classes
WHERE NOT _deleted AND LOWER(status) NOT IN ('active', 'tobedeleted')
UNION ALL
SELECT estab, sourced_id
FROM users
WHERE NOT _deleted AND LOWER(status) NOT IN ('active', 'tobedeleted')
UNION ALL
SELECT estab, sourced_id
FROM enrollments
WHERE NOT _deleted AND LOWER(status) NOT IN ('active', 'tobedeleted')
